//! Each refusal: a clear error, an exit code, nothing half-made.

use libtest_mimic::Trial;
use weft_tests::{
    lab::Lab,
    run::eventually,
    runner::{Need, test},
};

const NEEDS: &[Need] = &[Need::Root, Need::Tun];

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("bad_input::each_refusal_names_its_culprit", NEEDS, refusals),
        test("bad_input::wrong_file_names_line_and_key", NEEDS, wrong_file),
        test("bad_input::second_daemon_on_the_same_socket", NEEDS, second_daemon),
        test("bad_input::damaged_state_is_refused_and_kept", NEEDS, damaged_state),
        test("bad_input::api_bodies", NEEDS, api_bodies),
        test("bad_input::a_command_that_does_not_start", NEEDS, no_command),
        test("bad_input::output_that_cannot_be_written_is_an_error", NEEDS, full_disk),
    ]
}

/// A full disk is told, by message and exit code; a reader that has enough is not.
fn full_disk() {
    let lab = Lab::start();
    lab.weft("network create net --subnet 10.9.0.0/29").ok();
    for line in ["network ls", "network inspect net", "nat show", "port ls", "capture all", "events"] {
        let mut command = lab.weft_command();
        command.args(line.split(' ')).stdout(std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full")).stderr(std::process::Stdio::piped());
        let running = command.spawn().expect("weft");
        if matches!(line, "capture all" | "events") {
            // They have something to say when something happens.
            let mut running = running;
            eventually("it ends", || {
                lab.weft("run --rm --net net -- ping -c 1 -W 1 10.9.0.1");
                running.try_wait().expect("wait").is_some()
            });
            let output = running.wait_with_output().expect("wait");
            assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("No space left"), "{line}: {output:?}");
            continue;
        }
        let output = running.wait_with_output().expect("wait");
        assert!(output.status.code() == Some(1) && String::from_utf8_lossy(&output.stderr).contains("No space left"), "{line}: {output:?}");
    }
    let mut reader_gone = lab.weft_command().args(["network", "inspect", "net"]).stdout(std::process::Stdio::piped()).spawn().expect("weft");
    drop(reader_gone.stdout.take());
    assert!(reader_gone.wait().expect("wait").success(), "a reader that went away is no error");
}

/// As a shell and Docker have it: 127 not there, 126 not to be run, 125 ours; the same with -d, and told there.
fn no_command() {
    let lab = Lab::start();
    lab.weft("network create net --subnet 10.9.0.0/29").ok();
    let plain = lab.dir().join("plain");
    std::fs::write(&plain, "no program").expect("a file");
    let plain = plain.to_string_lossy().into_owned();
    for (options, command, code, part) in [
        ("--net net", "no-such-command", 127, "no-such-command: No such file or directory"),
        ("--net net", plain.as_str(), 126, "Permission denied"),
        ("--net nope", "true", 125, "no such network: nope"),
    ] {
        for detached in ["", "-d "] {
            let ran = lab.weft(&format!("run {detached}--name x {options} -- {command}"));
            assert!(ran.code == Some(code) && ran.stderr.contains(part) && ran.stdout.is_empty(), "{detached}{command}: {ran:?}");
            assert_eq!(lab.weft("ps -aq").ok(), "", "nothing is left of {command}");
        }
    }
    let said = lab.weft("logs x").fails();
    assert!(said.contains("no such sandbox") && said.contains("run it without -d"), "{said}");
}

