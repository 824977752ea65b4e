//! The daemon goes and comes back; running sandboxes do not notice. SPEC rows: N4.

use libtest_mimic::Trial;
use weft_tests::{
    lab::Lab,
    run::eventually,
    runner::{Need, test},
};

const NEEDS: &[Need] = &[Need::Root, Need::Tun, Need::Tool("ping")];

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("restart::n4_networks_and_sandboxes_come_back", NEEDS, || comes_back(false)),
        test("restart::n4_also_after_kill_9", NEEDS, || comes_back(true)),
        test("restart::what_ended_meanwhile_is_cleared_away", NEEDS, cleared_away),
        test("restart::kill_9_at_random_loses_nothing", NEEDS, kill_at_random),
        test("restart::a_namespace_that_vanishes", NEEDS, vanishing_namespace),
    ]
}

fn comes_back(killed: bool) {
    for kind in ["tap", "veth"] {
        let mut lab = Lab::start();
        lab.weft("network create net --subnet 10.9.0.0/24 --label a=b").ok();
        lab.weft(&format!("run -d --name a --net net:ip=10.9.0.11,kind={kind} -- sleep 1000")).ok();
        lab.weft(&format!("run -d --name b --net net:ip=10.9.0.12,kind={kind} -- sleep 1000")).ok();
        let foreign = lab.ns("f");
        lab.weft(&format!("attach net {} --ifname eth0 --kind {kind} --ip 10.9.0.13", foreign.path())).ok();
        lab.weft("exec a ping -c 1 -W 2 10.9.0.12").ok();
        let view = |lab: &Lab| (lab.weft("network inspect net").ok(), lab.weft("inspect a b").ok(), lab.weft("exec a ip -o addr").ok(), lab.weft("exec a ip route").ok());
        let before = view(&lab);
        if killed { lab.kill_daemon() } else { lab.stop_daemon() }
        assert!(foreign.ip("addr show eth0").ok().contains("10.9.0.13"), "eth0 never vanishes");
        lab.start_daemon();
        let after = view(&lab);
        assert_eq!(before.0, after.0);
        assert_eq!(before.1, after.1);
        assert_eq!(strip_carrier(&before.2), strip_carrier(&after.2));
        assert_eq!(before.3, after.3, "routes");
        lab.weft("exec a ping -c 3 -i 0.1 -W 2 10.9.0.12").ok();
        assert!(foreign.pings("10.9.0.11"), "{kind}");
    }
}

/// `ip -o addr` without lifetimes and link-local addresses, which come and go with carrier.
fn strip_carrier(text: &str) -> Vec<String> {
    text.lines().filter(|line| !line.contains("fe80")).map(|line| line.split_whitespace().take(4).collect::<Vec<_>>().join(" ")).collect()
}

fn cleared_away() {
    let mut lab = Lab::start();
    lab.weft("network create net --subnet 10.9.0.0/24").ok();
    lab.weft("run -d --name a --net net -- sleep 1000").ok();
    let pid = lab.weft("inspect a").json()[0]["pid"].as_i64().expect("pid");
    lab.kill_daemon();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(pid).expect("pid")), nix::sys::signal::Signal::SIGKILL).ok();
    eventually("it is gone", || !std::path::Path::new(&format!("/proc/{pid}/exe")).exists() || zombie(pid));
    lab.start_daemon();
    assert!(lab.weft("ps -aq").ok().is_empty());
    let pins = std::fs::read_dir(lab.state_dir().join("netns")).expect("pins").count();
    assert_eq!(pins, 0, "no namespace is left pinned");
    assert!(!lab.state_dir().join("switch.netns").exists());
}

fn zombie(pid: i64) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

/// Killed at moments of its own choosing while networks are made: what was acknowledged is there.
fn kill_at_random() {
    let mut lab = Lab::start();
    let mut acknowledged = Vec::new();
    for round in 0..12 {
        let pid = lab.daemon_pid();
        let killer = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(5 + round * 7));
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(pid).expect("pid")), nix::sys::signal::Signal::SIGKILL).ok();
        });
        for count in 0..200 {
            let name = format!("n{round}x{count}");
            if lab.weft(&format!("network create {name} --subnet 10.{}.{}.0/24", round + 20, count)).code != Some(0) {
                break;
            }
            acknowledged.push(name);
        }
        killer.join().expect("killer");
        lab.kill_daemon();
        lab.start_daemon();
        let listed = lab.weft("network ls").ok();
        for name in &acknowledged {
            assert!(listed.split_whitespace().any(|word| word == name), "{name} was acknowledged and is lost");
        }
    }
}

fn vanishing_namespace() {
    for restarted in [false, true] {
        let mut lab = Lab::start();
        lab.weft("network create net --subnet 10.9.0.0/24").ok();
        let gone = lab.ns("gone");
        lab.weft(&format!("attach net {} --ifname eth0", gone.path())).ok();
        if restarted {
            lab.kill_daemon();
            lab.start_daemon();
        }
        assert_eq!(lab.weft("port ls --json").json().as_array().map(Vec::len), Some(1));
        drop(gone);
        eventually("the port is gone", || lab.weft("port ls --json").json().as_array().is_some_and(Vec::is_empty));
        assert!(lab.weft("ps -aq").ok().is_empty());
    }
}
