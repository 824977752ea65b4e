//! `weft run`: a command in a sandbox of its own.
//!
//! In the foreground the command is a child of this process, with its streams and its terminal;
//! the daemon is told its pid and takes the sandbox away when it ends.

use std::{
    fs::File,
    io,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus},
};

use netns_setup::process::{self, CommandSpec};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, getpgrp, tcgetpgrp},
};
use serde_json::json;
use tokio::signal::unix::{Signal as Arrivals, SignalKind, signal};
use weft_control::{Code, ControlError, NetnsTarget, api::SandboxCreate};

use super::{
    End, Place, args::RunArguments, complain, invalid,
    netns::{Target, find},
    print, print_json, spec, unavailable,
};
use crate::client::escape;

const CANNOT_EXECUTE: u8 = 126;
const NOT_FOUND: u8 = 127;

pub(super) fn run(arguments: &RunArguments, place: &Place) -> End {
    let request = request(arguments)?;
    if arguments.dry_run {
        print_json(&place.client.post("/v1/sandboxes?dry-run=true", &json!(request))?);
        return Ok(0);
    }
    if arguments.detach {
        return match place.client.post("/v1/sandboxes", &json!(request)) {
            Ok(sandbox) => {
                print(sandbox["id"].as_str().unwrap_or_default());
                Ok(0)
            }
            Err(error) => failed_as(error),
        };
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(unavailable)?;
    // Listened to from here on: a Ctrl-C before the command starts must not leave a sandbox.
    let mut signals = {
        let _inside = runtime.enter();
        Signals::new().map_err(unavailable)?
    };
    let sandbox = place.client.post("/v1/sandboxes", &json!(request))?;
    let id = sandbox["id"].as_str().unwrap_or_default().to_owned();
    let end = start(arguments, &request, &id, place).and_then(|started| match started {
        Started::Running(child) => runtime.block_on(signals.pass_on_until_end(child)).map(code).map_err(unavailable),
        Started::Failed(code) => Ok(code),
    });
    // The daemon removes it when it sees the process end; this is for the case that none started.
    drop(place.client.delete(&format!("/v1/sandboxes/{}?force=true", escape(&id)), None));
    end
}

fn request(arguments: &RunArguments) -> Result<SandboxCreate, ControlError> {
    let (netns, mut endpoints) = spec::networks(&arguments.networks)?;
    match endpoints.first_mut() {
        Some(first) => {
            first.ip = arguments.ip.or(first.ip);
            first.ip6 = arguments.ip6.or(first.ip6);
            first.mac = arguments.mac.clone().or(first.mac.take());
            first.aliases.extend(arguments.alias.iter().cloned());
            first.vips.extend(spec::services(arguments.vip, &arguments.alias)?);
        }
        None if arguments.ip.is_some() || arguments.ip6.is_some() || arguments.mac.is_some() || arguments.vip || !arguments.alias.is_empty() => {
            return Err(invalid("--net", "--ip, --ip6, --mac, --alias and --vip need a network: this sandbox joins none"));
        }
        None => {}
    }
    Ok(SandboxCreate {
        name: arguments.name.clone(),
        netns,
        endpoints,
        command: if arguments.detach { arguments.command.clone() } else { Vec::new() },
        env: spec::environment(&arguments.env, |key| std::env::var(key).ok())?,
        hostname: arguments.hostname.clone(),
        publish: published(arguments)?,
        auto_remove: true,
        dns: arguments.dns.clone(),
        dns_search: arguments.dns_search.clone(),
        dns_option: arguments.dns_option.clone(),
        add_host: arguments.add_host.clone(),
        link: arguments.link.clone(),
    })
}

/// What -p says, and -P of --expose.
fn published(arguments: &RunArguments) -> Result<Vec<String>, ControlError> {
    let mut publish = arguments.publish.clone();
    for port in &arguments.expose {
        // Alone it is a port of the sandbox: the host's is free to choose.
        if port.contains(':') {
            return Err(invalid(port, format!("--expose {port}: want PORT[-END][/tcp|udp]")).hint("-p gives it a port of the host"));
        }
        weft_control::publish::parse(port)?;
        publish.extend(arguments.publish_all.then(|| port.clone()));
    }
    if arguments.publish_all && arguments.expose.is_empty() {
        return Err(invalid("-P", "-P publishes what --expose names, and nothing is named").hint("add --expose PORT, or publish with -p"));
    }
    Ok(publish)
}

enum Started {
    Running(Child),
    /// With this exit code; it was said why.
    Failed(u8),
}

fn start(arguments: &RunArguments, request: &SandboxCreate, id: &str, place: &Place) -> Result<Started, ControlError> {
    let spawned = if request.netns == NetnsTarget::Host && request.hostname.is_none() {
        // The host's own namespace needs no entering, and no privilege.
        let (program, words) = arguments.command.split_first().ok_or_else(|| invalid("", "no command given"))?;
        Command::new(program).args(words).envs(&request.env).spawn().map_err(|cause| (format!("cannot start {program}: {cause}"), cause.kind()))
    } else {
        let Target { netns, host, etc, hostname, .. } = find(id, place)?;
        let command = CommandSpec {
            command: arguments.command.clone(),
            environment: request.env.clone().into_iter().collect(),
            hostname: hostname.or_else(|| arguments.hostname.clone()),
            etc,
            ..CommandSpec::default()
        };
        process::spawn_in(&netns, host, &command).map_err(|error| (error.to_string(), error.cause.kind()))
    };
    let child = match spawned {
        Ok(child) => child,
        Err((why, kind)) => return Ok(Started::Failed(cannot_start(&why, kind))),
    };
    // A command that has ended already has nothing to watch: its absence is no failure.
    if let Err(error) = place.client.post(&format!("/v1/sandboxes/{}/process", escape(id)), &json!({ "pid": child.id() })) {
        tracing::debug!(%error, "the process was not noted");
    }
    Ok(Started::Running(child))
}

/// Says why a command did not start; gives the exit code, as a shell has it.
pub(super) fn cannot_start(why: &str, kind: io::ErrorKind) -> u8 {
    complain(&unavailable(why));
    if kind == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_EXECUTE }
}

