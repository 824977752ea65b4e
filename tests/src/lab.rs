//! A daemon in an outer namespace that plays the host.

use std::{
    io::{Read, Write},
    os::unix::{fs::MetadataExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    ns::{Ns, signal},
    run::{Ran, eventually, run, words},
};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// One test's world. Everything in it goes away when it is dropped.
#[derive(Debug)]
pub struct Lab {
    /// The namespace that plays the host: the daemon and the command line run in it.
    pub host: Ns,
    prefix: String,
    directory: PathBuf,
    daemon: Option<Child>,
    daemon_options: String,
}

impl Lab {
    /// A host namespace with a running daemon.
    #[must_use]
    #[track_caller]
    pub fn start() -> Self {
        Self::with_options("")
    }

    /// The same, with further options for `weft daemon`.
    #[must_use]
    #[track_caller]
    pub fn with_options(options: &str) -> Self {
        let mut lab = Self::without_daemon();
        lab.daemon_options = options.into();
        lab.start_daemon();
        lab
    }

    /// A host namespace without a daemon.
    ///
    /// # Panics
    /// When the temporary directory cannot be made.
    #[must_use]
    #[track_caller]
    pub fn without_daemon() -> Self {
        let prefix = format!("w{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(format!("weft-e2e-{prefix}"));
        std::fs::create_dir_all(&directory).expect("temporary directory");
        Self { host: Ns::new(&format!("{prefix}h")), prefix, directory, daemon: None, daemon_options: String::new() }
    }

    /// State directory of the daemon.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// A directory for the test's own files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.directory
    }

    /// A further namespace.
    #[must_use]
    #[track_caller]
    pub fn ns(&self, name: &str) -> Ns {
        Ns::new(&format!("{}{name}", self.prefix))
    }

    /// Starts the daemon with these options, now and whenever it is started again.
    #[track_caller]
    pub fn start_daemon_with(&mut self, options: &str) {
        self.daemon_options = options.into();
        self.start_daemon();
    }

    /// Starts the daemon and waits until it answers.
    ///
    /// # Panics
    /// When it dies or never answers.
    #[track_caller]
    pub fn start_daemon(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.directory.join("daemon.log")).expect("log file");
        let mut command = self.weft_command();
        command.arg("daemon").args(words(&self.daemon_options)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.daemon = Some(command.spawn().expect("weft daemon starts"));
        let mut answers = || {
            if let Some(Some(status)) = self.daemon.as_mut().map(|child| child.try_wait().expect("wait")) {
                panic!("the daemon ended with {status}:\n{}", self.log());
            }
            run(self.weft_command().args(["network", "ls"])).code == Some(0)
        };
        eventually("the daemon answers", &mut answers);
    }

    /// A daemon that was started in another way is this lab's from now on.
    pub fn adopt(&mut self, daemon: Child) {
        self.daemon = Some(daemon);
    }

    /// The daemon's process id.
    ///
    /// # Panics
    /// When there is no daemon.
    #[must_use]
    pub fn daemon_pid(&self) -> u32 {
        self.daemon.as_ref().expect("a daemon").id()
    }

    /// What the daemon logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("daemon.log")).unwrap_or_default()
    }

    /// Ends the daemon as an operator would (SIGTERM) and asserts a clean exit.
    ///
    /// # Panics
    /// When it does not exit with 0.
    #[track_caller]
    pub fn stop_daemon(&mut self) {
        let mut child = self.daemon.take().expect("a daemon");
        signal(&child, Signal::SIGTERM);
        let status = child.wait().expect("wait");
        assert!(status.success(), "the daemon ended with {status}:\n{}", self.log());
    }

    /// kill -9.
    ///
    /// # Panics
    /// When there is no daemon.
    pub fn kill_daemon(&mut self) {
        let mut child = self.daemon.take().expect("a daemon");
        drop(child.kill());
        drop(child.wait());
    }

    /// A `weft` command in the host namespace, with the lab's state directory.
    #[must_use]
    pub fn weft_command(&self) -> Command {
        let mut command = self.host.command(&weft_binary().to_string_lossy());
        command.arg("--state-dir").arg(self.state_dir());
        command
    }

    /// Runs `weft LINE` (no quoting).
    #[track_caller]
    pub fn weft(&self, line: &str) -> Ran {
        run(self.weft_command().args(words(line)))
    }

    /// `GET path` of the daemon's API, as JSON.
    ///
    /// # Panics
    /// When the daemon does not answer with JSON.
    #[must_use]
    #[track_caller]
    pub fn api(&self, path: &str) -> serde_json::Value {
        self.request("GET", path, &serde_json::Value::Null).expect("an answer").1
    }

    /// A request to the daemon's API with a body, unless that is null: status and answer.
    ///
    /// # Errors
    /// When the daemon is not there, or dies before it has answered.
    pub fn request(&self, method: &str, path: &str, body: &serde_json::Value) -> std::io::Result<(u16, serde_json::Value)> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut socket = UnixStream::connect(self.state_dir().join("api.sock"))?;
        write!(socket, "{method} {path} HTTP/1.1\r\nHost: weft\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        let parsed = answer.split_once("\r\n\r\n").and_then(|(head, body)| Some((head.split(' ').nth(1)?.parse().ok()?, serde_json::from_str(body).ok()?)));
        parsed.ok_or_else(|| std::io::Error::other(format!("no whole answer: {answer}")))
    }

    /// Runs `weft ARGS`.
    #[track_caller]
    pub fn weft_args(&self, arguments: &[&str]) -> Ran {
        run(self.weft_command().args(arguments))
    }

    /// What must be the same on the host before and after: links, addresses, routes, nft rules, sysctls.
    #[must_use]
    pub fn footprint(&self) -> String {
        self.host
            .sh("ip -d link; ip addr; ip route show table all; ip -6 route show table all; nft list ruleset; \
                 sysctl -a 2>/dev/null | grep ^net | grep -v -e nf_conntrack_count -e random -e '\\.stat'")
            .stdout
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            // Sandboxes go first: a daemon that ends leaves running ones attached for its successor.
            drop(Command::new("sh").arg("-c").arg(format!(
                "for s in $(nsenter --net={host} {weft} --state-dir {dir} ps -aq 2>/dev/null); do nsenter --net={host} {weft} --state-dir {dir} rm -f $s; done",
                host = self.host.path(), weft = weft_binary().display(), dir = self.state_dir().display()
            )).stdout(Stdio::null()).stderr(Stdio::null()).status());
            signal(&child, Signal::SIGTERM);
            drop(child.wait());
        }
        if std::thread::panicking() {
            eprintln!("daemon log of {}:\n{}", self.prefix, self.log());
        }
        self.unpin();
        drop(std::fs::remove_dir_all(&self.directory));
    }
}

