//! What was acknowledged is there after kill -9 at any step of saving it, and after the disk was full; a state file
//! that cannot be read is refused and kept. SPEC rows: N4. (Damage bit by bit: `switch/control/src/state.rs`.)

use std::{
    net::Ipv4Addr,
    process::{Command, Stdio},
};

use libtest_mimic::Trial;
use serde_json::json;
use weft_tests::{
    lab::{Lab, weft_binary},
    naive::{Naive, Op, Port, Subnet},
    operations::World,
    run::eventually,
    runner::{Need, test},
};

use super::operations::Live;

const NEEDS: &[Need] = &[Need::Root, Need::Tun, Need::Tool("ping")];
const STRACE: &[Need] = &[Need::Root, Need::Tun, Need::Tool("strace")];

pub(crate) fn tests() -> Vec<Trial> {
    let mut tests: Vec<_> = ["openat", "write", "fsync", "fdatasync", "rename"]
        .into_iter()
        .flat_map(|call| [("from_its_start", true), ("at_work", false)].map(|(when, from_start)| test(&format!("persistence::n4_killed_at_every_{call}_{when}"), STRACE, move || killed_at_every(call, from_start))))
        .collect();
    tests.push(test("persistence::a_full_disk_refuses_by_name_and_loses_nothing", NEEDS, full_disk));
    tests.push(test("persistence::a_later_or_empty_state_file_is_refused_and_kept", NEEDS, refused_and_kept));
    tests
}

/// Enough to write the file anew once more, and something of each kind.
fn work() -> Vec<Op> {
    let net = |name: &str, third: u32| Op::CreateNetwork(name.into(), Subnet(0x0a01_0000 + (third << 8), 24), false);
    let port = Port(8000, 80, false);
    vec![
        net("one", 1),
        Op::CreateSandbox("a".into(), vec![("one".into(), Some(Ipv4Addr::new(10, 1, 1, 7)))], vec![]),
        net("two", 2),
        Op::Connect("two".into(), "a".into(), None),
        net("three", 3),
        Op::Publish("a".into(), port),
        Op::RemoveNetwork("three".into()),
        Op::Unpublish("a".into(), port),
        Op::Disconnect("one".into(), "a".into()),
        Op::RemoveSandbox("a".into()),
    ]
}

/// The first call, the second, and so on in each thread: until one run comes to its end. A daemon that is traced from
/// its start dies in what its first thread saves; one that is at work already, in what the others do.
#[expect(clippy::print_stdout, reason = "it says at how many places")]
fn killed_at_every(call: &str, from_start: bool) {
    // Other things are opened and written, too: then every some of them.
    let stride = if matches!(call, "openat" | "write") { 7 } else { 1 };
    let mut deaths = 0;
    for count in (1..600).step_by(stride) {
        if !survives(call, count, from_start) {
            deaths += 1;
            continue;
        }
        assert!(deaths > 0, "nothing was killed at any {call}");
        println!("persistence: killed at {deaths} of {call}");
        return;
    }
    panic!("the work has no end: {deaths} deaths");
}

/// True when the daemon came to the end of the work.
fn survives(call: &str, count: usize, from_start: bool) -> bool {
    let mut live = Live { lab: Lab::without_daemon(), ballast: 40_000 };
    let what = format!("killed at {call} {count}");
    let mut traced = live.lab.host.command("strace");
    traced.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &format!("inject={call}:signal=KILL:when={count}")]);
    if from_start {
        traced.arg(weft_binary()).arg("--state-dir").arg(live.lab.state_dir()).arg("daemon");
    } else {
        live.lab.start_daemon();
        traced.args(["-p", &live.lab.daemon_pid().to_string()]);
    }
    let mut tracer = traced.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("strace starts");
    let mut naive = Naive::default();
    if from_start {
        eventually("the daemon answers, or is dead", || tracer.try_wait().expect("wait").is_some() || live.lab.request("GET", "/v1/info", &json!(null)).is_ok());
    } else {
        let pid = live.lab.daemon_pid();
        eventually("the daemon is traced", || is_traced(pid));
    }
    let mut in_flight = None;
    let survived = tracer.try_wait().expect("wait").is_none() && work().into_iter().all(|op| match live.ask(&op) {
        Some(outcome) => {
            assert_eq!(outcome, naive.step(&op), "{what}: {op:?}");
            true
        }
        None => {
            in_flight = Some(op);
            false
        }
    });
    // Its time may come with this question.
    if survived && let Ok((_, info)) = live.lab.request("GET", "/v1/info", &json!(null)) {
        let pid = info["pid"].as_i64().expect("a pid");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid")), nix::sys::signal::Signal::SIGKILL).ok();
    }
    tracer.wait().expect("strace ends with the daemon");
    if !from_start {
        live.lab.kill_daemon();
    }
    live.lab.start_daemon();
    let mut possible = vec![naive.view()];
    possible.extend(in_flight.and_then(|op| naive.step(&op).ok()).map(|()| naive.view()));
    let view = live.view();
    assert!(possible.contains(&view), "{what}:\n{}\nis not what was acknowledged:\n{}", view.join("\n"), possible[0].join("\n"));
    survived
}

