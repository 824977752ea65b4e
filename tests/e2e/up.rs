//! The main job: `weft up FILE`.

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use weft_tests::{
    lab::Lab,
    ns::signal,
    run::eventually,
    runner::{Need, test},
};

const NEEDS: &[Need] = &[Need::Root, Need::Tun, Need::Tool("ping")];

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("up::quickstart_checks_itself", NEEDS, quickstart),
        test("up::check_names_what_failed", NEEDS, names_failures),
        test("up::ctrl_c_removes_everything", NEEDS, ctrl_c),
        test("up::what_a_killed_one_left_is_removed_by_the_next", NEEDS, killed),
        test("up::the_banner_says_what_each_network_is", &[Need::Root, Need::Tun], banner),
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

/// `weft up` with a file, and its directory; for temporary files it has one of its own.
fn start(lab: &Lab, temporary: &std::path::Path, file: &str) -> (std::process::Child, std::path::PathBuf) {
    let child = lab.weft_command().args(["up", file]).env("TMPDIR", temporary).stdout(std::process::Stdio::null()).spawn().expect("up");
    let directory = temporary.join(format!("weft-up-{}", child.id()));
    eventually("it is up", || lab.weft(&format!("-H unix://{}/api.sock ps -q", directory.display())).stdout.lines().count() == 2);
    (child, directory)
}

/// Processes, namespaces and files of the dead; not those of one that runs, nor what is not known to be one's.
fn killed() {
    let lab = Lab::without_daemon();
    let temporary = lab.dir().join("tmp");
    let unknown = temporary.join("weft-up-1");
    std::fs::create_dir_all(&unknown).expect("a directory");
    let other = lab.dir().join("other.toml");
    std::fs::write(&other, "[[network]]\nname = \"lab\"\n[[sandbox]]\nname = \"a\"\nendpoint = [{ network = \"lab\" }]\ncommand = [\"sleep\", \"4242\"]\n[[sandbox]]\nname = \"b\"\nendpoint = [{ network = \"lab\" }]\ncommand = [\"sleep\", \"4242\"]\n").expect("a file");
    let sleepers = || lab.host.sh("for pid in $(pgrep -x sleep); do tr '\\0' ' ' < /proc/$pid/cmdline; echo; done").stdout.matches("sleep 4242").count();
    let before = sleepers();
    let (mut dead, left) = start(&lab, &temporary, &other.to_string_lossy());
    dead.kill().expect("kill");
    dead.wait().expect("wait");
    assert!(left.exists() && sleepers() == before + 2, "it could clear nothing");
    let (mut alive, own) = start(&lab, &temporary, &example());
    assert!(!left.exists() && sleepers() == before, "the next one did");
    // Nothing of one that runs.
    let checked = weft_tests::run::run(lab.weft_command().args(["up", &other.to_string_lossy(), "--check"]).env("TMPDIR", &temporary));
    checked.ok();
    lab.weft(&format!("-H unix://{}/api.sock exec alice ping -c 1 -W 2 10.9.0.3", own.display())).ok();
    signal(&alive, Signal::SIGINT);
    assert!(alive.wait().expect("wait").success());
    let files: Vec<_> = std::fs::read_dir(&temporary).expect("files").flatten().map(|entry| entry.path()).collect();
    assert_eq!(files, [unknown], "what nobody locked is left alone");
}

fn banner() {
    let lab = Lab::without_daemon();
    lab.host.sh("ip link add eth1 type veth peer name peer1 && ip link set peer1 up && ip link set eth1 up").ok();
    let file = lab.dir().join("kinds.toml");
    std::fs::write(&file, "[[network]]\nname = \"Usual\"\nsubnet = \"10.9.0.0/24\"\n[[network]]\nname = \"hub\"\nsubnet = \"10.10.0.0/24\"\nl2 = \"hub\"\n[[network]]\nname = \"mac\"\ndriver = \"macvlan\"\nparent = \"eth1\"\nsubnet = \"10.11.0.0/24\"\n[[network]]\nname = \"wide\"\ndriver = \"overlay\"\nsubnet = \"10.12.0.0/24\"\npeers = [\"192.0.2.2\"]\n").expect("a file");
    let said = lab.weft(&format!("up {} --check", file.display())).ok();
    for line in ["network Usual 10.9.0.0/24 (bridge, mtu 1500)", "network hub 10.10.0.0/24 (hub, mtu 1500)", "network mac 10.11.0.0/24 (macvlan on eth1, mtu 1500)", "network wide 10.12.0.0/24 (overlay, mtu "] {
        assert!(said.contains(line), "{line}: {said}");
    }
}

fn ctrl_c() {
    let lab = Lab::without_daemon();
    let mut child = lab.weft_command().args(["up", &example()]).stdout(std::process::Stdio::null()).spawn().expect("up");
    // The command runs under nsenter, which becomes it: the pid is the switch's.
    let directory = std::env::temp_dir().join(format!("weft-up-{}", child.id()));
    eventually("it is up", || lab.weft(&format!("-H unix://{}/api.sock ps -q", directory.display())).stdout.lines().count() == 2);
    signal(&child, Signal::SIGINT);
    assert!(child.wait().expect("wait").success());
    assert!(!directory.exists(), "its files are gone");
}
