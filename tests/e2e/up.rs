//! The main job: `weft up FILE`.

use libtest_mimic::Trial;
use weft_tests::{
    lab::Lab,
    run::eventually,
    runner::{Need, test},
};

const NEEDS: &[Need] = &[Need::Root, Need::Tun, Need::Tool("ping")];

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("up::quickstart_checks_itself", NEEDS, quickstart),
        test("up::check_names_what_failed", NEEDS, names_failures),
        test("up::ctrl_c_removes_everything", NEEDS, ctrl_c),
    ]
}

fn example() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/quickstart.toml").into()
}

fn quickstart() {
    let lab = Lab::without_daemon();
    // All the outside that is needed: an address of the host.
    lab.host.sh("ip link add lan0 type dummy 2>/dev/null || ip link add lan0 type veth peer name lan1; ip addr add 192.168.88.1/24 dev lan0; ip link set lan0 up").ok();
    drop(lab.footprint());
    let before = lab.footprint();
    let said = lab.weft(&format!("up {} --check", example())).ok();
    assert!(said.contains("alice") && said.contains("10.9.0.2") && said.contains("check passed"), "{said}");
    assert!(said.contains("1 published ports fetched") && said.contains("the outside reached"), "{said}");
    assert_eq!(before, lab.footprint());
}

fn names_failures() {
    let lab = Lab::without_daemon();
    let file = lab.dir().join("broken.toml");
    std::fs::write(&file, "[[network]]\nname = \"lab\"\nsubnet = \"10.9.0.0/24\"\n[[sandbox]]\nname = \"a\"\nendpoint = [{ network = \"lab\", isolated = true }]\ncommand = [\"sleep\", \"99\"]\n[[sandbox]]\nname = \"b\"\nendpoint = [{ network = \"lab\", isolated = true }]\ncommand = [\"sleep\", \"99\"]\n").expect("write");
    let error = lab.weft(&format!("up {} --check", file.display())).fails();
    assert!(error.contains("a does not reach b") && error.contains("b does not reach a"), "{error}");
}

fn ctrl_c() {
    let lab = Lab::without_daemon();
    let mut child = lab.weft_command().args(["up", &example()]).stdout(std::process::Stdio::null()).spawn().expect("up");
    // The command runs under nsenter, which becomes it: the pid is the switch's.
    let directory = std::env::temp_dir().join(format!("weft-up-{}", child.id()));
    eventually("it is up", || lab.weft(&format!("-H unix://{}/api.sock ps -q", directory.display())).stdout.lines().count() == 2);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("pid")), nix::sys::signal::Signal::SIGINT).ok();
    assert!(child.wait().expect("wait").success());
    assert!(!directory.exists(), "its files are gone");
}
