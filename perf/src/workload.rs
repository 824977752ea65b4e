//! What is done with a peer, and what it cost.

use std::{
    collections::BTreeMap,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use crate::peer::{Peer, SERVER};

/// Figures by name.
pub type Figures = BTreeMap<&'static str, f64>;

fn own() -> String {
    std::env::current_exe().map_or_else(|_| "l2".into(), |path| path.to_string_lossy().into_owned())
}

fn start(ns: &str, program: &str, arguments: &[&str]) -> Option<Child> {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", ns, program]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()
}

fn finish(child: Option<Child>) -> String {
    child.and_then(|child| child.wait_with_output().ok()).map_or_else(String::new, |output| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn generator(ns: &str, arguments: &[&str]) -> Option<Child> {
    start(ns, &own(), &[&["gen"], arguments].concat())
}

fn numbers(text: &str) -> Vec<f64> {
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// CPU seconds (user and system) of the peer's daemons so far.
#[must_use]
pub fn cpu_seconds(peer: &Peer) -> f64 {
    let ticks: u64 = peer.pids.iter().filter_map(|pid| stat_ticks(*pid)).sum();
    ticks as f64 / 100.0
}

fn stat_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

/// Resident memory of the peer's daemons, MiB.
#[must_use]
pub fn rss_mib(peer: &Peer) -> f64 {
    let kib = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.lines().find(|line| line.starts_with("VmRSS"))?.split_whitespace().nth(1)?.parse::<f64>().ok()
    };
    peer.pids.iter().filter_map(kib).sum::<f64>() / 1024.0
}

/// TCP by iperf3, `streams` at once: Gbit/s and daemon CPU seconds per Gbit.
#[must_use]
pub fn tcp(peer: &Peer, streams: u32, seconds: u32) -> Figures {
    let mut server = start(&peer.b, "iperf3", &["-s", "-1"]);
    sleep(Duration::from_millis(400));
    let before = cpu_seconds(peer);
    let report = finish(start(&peer.a, "iperf3", &["-c", SERVER, "-t", &seconds.to_string(), "-P", &streams.to_string(), "-J"]));
    let used = cpu_seconds(peer) - before;
    if let Some(server) = &mut server {
        server.kill().ok();
        server.wait().ok();
    }
    let report: serde_json::Value = serde_json::from_str(&report).unwrap_or_default();
    let gbits = report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap_or(0.0) / 1e9;
    let mut figures = Figures::from([("gbps", gbits)]);
    if gbits > 0.0 {
        figures.insert("cpu_s_per_gbit", used / (gbits * f64::from(seconds)));
    }
    figures
}

/// Sent rate, received rate, lost part.
fn offer(peer: &Peer, seconds: f64, rate: f64) -> (f64, f64, f64) {
    let sink = generator(&peer.b, &["sink", "7001"]);
    sleep(Duration::from_millis(150));
    let sent = numbers(&finish(generator(&peer.a, &["source", &format!("{SERVER}:7001"), &seconds.to_string(), &rate.to_string()])));
    let received = numbers(&finish(sink));
    let ([sent, time], [got, span]) = (sent.as_slice(), received.as_slice()) else { return (0.0, 0.0, 1.0) };
    (sent / time, if *span > 0.0 { got / span } else { 0.0 }, 1.0 - got / sent.max(1.0))
}

/// 64-byte UDP: highest received rate with at most 1 % lost, and under overload; thousands a second.
#[must_use]
pub fn udp(peer: &Peer) -> Figures {
    let (sent, saturated, _) = offer(peer, 1.5, 0.0);
    let (mut low, mut high) = (0.0, (saturated * 1.25).max(1000.0).min(sent.max(1000.0)));
    let (mut rate, mut best) = (high, 0.0_f64);
    for _ in 0..6 {
        let (offered, received, lost) = offer(peer, 0.8, rate);
        if lost <= 0.01 {
            best = best.max(received);
            // A generator that cannot offer more ends the search.
            if offered >= 0.9 * rate { low = rate } else { high = rate }
        } else {
            high = rate;
        }
        rate = if low == 0.0 { high * 0.6 } else { f64::midpoint(low, high) };
        if high - low < 0.04 * high {
            break;
        }
    }
    Figures::from([("kpps", best / 1000.0), ("saturated_kpps", saturated / 1000.0)])
}

/// UDP ping-pong between the two CPUs, both kept awake by spinners of idle priority; microseconds.
#[must_use]
pub fn latency(peer: &Peer) -> Figures {
    let spinners: Vec<_> = ["0", "1"].iter().filter_map(|cpu| Command::new("chrt").args(["-i", "0", "taskset", "-c", cpu, &own(), "gen", "spin", "4"]).spawn().ok()).collect();
    let figures = ping_pong(peer, &["taskset", "-c", "1"], &["taskset", "-c", "0"]);
    for mut spinner in spinners {
        spinner.kill().ok();
        spinner.wait().ok();
    }
    figures
}

/// The same on CPUs that halt when they have nothing to do, as those of a machine at rest.
#[must_use]
pub fn latency_at_rest(peer: &Peer) -> Figures {
    ping_pong(peer, &["taskset", "-c", "1"], &["taskset", "-c", "0"])
}

/// The same beside a TCP stream, wherever the scheduler puts it. `rate` is iperf3's -b: with one, every
/// peer carries the same load; with `0` the stream takes what the CPUs have, and all peers but the
/// kernel share them with their own traffic.
#[must_use]
pub fn loaded_latency(peer: &Peer, rate: &str) -> Figures {
    let mut server = start(&peer.b, "iperf3", &["-s", "-1"]);
    sleep(Duration::from_millis(400));
    let client = start(&peer.a, "iperf3", &["-c", SERVER, "-t", "4", "-b", rate]);
    sleep(Duration::from_millis(500));
    let figures = ping_pong(peer, &["env"], &["env"]);
    finish(client);
    if let Some(server) = &mut server {
        server.kill().ok();
        server.wait().ok();
    }
    figures
}

fn ping_pong(peer: &Peer, server: &[&str], client: &[&str]) -> Figures {
    let own = own();
    let pong = start(&peer.b, server[0], &[&server[1..], &[&own, "gen", "pong", "7002", "3"]].concat());
    sleep(Duration::from_millis(200));
    let to = format!("{SERVER}:7002");
    let result = numbers(&finish(start(&peer.a, client[0], &[&client[1..], &[&own, "gen", "ping", &to, "2"]].concat())));
    finish(pong);
    match result.as_slice() {
        [p50, p99, p999, max, lost] => Figures::from([("p50_us", *p50), ("p99_us", *p99), ("p999_us", *p999), ("max_us", *max), ("lost", *lost)]),
        _ => Figures::new(),
    }
}

/// TCP connect, request, response, close: a second.
#[must_use]
pub fn connects(peer: &Peer) -> Figures {
    let server = generator(&peer.b, &["accept", "7003", "3"]);
    sleep(Duration::from_millis(200));
    let rate = numbers(&finish(generator(&peer.a, &["connect", &format!("{SERVER}:7003"), "2"])));
    finish(server);
    Figures::from([("per_s", rate.first().copied().unwrap_or(0.0))])
}

/// CPU of the daemon while nothing happens, percent of one core; and its memory. New interfaces
/// solicit routers and report multicast groups for their first seconds: those are waited for.
#[must_use]
pub fn idle(peer: &Peer) -> Figures {
    sleep(Duration::from_secs(15));
    let before = cpu_seconds(peer);
    sleep(Duration::from_secs(10));
    Figures::from([("idle_cpu_percent", (cpu_seconds(peer) - before) / 10.0 * 100.0), ("rss_mib", rss_mib(peer))])
}