/// The same of what the daemon was to start.
fn failed_as(error: ControlError) -> End {
    let code = match error.code {
        Code::CommandNotFound => NOT_FOUND,
        Code::CannotExecute => CANNOT_EXECUTE,
        _ => return Err(error),
    };
    complain(&error);
    Ok(code)
}

/// As a shell says it: 128 and the signal's number for a command that was killed.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// What a foreground command is told of what this process is told.
struct Signals {
    child: Arrivals,
    interrupt: Arrivals,
    quit: Arrivals,
    terminate: Arrivals,
    hang_up: Arrivals,
    user1: Arrivals,
    user2: Arrivals,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            child: signal(SignalKind::child())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    async fn pass_on_until_end(&mut self, mut child: Child) -> io::Result<ExitStatus> {
        let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
        loop {
            // Not reaped until here, so the pid is still the child's when it is signalled below.
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            let (arrived, by_keyboard) = tokio::select! {
                _ = self.child.recv() => continue,
                _ = self.interrupt.recv() => (Signal::SIGINT, true),
                _ = self.quit.recv() => (Signal::SIGQUIT, true),
                _ = self.terminate.recv() => (Signal::SIGTERM, false),
                _ = self.hang_up.recv() => (Signal::SIGHUP, false),
                _ = self.user1.recv() => (Signal::SIGUSR1, false),
                _ = self.user2.recv() => (Signal::SIGUSR2, false),
            };
            // The terminal has already sent Ctrl-C to its whole foreground group: twice is once too many.
            if !(by_keyboard && in_foreground()) {
                kill(pid, arrived).ok();
            }
        }
    }
}

/// This process (and so its child) is what the terminal's keys speak to.
fn in_foreground() -> bool {
    File::open("/dev/tty").is_ok_and(|terminal| tcgetpgrp(&terminal).is_ok_and(|group| group == getpgrp()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_a_shells() {
        let status = |line: &str| Command::new("sh").args(["-c", line]).status().unwrap();
        assert_eq!((code(status("exit 7")), code(status("kill -9 $$"))), (7, 137));
    }
}
