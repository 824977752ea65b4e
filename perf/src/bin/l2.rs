//! The L2 rows of the targets: weft beside the kernel bridge, OVS userspace and vde_switch, in one
//! run of interleaved rounds.
#![allow(clippy::print_stdout, reason = "results go to standard output")]

use std::process::Command;

use clap::{Parser, Subcommand};
use weft_perf::{
    busy,
    forward::{self, Way},
    generate,
    peer::{Kind, Peer},
    table::{Results, report},
    workload::{self, Figures},
};

#[derive(Parser)]
struct Arguments {
    /// Rounds; each peer does each workload once a round
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Peers: kbridge,weft-tap,weft-veth,ovs-tso,vde; when named, limits: probe-recvmmsg,probe-tpacket2,probe-tpacket3,probe-tap-busy
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// Workloads: tcp1,tcp4,udp,latency,rest,load4g,load,crr,idle
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<String>,
    /// The binary to measure
    #[arg(long, default_value = "target/release/weft")]
    weft: String,
    /// Further options for its daemon, e.g. "--io epoll"
    #[arg(long, default_value = "")]
    daemon_options: String,
    /// Append to perf/RESULTS.md
    #[arg(long)]
    record: bool,
    #[command(subcommand)]
    gen_: Option<Hidden>,
}

#[derive(Subcommand)]
enum Hidden {
    /// Traffic generators, used by the program itself
    #[command(hide = true)]
    Gen { words: Vec<String> },
}

fn main() -> Result<(), String> {
    let arguments = Arguments::parse();
    if let Some(Hidden::Gen { words }) = &arguments.gen_ {
        return generate_traffic(words).map_err(|error| error.to_string());
    }
    let wanted = |list: &[String], name: &str| list.is_empty() || list.iter().any(|word| word == name);
    let probes = Kind::PROBES.into_iter().filter(|kind| arguments.peers.iter().any(|name| name == kind.name()));
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| wanted(&arguments.peers, kind.name())).chain(probes).filter(|kind| installed(*kind)).collect();
    let weft = std::fs::canonicalize(&arguments.weft).map_err(|error| format!("{}: {error}: build it with `cargo build --release`", arguments.weft))?;
    let weft = weft.to_string_lossy();
    let mut results = Results::new();
    for round in 1..=arguments.rounds {
        for &kind in &kinds {
            let peer = match Peer::up(kind, &weft, &arguments.daemon_options) {
                Ok(peer) => peer,
                Err(error) => {
                    println!("skipped {}: {error}", kind.name());
                    continue;
                }
            };
            for workload in ["tcp1", "tcp4", "udp", "latency", "rest", "load4g", "load", "crr", "idle"] {
                if wanted(&arguments.workloads, workload) {
                    let figures = measure(&peer, kind, workload, &weft, round);
                    println!("round {round} {} {workload} {figures:.3?}", kind.name());
                    results.push((kind.name(), workload, figures));
                }
            }
        }
    }
    let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
    let text = report(&results, &names);
    println!("\n{text}");
    if arguments.record { record(&text) } else { Ok(()) }
}

fn measure(peer: &Peer, kind: Kind, name: &str, weft: &str, round: u32) -> Figures {
    const QUIET: u32 = 100;
    match name {
        "tcp1" => workload::tcp(peer, 1, 4),
        "tcp4" => workload::tcp(peer, 4, 4),
        "udp" => workload::udp(peer),
        "latency" => workload::latency(peer),
        "rest" => workload::latency_at_rest(peer),
        "load4g" => workload::loaded_latency(peer, "4G"),
        "load" => workload::loaded_latency(peer, "0"),
        "crr" => workload::connects(peer),
        // A hundred quiet ports, once: making them takes a while.
        _ if kind == Kind::WeftTap && round == 1 => {
            let made = peer.add_quiet_ports(weft, QUIET);
            let figures = workload::idle(peer);
            peer.remove_quiet_ports(weft, QUIET).ok();
            if made.is_ok() { figures } else { Figures::new() }
        }
        _ => Figures::from([("rss_mib", workload::rss_mib(peer))]),
    }
}

fn installed(kind: Kind) -> bool {
    let missing = kind.needs().iter().chain(&[("iperf3", "iperf3"), ("taskset", "util-linux")]).find(|(program, _)| {
        !Command::new("sh").args(["-c", &format!("command -v {program} >/dev/null")]).status().is_ok_and(|status| status.success())
    });
    if let Some((program, package)) = missing {
        println!("skipped {}: {program} is not installed (apt-get install {package})", kind.name());
    }
    missing.is_none()
}

fn record(text: &str) -> Result<(), String> {
    let said = |program: &str, words: &[&str]| Command::new(program).args(words).output().map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let cpu = said("sh", &["-c", "sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1"]);
    let section = format!(
        "\n## L2, {}\n\nMachine: {cpu}, {} cores, Linux {}. Commit {}. Command: `{}`.\n\n{text}",
        said("date", &["-u", "+%F"]),
        said("nproc", &[]),
        said("uname", &["-r"]),
        said("git", &["rev-parse", "--short", "HEAD"]),
        std::iter::once("cargo run --release -p weft-perf --bin l2 --".to_owned()).chain(std::env::args().skip(1)).collect::<Vec<_>>().join(" "),
    );
    let path = "perf/RESULTS.md";
    let old = std::fs::read_to_string(path).unwrap_or_else(|_| "# Results\n\nEvery figure is a median over interleaved rounds; compare ratios, not absolute values.\n".into());
    std::fs::write(path, old + &section).map_err(|error| format!("{path}: {error}"))
}

fn generate_traffic(words: &[String]) -> std::io::Result<()> {
    let bad = || std::io::Error::other("gen: see perf/src/generate.rs");
    let word = |at: usize| words.get(at).map(String::as_str).ok_or_else(bad);
    let seconds = |at| word(at).and_then(|text| text.parse::<f64>().map_err(|_| bad()));
    let port = || word(1).and_then(|text| text.parse::<u16>().map_err(|_| bad()));
    let to = || word(1).and_then(|text| text.parse().map_err(|_| bad()));
    match word(0)? {
        "sink" => generate::sink(port()?),
        "source" => generate::source(to()?, seconds(2)?, seconds(3)?),
        "pong" => generate::pong(port()?, seconds(2)?),
        "ping" => generate::ping(to()?, seconds(2)?),
        "accept" => generate::accept(port()?, seconds(2)?),
        "connect" => generate::connect(to()?, seconds(2)?),
        "forward" => {
            let way = Way::ALL.into_iter().find(|way| word(1).is_ok_and(|name| name == way.name())).ok_or_else(bad)?;
            forward::forward(way, [word(2)?, word(3)?])
        }
        "busy" => busy::forward([word(1)?, word(2)?]),
        "spin" => {
            let end = std::time::Instant::now() + std::time::Duration::from_secs_f64(seconds(1)?);
            while std::time::Instant::now() < end {
                std::hint::spin_loop();
            }
            Ok(())
        }
        _ => Err(bad()),
    }
}