fn refusals() {
    let lab = Lab::start();
    let one = lab.ns("one");
    lab.weft("network create net --subnet 10.9.0.0/29").ok();
    lab.weft(&format!("attach net {} --ifname eth0 --ip 10.9.0.2", one.path())).ok();
    let two = lab.ns("two");
    let (one, two) = (one.path(), two.path());
    let before = (lab.weft("network ls").ok(), lab.weft("port ls --json").json()[0]["name"].clone(), lab.host.ip("link").ok());
    for (line, parts) in [
        (format!("attach nope {two}"), vec!["nope", "network ls"]),
        ("network create net".into(), vec!["net", "already exists"]),
        ("network create x --subnet 10.300.0.0/24".into(), vec!["10.300.0.0/24"]),
        ("network create x --subnet 10.9.0.0/24".into(), vec!["10.9.0.0/24", "net"]),
        ("network create x --subnet 10.8.0.0/24 --gateway 10.7.0.1".into(), vec!["10.7.0.1", "10.8.0.0/24"]),
        ("network create x --subnet 10.8.0.0/24 --ip-range 10.7.0.0/25".into(), vec!["10.7.0.0/25"]),
        ("network create x -d foo".into(), vec!["foo", "not found"]),
        ("network create x --mtu 20".into(), vec!["20"]),
        ("network create x --aux-address my=10.7.0.1".into(), vec!["my"]),
        (format!("attach net {two} --ip 10.9.0.2"), vec!["10.9.0.2", "in use"]),
        (format!("attach net {two} --ip 10.9.9.2"), vec!["10.9.9.2"]),
        (format!("attach net {two} --mac 01:00:5e:00:00:01"), vec!["multicast"]),
        (format!("attach net {two} --mac 02:00"), vec!["02:00"]),
        (format!("attach net {two} --ifname abcdefghijklmnop"), vec!["abcdefghijklmnop", "15"]),
        (format!("attach net {two} --vlan 4095"), vec!["4095"]),
        (format!("attach net {one} --ifname eth0"), vec!["already"]),
        ("attach net /run/netns/gone-away".into(), vec!["/run/netns/gone-away"]),
        ("attach net 999999999".into(), vec!["999999999"]),
        ("attach net --dev gone0".into(), vec!["gone0"]),
        ("detach net:gone".into(), vec!["net:gone"]),
        ("network rm net".into(), vec!["active endpoints"]),
        ("network rm gone".into(), vec!["gone"]),
        ("port move gone:eth0 1".into(), vec!["gone:eth0"]),
        ("link set gone:eth0 up".into(), vec!["gone:eth0"]),
        ("fdb add 01:00:5e:00:00:01 net x".into(), vec!["multicast"]),
        ("fdb show gone".into(), vec!["gone"]),
        ("capture gone".into(), vec!["gone"]),
        ("run --net net:ip=x -- true".into(), vec!["\"x\""]),
    ] {
        let error = lab.weft(&line).fails();
        for part in parts {
            assert!(error.contains(part), "`weft {line}` should mention {part:?}:\n{error}");
        }
    }
    let after = (lab.weft("network ls").ok(), lab.weft("port ls --json").json()[0]["name"].clone(), lab.host.ip("link").ok());
    assert_eq!(before, after, "nothing half-made");
    // The pool: five addresses less the gateway and the one in use.
    for count in 0..4 {
        lab.weft(&format!("run -d --name s{count} --net net -- sleep 100")).ok();
    }
    assert!(lab.weft("run -d --name full --net net -- sleep 100").fails().contains("no free address"));
    assert!(!lab.weft("ps -a").ok().contains("full"));
}

fn wrong_file() {
    let lab = Lab::without_daemon();
    let file = lab.dir().join("bad.toml");
    std::fs::write(&file, "[[network]]\nname = \"lab\"\nsubmet = \"10.0.0.0/24\"\n").expect("write");
    let error = lab.weft(&format!("up {}", file.display())).fails();
    assert!(error.contains("line 3") && error.contains("submet") && error.contains("bad.toml"), "{error}");
    let compose = lab.dir().join("compose.yml");
    std::fs::write(&compose, "services:\n  web:\n    image: host\n").expect("write");
    for verb in ["diff", "apply"] {
        let said = lab.weft(&format!("config {verb} {}", compose.display())).fails();
        assert!(said.contains("is a compose file") && said.contains("`weft up ") && said.contains("docker compose -f"), "{said}");
    }
    assert!(lab.weft("up /no/such/file").fails().contains("/no/such/file"));
}

fn second_daemon() {
    let lab = Lab::start();
    let error = lab.weft("daemon").fails();
    assert!(error.contains("already running"), "{error}");
    lab.weft("network ls").ok();
}

fn damaged_state() {
    let mut lab = Lab::start();
    lab.weft("network create net --subnet 10.9.0.0/24").ok();
    lab.stop_daemon();
    let path = lab.state_dir().join("state.json");
    let good = std::fs::read_to_string(&path).expect("state");
    let damaged = good.replace("10.9.0.0/24", "10.8.0.0/24");
    std::fs::write(&path, &damaged).expect("write");
    let error = lab.weft("daemon").fails();
    assert!(error.contains("damaged") && error.contains("state.json"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).expect("state"), damaged, "never overwritten");
    std::fs::write(&path, good).expect("write");
    lab.start_daemon();
    assert!(lab.weft("network ls").ok().contains("net"));
}

fn api_bodies() {
    let lab = Lab::start();
    let socket = lab.state_dir().join("api.sock");
    let mode = std::fs::metadata(&socket).map(|meta| std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o777);
    assert_eq!(mode.expect("socket"), 0o600);
    for (body, part) in [("{", "EOF"), ("[]", "invalid"), (r#"{"name":"x","bogus":1}"#, "bogus"), (r#"{"name":"x","mtu":-1}"#, "mtu"), (r#"{"name":"a\u0000b"}"#, "name")] {
        let answer = lab.host.command("curl").args(["-s", "--unix-socket"]).arg(&socket).args(["-H", "content-type: application/json", "-d", body, "http://weft/v1/networks"]).output();
        let text = String::from_utf8_lossy(&answer.expect("curl").stdout).into_owned();
        assert!(text.contains("\"code\"") && text.contains(part), "{body} -> {text}");
    }
    lab.weft("network ls").ok();
}
