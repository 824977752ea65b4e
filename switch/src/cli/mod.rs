//! The command line: one noun per file, one answer per command.

mod args;
pub(crate) mod daemon;
mod ip;
mod netns;
mod network;
mod port;
mod sandbox;
mod table;
mod watch;

use std::{io::Write, path::PathBuf, process::ExitCode};

use clap::{CommandFactory, Parser};
use weft_control::{Code, ControlError};

use self::args::{Arguments, Noun};
use crate::{client::Client, dirs::Dirs};

/// Where to find the daemon and its files.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) client: Client,
    pub(crate) dirs: Dirs,
}

/// How a command ends: an exit code, or a failure to print.
type End = Result<u8, ControlError>;

pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let dirs = Dirs::new(arguments.state_dir.as_deref());
    let socket = match arguments.host.as_deref() {
        Some(host) => match host.strip_prefix("unix://") {
            Some(path) => PathBuf::from(path),
            None => return fail(&ControlError::new(Code::Invalid, host, format!("{host}: want unix:///path/to/api.sock")), 2),
        },
        None => dirs.socket(),
    };
    let place = Place { client: Client::new(socket), dirs };
    let failure_code = if matches!(arguments.noun, Noun::Run(_)) { 125 } else { 1 };
    match run(arguments.noun, &place) {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(&error, failure_code),
    }
}

fn run(noun: Noun, place: &Place) -> End {
    match noun {
        Noun::Daemon(arguments) => daemon::run(&arguments, place),
        Noun::Up(arguments) => crate::up::run(&arguments.file, arguments.check),
        Noun::Network { action } => network::run(action, place),
        Noun::Run(arguments) => sandbox::run(arguments, place),
        Noun::Exec(arguments) => sandbox::exec(&arguments, place),
        Noun::Ps(arguments) => sandbox::ps(&arguments, place),
        Noun::Inspect { names, json: _ } => sandbox::inspect(&names, place),
        Noun::Rm { names, force } => sandbox::rm(&names, force, place),
        Noun::Logs { name } => sandbox::logs(&name, place),
        Noun::Attach(arguments) => port::attach(*arguments, place),
        Noun::Detach(arguments) => port::detach(&arguments, place),
        Noun::Port { action } => port::run(action, place),
        Noun::Link { action } => port::link(action, place),
        Noun::Netns { action } => netns::run(action, place),
        Noun::Fdb { action } => port::fdb(action, place),
        Noun::Bridge { action } | Noun::Brctl { action } => port::bridge(action, place),
        Noun::Stats { words, json } => port::stats(words.iter().map(String::as_str).find(|&word| word != "show"), json, place),
        Noun::Events { json } => watch::events(json, place),
        Noun::Capture(arguments) => watch::capture(&arguments, place),
        Noun::Ip(arguments) => ip::run(&arguments, place),
        Noun::Doctor { json } => Ok(u8::from(!crate::doctor::run(&place.client, json))),
        Noun::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "weft", &mut std::io::stdout());
            Ok(0)
        }
    }
}

fn fail(error: &ControlError, code: u8) -> ExitCode {
    eprintln!("weft: {}", clean(&error.to_string()));
    ExitCode::from(code)
}

/// Prints a line; a reader that went away is no error.
pub(crate) fn print(line: &str) {
    drop(writeln!(std::io::stdout().lock(), "{}", clean(line)));
}

/// Takes control characters out of text that may hold names from others.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// Prints a value as JSON.
pub(crate) fn print_json(value: &serde_json::Value) {
    print(&serde_json::to_string_pretty(value).unwrap_or_default());
}

pub(crate) fn unavailable(error: impl std::fmt::Display) -> ControlError {
    ControlError::new(Code::Unavailable, "", error.to_string())
}

pub(crate) fn invalid(subject: &str, message: impl Into<String>) -> ControlError {
    ControlError::new(Code::Invalid, subject, message)
}
