//! The thin helper: namespaces by hand, one step at a time.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use netns_setup::{NamespaceDir, Netns, Result, detect, process};

/// Make and use network namespaces (the `ip netns` convention).
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Make a named namespace with lo up
    Add { name: String },
    /// Take a name away
    Del { name: String },
    /// List names
    List,
    /// Names of the namespace that a process is in
    Identify { pid: i32 },
    /// Processes in a namespace
    Pids { namespace: String },
    /// Run a command inside: NAME, /path or PID
    Exec {
        namespace: String,
        #[arg(trailing_var_arg = true, required = true)]
        command: Vec<String>,
    },
    /// What this machine allows
    Doctor,
}

fn main() -> ExitCode {
    match run(Arguments::parse().action) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("netns-setup: {error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "a command's output")]
fn run(action: Action) -> Result<()> {
    let names = NamespaceDir::default();
    match action {
        Action::Add { name } => names.add(&name).map(drop)?,
        Action::Del { name } => names.delete(&name)?,
        Action::List => names.list()?.iter().for_each(|name| println!("{name}")),
        Action::Identify { pid } => names.identify(pid)?.iter().for_each(|name| println!("{name}")),
        Action::Pids { namespace } => open(&names, &namespace)?.pids().iter().for_each(|pid| println!("{pid}")),
        Action::Exec { namespace, command } => {
            let etc = (!namespace.contains('/')).then(|| process::etc_of(&namespace));
            let spec = process::CommandSpec { command, etc, ..process::CommandSpec::default() };
            process::exec(&open(&names, &namespace)?, None, &spec)?;
        }
        Action::Doctor => {
            for finding in detect::detect() {
                println!("{} {}: {}", if finding.ok { "ok  " } else { "MISS" }, finding.name, finding.detail);
            }
        }
    }
    Ok(())
}

fn open(names: &NamespaceDir, namespace: &str) -> Result<Netns> {
    if namespace.contains('/') {
        return Netns::open_path(namespace);
    }
    match namespace.parse() {
        Ok(pid) if names.open(namespace).is_err() => Netns::open_pid(pid),
        _ => names.open(namespace),
    }
}