/// All threads are.
fn is_traced(pid: u32) -> bool {
    let mut tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("threads").flatten();
    tasks.all(|task| std::fs::read_to_string(task.path().join("status")).is_ok_and(|status| status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))))
}

/// A small file system, unmounted when dropped.
struct Disk(std::path::PathBuf);

impl Disk {
    fn mount(lab: &Lab, options: &str) -> Self {
        let path = lab.state_dir();
        std::fs::create_dir_all(&path).expect("a directory");
        assert!(Command::new("mount").args(["-t", "tmpfs", "-o", options, "weft-test"]).arg(&path).status().expect("mount").success());
        Self(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

fn full_disk() {
    let lab = Lab::without_daemon();
    let disk = Disk::mount(&lab, "size=400k");
    let mut live = Live { lab, ballast: 20_000 };
    live.lab.start_daemon();
    live.lab.weft("run -d --name a -- sleep 1000").ok();
    live.lab.weft("run -d --name b -- sleep 1000").ok();
    let net = |number: u32| Op::CreateNetwork(format!("n{number}"), Subnet(0x0a01_0000 + (number << 8), 24), false);
    let mut made = Vec::new();
    let refused = (0..100).find(|&number| match live.ask(&net(number)).expect("an answer") {
        Ok(()) => {
            made.push(format!("n{number}"));
            false
        }
        Err(_) => true,
    });
    let refused = refused.expect("the disk is full at some time");
    assert!(made.len() > 2, "{made:?}");
    let error = live.lab.weft(&format!("network create n{refused} --subnet 10.99.0.0/24 --label ballast={}", "x".repeat(20_000))).fails();
    assert!(error.contains("cannot save the state") && error.contains("No space left"), "{error}");
    let names = |lab: &Lab| {
        let mut names: Vec<_> = lab.api("/v1/networks").as_array().expect("networks").iter().map(|network| network["name"].as_str().expect("a name").to_owned()).collect();
        names.retain(|name| name != "bridge");
        names.sort();
        names
    };
    made.sort();
    assert_eq!(names(&live.lab), made, "what was refused is not there");
    live.lab.weft("exec a ping -c 2 -i 0.1 -W 2 172.17.0.3").ok();
    live.lab.kill_daemon();
    live.lab.start_daemon();
    assert_eq!(names(&live.lab), made, "nothing was lost, and nothing that was refused came back");
    live.lab.weft("exec a ping -c 2 -i 0.1 -W 2 172.17.0.3").ok();
    assert!(Command::new("mount").args(["-o", "remount,size=8m"]).arg(&disk.0).status().expect("mount").success());
    assert_eq!(live.ask(&net(refused)), Some(Ok(())), "there is room again");
    live.lab.weft("rm -f a b").ok();
    live.lab.stop_daemon();
}

fn refused_and_kept() {
    let mut lab = Lab::start();
    lab.weft("network create net --subnet 10.9.0.0/24").ok();
    lab.stop_daemon();
    let path = lab.state_dir().join("state.json");
    let good = std::fs::read_to_string(&path).expect("state");
    for (other, word) in [(good.replacen("\"version\":2", "\"version\":3", 1), "version 3"), (String::new(), "damaged")] {
        std::fs::write(&path, &other).expect("write");
        let error = lab.weft("daemon").fails();
        assert!(error.contains(word) && error.contains("move"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).expect("state"), other, "never overwritten");
    }
    std::fs::write(&path, good).expect("write");
    lab.start_daemon();
    lab.weft("network inspect net").ok();
}
