//! The command line: one noun per file, one answer per command.

mod args;
mod cluster;
mod config;
pub(crate) mod daemon;
mod dhcp;
mod edit;
mod ip;
mod manual;
mod nat;
mod netns;
pub(crate) mod network;
mod port;
mod run;
mod sandbox;
mod spec;
pub(crate) mod table;
mod vxlan;
mod watch;

use std::{
    ffi::OsString,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::OnceLock,
};

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

impl Place {
    /// By the address of a daemon and `--state-dir`; the defaults of this user otherwise.
    fn new(host: Option<&str>, state_dir: Option<&Path>) -> Result<Self, ControlError> {
        let mut dirs = Dirs::new(state_dir);
        if let Some(host) = host {
            dirs.set_socket(socket_of(host)?);
        }
        Ok(Self { client: Client::new(dirs.socket()), dirs })
    }
}

/// unix:///path, or a plain absolute path.
fn socket_of(host: &str) -> Result<PathBuf, ControlError> {
    let path = host.strip_prefix("unix://").unwrap_or(host);
    if path.starts_with('/') {
        return Ok(path.into());
    }
    Err(invalid(host, format!("{host}: not the address of a daemon")).hint("want unix:///path/to/api.sock"))
}

/// How a command ends: an exit code, or a failure to print.
pub(crate) type End = Result<u8, ControlError>;

/// A usage error, as clap's own.
const USAGE: u8 = 2;
/// `weft run`: we failed, not the command (as Docker has it).
const RUN_FAILED: u8 = 125;

pub(crate) fn main() -> ExitCode {
    let words = host_ports(std::env::args_os().collect());
    let arguments = match Arguments::try_parse_from(&words) {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error, &words),
    };
    let failure_code = match &arguments.noun {
        Noun::Run(_) => RUN_FAILED,
        Noun::Config { action: config::ConfigAction::Diff { .. } } => config::CANNOT_COMPARE,
        _ => 1,
    };
    // A daemon listens at many addresses, and looks at them itself.
    let own = arguments.host.last().cloned().filter(|_| !matches!(arguments.noun, Noun::Daemon(_)));
    let host = own.or_else(|| std::env::var("WEFT_HOST").ok().filter(|host| !host.is_empty()));
    let place = match Place::new(host.as_deref(), arguments.state_dir.as_deref()) {
        Ok(place) => place,
        Err(error) => return fail(&error, USAGE),
    };
    let end = run(arguments, &place);
    if let Err(error) = io::stdout().flush() {
        unprinted(&error);
    }
    match end.and_then(|code| UNPRINTED.get().map_or(Ok(code), |error| Err(unavailable(format!("cannot write to standard output: {error}"))))) {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(&error, failure_code),
    }
}

fn run(arguments: Arguments, place: &Place) -> End {
    match arguments.noun {
        Noun::Daemon(daemon) => daemon::run(&daemon, &arguments.host, place),
        Noun::Up(arguments) => match (arguments.file, arguments.clear) {
            (_, Some(directory)) => crate::up::clear(&directory),
            (file, None) => crate::up::run(&file.unwrap_or_default(), arguments.check, std::time::Duration::from_secs(arguments.timeout)),
        },
        Noun::Network { action } => network::run(action, place),
        Noun::Config { action } => config::run(&action, place),
        Noun::Node { action } => cluster::node(&action, place),
        Noun::Run(arguments) => run::run(&arguments, place),
        Noun::Exec(arguments) => sandbox::exec(&arguments, place),
        Noun::Ps(arguments) => sandbox::ps(&arguments, place),
        Noun::Inspect { names, json: _ } => sandbox::inspect(&names, place),
        Noun::Rm { names, force } => sandbox::rm(&names, force, place),
        Noun::Logs { name } => sandbox::logs(&name, place),
        Noun::Attach(arguments) => port::attach(&arguments, place),
        Noun::Detach(arguments) => port::detach(&arguments, place),
        Noun::Port { action } => port::run(action, place),
        Noun::Link { action } => port::link(&action, place),
        Noun::Publish { action } => nat::publish(action, place),
        Noun::Nat { action } => nat::nat(&action, place),
        Noun::Trace { port, packet, json } => nat::trace(&port, &packet, json, place),
        Noun::Vip { action } => nat::vip(&action, place),
        Noun::Dhcp { action } => dhcp::run(&action, place),
        Noun::Vxlan { action } => vxlan::run(action, place),
        Noun::Netns { action } => netns::run(action, place),
        Noun::Fdb { action } => port::fdb(&action, place),
        Noun::Bridge { action } | Noun::Brctl { action } => port::bridge(action, place),
        Noun::Stats { words, json } => port::stats(&words, json, place),
        Noun::Events { flows, json } => watch::events(flows, json, place),
        Noun::Capture(arguments) => watch::capture(&arguments, place),
        Noun::Ip(arguments) => ip::run(&arguments, place),
        Noun::Doctor { json } => Ok(u8::from(!crate::doctor::run(&place.client, json))),
        Noun::Completions { shell } => manual::completions(shell),
        Noun::Man { directory } => manual::pages(&directory),
    }
}