impl Lab {
    /// A daemon that was killed leaves its sandboxes, and their namespaces pinned, for its successor; here there is none.
    fn unpin(&self) {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for at in mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|at| Path::new(at).starts_with(&self.directory)) {
            for pid in inside(Path::new(at)) {
                kill(pid, Signal::SIGKILL).ok();
            }
            drop(Command::new("umount").arg("-l").arg(at).status());
        }
    }
}

/// Processes in the network namespace that is pinned there, unless it is our own.
fn inside(pin: &Path) -> Vec<Pid> {
    let inode = |path: &Path| std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let Some(namespace) = inode(pin).filter(|namespace| inode(Path::new("/proc/self/ns/net")) != Some(*namespace)) else { return Vec::new() };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    pids.filter(|pid| inode(Path::new(&format!("/proc/{pid}/ns/net"))) == Some(namespace)).map(Pid::from_raw).collect()
}

/// The binary under test: `$WEFT_BIN`, or the release build beside this test's own.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn weft_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("WEFT_BIN") {
        return path.into();
    }
    let exe = std::env::current_exe().expect("own path");
    let target = exe.ancestors().nth(3).expect("target directory");
    let binary = target.join("release/weft");
    assert!(binary.exists(), "{} is missing: run `cargo build --release` or set WEFT_BIN", binary.display());
    binary
}

/// A copy of it that everybody may run, for users who cannot enter the build tree. It is another process that copies:
/// one that this forks meanwhile for another test would hold the copy open for writing (ETXTBSY).
///
/// # Panics
/// When it cannot be copied.
pub fn install_weft(to: &Path) {
    run(Command::new("install").args(["-m", "755"]).arg(weft_binary()).arg(to)).ok();
}
