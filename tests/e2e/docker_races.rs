//! Clients of Docker's API that go away, come together, or are slow: nothing is lost, and nothing half done.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    process::Stdio,
};

use libtest_mimic::Trial;
use serde_json::json;
use weft_tests::{ns::Background, run::eventually, runner::test};

use crate::client::{Docker, NEEDS};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("docker_races::what_was_asked_is_done_though_who_asked_is_gone", NEEDS, vanished),
        test("docker_races::who_is_killed_or_has_ended_can_be_removed_at_once", NEEDS, at_once),
        test("docker_races::the_code_of_one_whose_output_is_still_read", NEEDS, code),
        test("docker_races::a_command_goes_on_without_its_client", NEEDS, unheard),
        test("docker_races::a_command_is_started_once", NEEDS, once),
        test("docker_races::a_command_in_one_that_ends", NEEDS, dying),
        test("docker_races::lines_that_were_written_in_parts", NEEDS, parts),
        test("docker_races::half_an_entry_does_not_hide_what_follows", NEEDS, half),
    ]
}

/// Sends a request and does not wait for its answer.
fn ask(docker: &Docker, path: &str) -> UnixStream {
    let mut socket = docker.socket();
    write!(socket, "POST {path} HTTP/1.1\r\nHost: docker\r\nContent-Length: 0\r\n\r\n").expect("a request");
    socket
}

fn vanished() {
    let docker = Docker::start();
    // It hears SIGTERM, and says so, and goes on.
    docker.args(&["run", "-d", "--name", "c", "host", "sh", "-c", "trap 'echo asked' TERM; echo up; while true; do sleep 0.1; done"]).ok();
    eventually("it is up", || docker.run("logs c").stdout == "up\n");
    let began = docker.format("c", "{{.State.StartedAt}}");
    let client = ask(&docker, "/containers/c/restart?t=1");
    eventually("it was asked to end", || docker.run("logs c").stdout.contains("asked"));
    drop(client);
    eventually("it was started again", || docker.format("c", "{{.State.Running}}") == "true" && docker.format("c", "{{.State.StartedAt}}") != began);
    eventually("it is up", || docker.run("logs c").stdout.ends_with("up\n"));
    let client = ask(&docker, "/containers/c/stop?t=1");
    eventually("it was asked to end", || docker.run("logs c").stdout.ends_with("asked\n"));
    drop(client);
    eventually("it was killed", || docker.format("c", "{{.State.Status}} {{.State.ExitCode}}") == "exited 137");
    docker.run("rm c").ok();
}

/// As with Docker `kill` is done when the container has ended, and so is `stop` of one that ends by itself meanwhile; one that
/// removes itself is restarted.
fn at_once() {
    let docker = Docker::start();
    let ran = docker.sh("for i in $(seq 20); do docker run -d --name k host sleep 1000 && docker kill k && docker rm k || exit 1; done");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let ran = docker.sh("for i in $(seq 20); do docker run -d --name k host sh -c 'sleep 0.05; kill -9 $$' && docker stop k && docker rm k || exit 1; done");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    docker.run("run -d --rm --name self host sleep 1000").ok();
    let began = docker.format("self", "{{.State.StartedAt}}");
    docker.run("restart -t 0 self").ok();
    assert_eq!(docker.format("self", "{{.State.Running}} {{.HostConfig.AutoRemove}}"), "true true");
    assert_ne!(docker.format("self", "{{.State.StartedAt}}"), began);
    docker.run("stop -t 0 self").ok();
    assert_eq!(docker.run("ps -aq").ok(), "");
}

