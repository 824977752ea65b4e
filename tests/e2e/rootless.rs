//! As an ordinary user, made up for the test: no root, no /dev/net/tun (mode 0600), and with one.

use std::{
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::{Command, Stdio},
};

use libtest_mimic::Trial;
use weft_tests::{
    lab::weft_binary,
    run::{Ran, eventually, run},
    runner::{Need, test},
};

const NEEDS: &[Need] = &[Need::Root, Need::Tun, Need::Tool("ping"), Need::Tool("unshare")];
const UID: u32 = 61_234;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("rootless::up_check_without_tun", NEEDS, || up_check(false)),
        test("rootless::up_check_with_tun_0666", NEEDS, || up_check(true)),
        test("rootless::daemon_run_exec_and_restart", NEEDS, daemon_restart),
    ]
}

struct User {
    home: std::path::PathBuf,
    tun: bool,
}

impl User {
    fn new(name: &str, tun: bool) -> Self {
        let home = std::env::temp_dir().join(format!("weft-user-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&home).expect("home");
        nix::unistd::chown(&home, Some(UID.into()), Some(UID.into())).expect("chown");
        // The build tree may be closed to others.
        std::fs::copy(weft_binary(), home.join("weft")).expect("copy");
        std::fs::set_permissions(home.join("weft"), std::fs::Permissions::from_mode(0o755)).expect("mode");
        std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/quickstart.toml"), home.join("quickstart.toml")).expect("copy");
        Self { home, tun }
    }

    /// `weft` as that user. With `tun`, /dev/net/tun is a 0666 node in a mount namespace of the command's own.
    fn weft(&self, arguments: &[&str]) -> Command {
        let mut command = if self.tun {
            let node = self.home.join("tun");
            let mut command = Command::new("unshare");
            command.args(["-m", "sh", "-c", "N=$0; U=$1; W=$2; shift 2; test -e $N || mknod $N c 10 200; chmod 0666 $N; mount --bind $N /dev/net/tun; exec setpriv --reuid $U --regid $U --clear-groups $W \"$@\""]);
            command.arg(node).arg(UID.to_string()).arg(self.home.join("weft"));
            command
        } else {
            let mut command = Command::new(self.home.join("weft"));
            command.uid(UID).gid(UID);
            command
        };
        command.args(arguments).env("HOME", &self.home).env("XDG_RUNTIME_DIR", self.home.join("run")).env("XDG_STATE_HOME", self.home.join("state")).env("TMPDIR", &self.home);
        command.current_dir(&self.home);
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        run(&mut self.weft(arguments))
    }
}

impl Drop for User {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.home));
    }
}

fn up_check(tun: bool) {
    let user = User::new(if tun { "tun" } else { "veth" }, tun);
    let said = user.run(&["up", "quickstart.toml", "--check"]).ok();
    assert!(said.contains("rootless") && said.contains("check passed"), "{said}");
    assert!(said.contains(if tun { "(tap)" } else { "(veth)" }), "{said}");
    let doctor = user.run(&["doctor", "--json"]).stdout;
    assert!(doctor.contains(if tun { "\"port_kind\":\"tap\"" } else { "\"port_kind\":\"veth\"" }), "{doctor}");
}

fn daemon_restart() {
    let user = User::new("daemon", false);
    let start = || {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(user.home.join("log")).expect("log");
        let child = user.weft(&["daemon"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("daemon");
        eventually("the daemon answers", || user.run(&["network", "ls"]).code == Some(0));
        child
    };
    let mut daemon = start();
    user.run(&["network", "create", "lab", "--subnet", "10.9.0.0/24"]).ok();
    user.run(&["run", "-d", "--name", "a", "--net", "lab:ip=10.9.0.11", "--", "sleep", "1000"]).ok();
    user.run(&["run", "-d", "--name", "b", "--net", "lab:ip=10.9.0.12", "--", "sleep", "1000"]).ok();
    user.run(&["exec", "a", "ping", "-c", "2", "-i", "0.2", "-W", "2", "10.9.0.12"]).ok();
    let foreground = user.run(&["run", "--net", "lab", "--", "ping", "-c", "1", "-W", "2", "10.9.0.11"]);
    assert!(foreground.stdout.contains(" 0% packet loss"), "{foreground:?}");
    daemon.kill().expect("kill");
    daemon.wait().expect("wait");
    let mut daemon = start();
    user.run(&["exec", "a", "ping", "-c", "2", "-i", "0.2", "-W", "2", "10.9.0.12"]).ok();
    user.run(&["rm", "-f", "a", "b"]).ok();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(daemon.id()).expect("pid")), nix::sys::signal::Signal::SIGTERM).ok();
    assert!(daemon.wait().expect("wait").success());
    assert!(!user.home.join("run/weft/keeper").exists(), "the keeper is dismissed");
}
