//! The stock `docker` command against a lab's daemon.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    process::Command,
    time::Duration,
};

use serde_json::Value;
use weft_tests::{
    lab::Lab,
    run::{Ran, eventually, run, words},
    runner::Need,
};

/// What its tests need.
pub(crate) const NEEDS: &[Need] = &[Need::Root, Need::Tun, Need::Tool("docker"), Need::Tool("ping"), Need::Tool("curl"), Need::Tool("python3"), Need::Tool("script")];

/// A daemon, and the stock client that talks to it.
pub(crate) struct Docker(pub(crate) Lab);

impl Docker {
    pub(crate) fn start() -> Self {
        Self(Lab::start())
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.0.host.command("docker");
        command.env("DOCKER_HOST", format!("unix://{}", self.0.state_dir().join("api.sock").display())).env("DOCKER_CONFIG", self.0.dir()).args(arguments);
        command
    }

    /// `docker LINE` (no quoting).
    #[track_caller]
    pub(crate) fn run(&self, line: &str) -> Ran {
        self.args(&words(line))
    }

    #[track_caller]
    pub(crate) fn args(&self, arguments: &[&str]) -> Ran {
        run(&mut self.command(arguments))
    }

    #[track_caller]
    pub(crate) fn format(&self, name: &str, format: &str) -> String {
        self.args(&["inspect", "--format", format, name]).ok().trim().into()
    }

    /// `sh -c SCRIPT` with `docker` ready to use.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> Ran {
        let mut command = self.0.host.command("sh");
        command.env("DOCKER_HOST", format!("unix://{}", self.0.state_dir().join("api.sock").display())).env("DOCKER_CONFIG", self.0.dir()).args(["-c", script]);
        run(&mut command)
    }

    pub(crate) fn curl(&self, url: &str) -> String {
        self.0.host.run(&format!("curl -s -m 5 {url}")).stdout
    }

    /// A web server of the host's files, up and listening.
    #[track_caller]
    pub(crate) fn server(&self, name: &str, port: u16, words_before: &str) {
        self.run(&format!("run -d --name {name} {words_before} host python3 -m http.server {port}")).ok();
        eventually("the server listens", || self.run(&format!("exec {name} ss -ltn")).stdout.contains(&format!(":{port} ")));
    }

    pub(crate) fn socket(&self) -> UnixStream {
        let socket = UnixStream::connect(self.0.state_dir().join("api.sock")).expect("the daemon listens");
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        socket
    }

    /// One request; status and body.
    pub(crate) fn api(&self, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        let mut socket = self.socket();
        write!(socket, "{method} {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len()).expect("a request");
        // A server that refuses early may not read the rest.
        drop(socket.write_all(body));
        let mut answer = Vec::new();
        drop(socket.read_to_end(&mut answer));
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }
}