/// `attach NET --host` means a port on the host; everywhere else `--host` takes the daemon's address.
fn host_ports(words: Vec<OsString>) -> Vec<OsString> {
    let verb = |word: &OsString| word.to_str().is_some_and(|word| word.len() >= 3 && ["attach", "detach"].iter().any(|verb| verb.starts_with(word)));
    let Some(at) = words.iter().position(verb) else { return words };
    let is_address = |word: Option<&OsString>| word.is_some_and(|word| word.to_string_lossy().contains('/'));
    let mut renamed = words.clone();
    for index in at + 1..words.len() {
        if words[index] == "--host" && !is_address(words.get(index + 1)) {
            renamed[index] = "--host-port".into();
        }
    }
    renamed
}

/// Says what clap says, and which option was meant where a dash is missing.
fn usage(error: &clap::Error, words: &[OsString]) -> ExitCode {
    drop(error.print());
    if error.use_stderr()
        && let Some(meant) = words.iter().skip(1).find_map(|word| missing_dash(word.to_str()?))
    {
        eprintln!("  hint: did you mean `--{meant}`?");
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE))
}

/// `-net` for `--net`, when there is such an option.
fn missing_dash(word: &str) -> Option<&str> {
    let name = word.strip_prefix('-').filter(|rest| rest.len() > 1 && !rest.starts_with('-'))?;
    let name = name.split('=').next().unwrap_or(name);
    fn knows(command: &clap::Command, name: &str) -> bool {
        command.get_arguments().any(|argument| argument.get_long() == Some(name)) || command.get_subcommands().any(|inner| knows(inner, name))
    }
    knows(&Arguments::command(), name).then_some(name)
}

fn fail(error: &ControlError, code: u8) -> ExitCode {
    complain(error);
    ExitCode::from(code)
}

/// One failure on standard error.
fn complain(error: &ControlError) {
    eprintln!("weft: {}", clean(&error.to_string()));
}

/// Why something could not be printed; the command still does all of its work.
static UNPRINTED: OnceLock<String> = OnceLock::new();

/// Prints a line. A reader that went away is no error; a full disk is one, which the command ends with.
pub(crate) fn print(line: &str) {
    if let Err(error) = try_print(line) {
        unprinted(&error);
    }
}

/// Remembers that printing failed, for the end of the command.
fn unprinted(error: &io::Error) {
    if error.kind() != io::ErrorKind::BrokenPipe {
        UNPRINTED.set(error.to_string()).ok();
    }
}

/// The same, for commands that go on for ever: they end when nobody reads.
fn try_print(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", clean(line))?;
    out.flush()
}

