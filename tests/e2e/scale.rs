//! Two hundred sandboxes on one network.

use libtest_mimic::Trial;
use weft_tests::{
    lab::Lab,
    runner::{Need, test},
};

const NEEDS: &[Need] = &[Need::Root, Need::Tun, Need::Tool("ping")];
const SANDBOXES: u32 = 200;

pub(crate) fn tests() -> Vec<Trial> {
    vec![test("scale::two_hundred_sandboxes", NEEDS, two_hundred)]
}

#[expect(clippy::print_stdout, reason = "it reports what it cost")]
fn two_hundred() {
    let lab = Lab::start();
    lab.weft("network create net --subnet 10.9.0.0/16").ok();
    let (start, rss_before) = (std::time::Instant::now(), rss_kib(&lab));
    for count in 0..SANDBOXES {
        lab.weft(&format!("run -d --name s{count} --net net:ip=10.9.1.{} -- sleep 3000", count + 1)).ok();
    }
    let made = start.elapsed();
    let rss = rss_kib(&lab) - rss_before;
    for count in (0..SANDBOXES).step_by(9) {
        let other = (count * 7 + 31) % SANDBOXES;
        if other != count {
            lab.weft(&format!("exec s{count} ping -c 1 -W 5 10.9.1.{}", other + 1)).ok();
        }
    }
    let start = std::time::Instant::now();
    let names: Vec<String> = (0..SANDBOXES).map(|count| format!("s{count}")).collect();
    lab.weft(&format!("rm -f {}", names.join(" "))).ok();
    let removed = start.elapsed();
    assert!(lab.weft("port ls --json").json().as_array().is_some_and(Vec::is_empty));
    assert_eq!(std::fs::read_dir(lab.state_dir().join("netns")).expect("pins").count(), 0);
    println!(
        "scale: {SANDBOXES} sandboxes: {:.1} ms each to make, {:.1} ms each to remove, {} KiB each in the daemon",
        made.as_secs_f64() * 1000.0 / f64::from(SANDBOXES),
        removed.as_secs_f64() * 1000.0 / f64::from(SANDBOXES),
        rss / u64::from(SANDBOXES)
    );
}

fn rss_kib(lab: &Lab) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", lab.daemon_pid())).expect("status");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("number")
}
