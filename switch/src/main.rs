//! The one binary: `weft daemon`, `weft up`, and the command line that talks to them.

mod cli;
mod client;
mod control;
mod dataloop;
mod dirs;
mod doctor;
mod io;
mod output_log;
mod sys;
mod tunnel;
mod up;
mod uplink;

fn main() -> std::process::ExitCode {
    cli::main()
}