/// Takes out of text that may hold names from others what would steer a terminal: control
/// characters, and those that change the direction of writing (Unicode's Bidi_Control).
pub(crate) fn clean(text: &str) -> String {
    let steers = |c: char| (c.is_control() && c != '\n' && c != '\t') || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if steers(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(host_ports(line.split(' ').map(OsString::from).collect()))
    }

    #[test]
    fn the_grammar_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn options_and_positionals_go_in_any_order() {
        for line in [
            "weft network create zookeeper_network --subnet=172.18.0.0/16",
            "weft network create --subnet 172.18.0.0/16 zookeeper_network -d bridge -o a=b --label k=v",
            "weft net create x --subnet 10.0.0.0/24 --gateway 10.0.0.1 --ip-range 10.0.0.0/25 --aux-address a=10.0.0.9 --mtu 1400 --l2 hub --ipv6 --internal",
            "weft net create x --subnet 10.0.0.0/24 --dhcp --dhcp-range 10.0.0.128/25 --ipv6 --ra",
            "weft netw l -q -f name=x",
            "weft network create -d overlay wide --vni 4096 --peer 192.0.2.2 --peer 192.0.2.3:4790 -o strict=false",
            "weft vxlan peer add wide 192.0.2.2 192.0.2.3",
            "weft vxlan fdb append 02:00:00:00:00:01 wide 192.0.2.2",
            "weft vxlan show wide --json",
            "weft vxlan rekey wide",
            "weft daemon --vxlan-port 8472",
            "weft run --rm --net lab -h web -e A=b -- ping -c 1 x",
            "weft run -it --net lab ping -c 1 x",
            "weft exec -it web sh -c ls",
            "weft attach lab --host --ip 10.0.0.2",
            "weft attach lab --dev eth1 --trunk 10,20,native=1",
            "weft attach lab web --host unix:///run/weft/api.sock",
            "weft -H unix:///x attach lab 42 --vlan 7 --no-guard --horizon 1",
            "weft detach lab --host",
            "weft link set web:eth0 isolated on",
            "weft fdb sh lab --json",
            "weft bridge fdb show br lab",
            "weft bridge fdb",
            "weft brctl show",
            "weft netns identify",
            "weft ip -j a show dev eth0 -n web",
            "weft ip r -n web -6",
            "weft capture lab -w - -c 3 --whole",
            "weft up f.toml --check --timeout 10",
            "weft daemon -H unix:///x -H tcp://0.0.0.0:2375 --tlsverify --tlscacert a --tlscert b --tlskey c",
            "weft network edit lab --subnet 10.0.0.0/16 --mtu 1400 --icc off --label a=b --label-rm c --storm off --dhcp on --dry-run",
            "weft config diff f.toml",
            "weft config apply f.toml --json",
            "weft daemon --io epoll --log debug --config f.toml -H unix:///x --state-dir d --rootless",
        ] {
            if let Err(error) = parsed(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn nonsense_is_a_usage_error() {
        for line in ["weft", "weft attach lab", "weft attach lab x --host", "weft network create", "weft run", "weft attach lab x --vlan 1 --trunk 2", "weft n ls", "weft up f --timeout 0"] {
            assert_eq!(parsed(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn a_missing_dash_is_recognised() {
        assert_eq!(missing_dash("-net"), Some("net"));
        assert_eq!(missing_dash("-subnet=10.0.0.0/8"), Some("subnet"));
        assert_eq!((missing_dash("-d"), missing_dash("--net"), missing_dash("-dx")), (None, None, None));
    }

    #[test]
    fn addresses_of_daemons() {
        assert_eq!(socket_of("unix:///a/b").unwrap(), PathBuf::from("/a/b"));
        assert_eq!(socket_of("/a/b").unwrap(), PathBuf::from("/a/b"));
        assert!(socket_of("tcp://1.2.3.4").is_err() && socket_of("unix://a").is_err());
    }

    #[test]
    fn names_cannot_steer_the_terminal() {
        assert_eq!(clean("a\u{1b}[31m\u{9b}\u{202e}b\tc\n"), "a\u{fffd}[31m\u{fffd}\u{fffd}b\tc\n");
    }
}