/// A client that does not read holds up the end of a container for a while: who stops or removes it meanwhile waits too, and
/// who waits for it hears its code.
fn code() {
    let docker = Docker::start();
    for how in ["rm -f", "stop", "kill"] {
        let client = docker.command(&["run", "--name", "c", "--log-opt", "max-size=64k", "host", "seq", "1", "10000000"]).stdout(Stdio::piped()).spawn();
        let mut client = Background(client.expect("a client"));
        eventually("it runs", || docker.args(&["inspect", "--format", "{{.State.Running}}", "c"]).stdout.trim() == "true");
        let mut waits = ask(&docker, "/containers/c/wait");
        waits.read_exact(&mut [0; 12]).expect("its head");
        let pid = docker.format("c", "{{.State.Pid}}");
        // Until it can write no more: what has not been read by the client is more than is kept.
        let written = || docker.0.host.sh(&format!("grep ^wchar: /proc/{pid}/io")).ok();
        eventually("it waits for its client", || {
            let before = written();
            std::thread::sleep(std::time::Duration::from_millis(300));
            before == written()
        });
        docker.0.host.run(&format!("kill -9 {pid}")).ok();
        eventually("its process is gone", || !std::path::Path::new("/proc").join(&pid).exists());
        if how != "kill" {
            docker.run(&format!("{how} c")).ok();
        } else {
            drop(docker.run("kill c"));
            docker.run("wait c").ok();
        }
        let mut told = String::new();
        eventually("who waits is told", || {
            let mut piece = [0; 1024];
            let length = waits.read(&mut piece).expect("an answer");
            told.push_str(&String::from_utf8_lossy(&piece[..length]));
            told.contains('}')
        });
        assert!(told.contains(r#"{"StatusCode":137}"#), "{how}: {told}");
        drop(client.0.stdout.take());
        drop(client.0.wait());
        drop(docker.run("rm c"));
    }
    assert_eq!(docker.run("ps -aq").ok(), "");
}

/// The client of `docker exec` is killed: the command is not, whatever it writes.
fn unheard() {
    let docker = Docker::start();
    docker.run("run -d --name c host sleep 1000").ok();
    for terminal in [false, true] {
        let (go, done) = (docker.0.dir().join(format!("go{terminal}")), docker.0.dir().join(format!("done{terminal}")));
        let script = format!("echo up; until test -e {}; do sleep 0.1; done; for i in $(seq 2000); do echo $i {}; done; touch {}", go.display(), "x".repeat(100), done.display());
        let (status, exec) = docker.api("POST", "/containers/c/exec", json!({ "AttachStdin": true, "AttachStdout": true, "AttachStderr": true, "Tty": terminal, "Cmd": ["sh", "-c", script] }).to_string().as_bytes());
        assert_eq!(status, 201, "{exec}");
        let mut client = docker.socket();
        write!(client, "POST /exec/{}/start HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 2\r\n\r\n{{}}", exec["Id"].as_str().expect("an id")).expect("a request");
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains("up") {
            let mut piece = [0; 1024];
            let length = client.read(&mut piece).expect("output");
            assert!(length > 0, "{}", String::from_utf8_lossy(&seen));
            seen.extend(&piece[..length]);
        }
        drop(client);
        std::fs::write(&go, "").expect("a file");
        eventually("it comes to its end", || done.exists());
    }
    docker.run("rm -f c").ok();
}

fn once() {
    let docker = Docker::start();
    docker.run("run -d --name c host sleep 1000").ok();
    let seen = docker.0.dir().join("seen");
    let command = format!("echo once >> {}; sleep 1000", seen.display());
    for number in 1..=10 {
        let exec = docker.api("POST", "/containers/c/exec", json!({ "Cmd": ["sh", "-c", command] }).to_string().as_bytes()).1;
        let path = format!("/exec/{}/start", exec["Id"].as_str().expect("an id"));
        let mut answers: Vec<u16> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..10).map(|_| scope.spawn(|| docker.api("POST", &path, br#"{"Detach":true}"#).0)).collect();
            clients.into_iter().map(|client| client.join().expect("an answer")).collect()
        });
        answers.sort_unstable();
        assert_eq!((answers[0], &answers[1..]), (200, &[409; 9][..]));
        eventually("it runs", || std::fs::read_to_string(&seen).is_ok_and(|text| text.lines().count() >= number));
    }
    assert_eq!(std::fs::read_to_string(&seen).expect("a file").lines().count(), 10);
    docker.run("rm -f c").ok();
}

/// `docker exec` in a container that ends meanwhile is told that, and nothing of what was missing then.
fn dying() {
    let docker = Docker::start();
    for number in 0..40 {
        docker.run(&format!("run -d --name c{number} host sleep 1000")).ok();
        let pid = docker.format(&format!("c{number}"), "{{.State.Pid}}");
        let (_, exec) = docker.api("POST", &format!("/containers/c{number}/exec"), br#"{"Cmd":["true"],"AttachStdout":true}"#);
        docker.0.host.run(&format!("kill -9 {pid}")).ok();
        let (status, answer) = docker.api("POST", &format!("/exec/{}/start", exec["Id"].as_str().expect("an id")), b"{}");
        let is_told = status == 409 && answer["message"].as_str().is_some_and(|message| message.ends_with("is not running"));
        assert!(is_told || status == 200, "{status} {answer}");
        let code = docker.api("GET", &format!("/exec/{}/json", exec["Id"].as_str().expect("an id")), b"").1["ExitCode"].clone();
        assert!(code.is_null() || code == 0 || code == 137, "{code}");
        docker.run(&format!("rm -f c{number}")).ok();
    }
}

/// What is one line is told and counted as one, however it was written.
fn parts() {
    let docker = Docker::start();
    docker.args(&["run", "--name", "c", "host", "sh", "-c", "for line in 1 2 3; do for part in a b c; do printf $part; printf $part >&2; sleep 0.1; done; echo $line; echo $line >&2; done; printf end"]).ok();
    let plain = docker.run("logs c");
    assert_eq!((plain.stdout.as_str(), plain.stderr.as_str()), ("abc1\nabc2\nabc3\nend", "abc1\nabc2\nabc3\n"));
    let lines = |text: &str| text.lines().map(|line| line.split_once(' ').map_or("", |(time, rest)| if time.ends_with('Z') { rest } else { "" }).to_owned()).collect::<Vec<_>>();
    let stamped = docker.run("logs -t c");
    assert_eq!(lines(&stamped.stdout), ["abc1", "abc2", "abc3", "end"]);
    assert_eq!(lines(&stamped.stderr), ["abc1", "abc2", "abc3"]);
    let last = docker.run("logs --tail 3 c");
    assert_eq!((last.stdout.as_str(), last.stderr.as_str()), ("abc3\nend", "abc3\n"), "the last three of both");
    docker.run("rm c").ok();
}

/// A daemon that was killed while it wrote may leave part of an entry: what is logged next is read all the same. What it has
/// left of containers that are gone goes too.
fn half() {
    let mut docker = Docker::start();
    docker.args(&["run", "-d", "--name", "c", "host", "sh", "-c", "echo one; while true; do sleep 0.1; echo more; done"]).ok();
    eventually("it writes", || docker.run("logs c").stdout.contains("more"));
    docker.0.kill_daemon();
    let logs = docker.0.state_dir().join("logs");
    let log = std::fs::read_dir(&logs).expect("logs").flatten().map(|entry| entry.path()).find(|path| path.extension().is_some_and(|end| end == "out")).expect("a log");
    let left = ["out", "out.1", "fifo1"].map(|end| logs.join(format!("{}.{end}", "0".repeat(64))));
    left.iter().for_each(|path| std::fs::write(path, "of nobody").expect("a file"));
    let mut file = std::fs::OpenOptions::new().append(true).open(log).expect("a log");
    file.write_all(&[1, 0, 0, 0, 0x40, 0, 0, 0, 1, 2, 3]).expect("half an entry");
    docker.0.start_daemon();
    assert!(left.iter().all(|path| !path.exists()));
    let count = |docker: &Docker| docker.run("logs c").ok().lines().count();
    let before = count(&docker);
    eventually("it goes on", || count(&docker) > before + 5);
    docker.run("rm -f c").ok();
}
