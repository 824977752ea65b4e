//! Namespaces made by a test, with real tools run inside.

use std::process::{Child, Command, Stdio};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::run::{Ran, eventually, run, words};

/// A named namespace (`ip netns` convention), removed when dropped.
#[derive(Debug)]
pub struct Ns {
    /// Its name, unique on this machine.
    pub name: String,
}

impl Ns {
    /// Makes a namespace with lo up.
    #[must_use]
    #[track_caller]
    pub fn new(name: &str) -> Self {
        run(Command::new("ip").args(["netns", "add", name])).ok();
        let this = Self { name: name.into() };
        this.ip("link set lo up").ok();
        this
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// A command that will run inside; only the network namespace differs.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg(program);
        command
    }

    /// Runs a command line (no quoting) inside.
    #[track_caller]
    pub fn run(&self, line: &str) -> Ran {
        let words = words(line);
        run(self.command(words[0]).args(&words[1..]))
    }

    /// Runs a shell script inside.
    #[track_caller]
    pub fn sh(&self, script: &str) -> Ran {
        run(self.command("sh").args(["-c", script]))
    }

    /// `ip ...` inside.
    #[track_caller]
    pub fn ip(&self, line: &str) -> Ran {
        self.run(&format!("ip {line}"))
    }

    /// Starts a long-lived command inside.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    #[track_caller]
    pub fn spawn(&self, line: &str) -> Background {
        let words = words(line);
        let child = self.command(words[0]).args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Background(child.unwrap_or_else(|error| panic!("cannot start `{line}`: {error}")))
    }

    /// Pings `to` three times; true when all were answered.
    #[must_use]
    pub fn pings(&self, to: &str) -> bool {
        self.run(&format!("ping -c 3 -i 0.1 -W 5 {to}")).stdout.contains(" 0% packet loss")
    }

    /// True when not a single answer comes.
    #[must_use]
    pub fn cannot_ping(&self, to: &str) -> bool {
        self.run(&format!("ping -c 2 -i 0.1 -W 1 {to}")).stdout.contains(" 100% packet loss")
    }

    /// Starts an iperf3 server and waits until it listens.
    #[must_use]
    #[track_caller]
    pub fn iperf_server(&self) -> Background {
        let server = self.spawn("iperf3 -s");
        eventually("iperf3 listens", || self.run("ss -ltn").stdout.contains(":5201"));
        server
    }

    /// One iperf3 run to `to`; the JSON report. A server that still winds up the run before (it
    /// says that it is busy) is asked again.
    ///
    /// # Panics
    /// When iperf3 prints no JSON.
    #[track_caller]
    pub fn iperf(&self, to: &str, options: &str) -> serde_json::Value {
        let mut report = serde_json::Value::Null;
        for _ in 0..5 {
            let ran = self.run(&format!("iperf3 -J -t 1 -c {to} {options}"));
            report = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("not JSON: {error}\n{ran:?}"));
            if report["error"].is_null() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(500));
        }
        report
    }
}

impl Drop for Ns {
    fn drop(&mut self) {
        drop(Command::new("ip").args(["netns", "del", &self.name]).stderr(Stdio::null()).status());
    }
}

/// Sends a signal to a process that may have ended.
pub fn signal(child: &Child, signal: Signal) {
    if let Ok(pid) = i32::try_from(child.id()) {
        kill(Pid::from_raw(pid), signal).ok();
    }
}

/// A process of the test's own, ended when dropped.
#[derive(Debug)]
pub struct Background(pub Child);

impl Background {
    /// Ends it as an init system would, and waits for that.
    pub fn end(mut self) {
        signal(&self.0, Signal::SIGTERM);
        drop(self.0.wait());
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
