//! pcapng while running, read back by tshark.

use std::process::Command;

use libtest_mimic::Trial;
use weft_tests::{
    lab::Lab,
    run::{eventually, run},
    runner::{Need, test},
};

const NEEDS: &[Need] = &[Need::Root, Need::Tun, Need::Tool("tshark"), Need::Tool("iperf3")];

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("capture::drops_are_marked_and_ports_are_interfaces", NEEDS, drops_marked),
        test("capture::wire_size_or_whole", NEEDS, wire_size),
        test("capture::filters_as_tcpdump_s", NEEDS, filters),
    ]
}

fn drops_marked() {
    let lab = Lab::start();
    lab.weft("network create net --subnet 10.9.0.0/24").ok();
    lab.weft("run -d --name a --net net:ip=10.9.0.11 -- sleep 1000").ok();
    lab.weft("run -d --name b --net net:ip=10.9.0.12 -- sleep 1000").ok();
    lab.weft("exec a ip addr add 10.9.0.99/24 dev eth0").ok();
    let file = lab.dir().join("drops.pcapng");
    let mut capture = lab.weft_command().args(["capture", "all", "-w"]).arg(&file).spawn().expect("capture");
    eventually("the capture runs", || std::fs::metadata(&file).is_ok_and(|meta| meta.len() > 0));
    let shown = || run(Command::new("tshark").args(["-r", &file.to_string_lossy(), "-T", "fields", "-e", "frame.interface_name", "-e", "frame.comment", "-e", "frame.packet_flags_direction"])).stdout;
    eventually("drops and passes are in the file", || {
        drop(lab.weft("exec a ping -c 1 -W 1 10.9.0.12"));
        drop(lab.weft("exec a ping -c 1 -W 1 -I 10.9.0.99 10.9.0.12"));
        let text = shown();
        text.contains("dropped: guard_ip") && text.contains("a:eth0") && text.contains("b:eth0")
    });
    drop(capture.kill());
    drop(capture.wait());
    let lines = lab.weft("capture a -c 2");
    drop(lines);
}

fn wire_size() {
    let lab = Lab::start();
    let (one, two) = (lab.ns("one"), lab.ns("two"));
    lab.weft("network create net --subnet 10.9.0.0/24").ok();
    lab.weft(&format!("attach net {} --ifname eth0 --ip 10.9.0.11", one.path())).ok();
    lab.weft(&format!("attach net {} --ifname eth0 --ip 10.9.0.12", two.path())).ok();
    let _server = two.iperf_server();
    for (option, whole) in [("", false), ("--whole", true)] {
        let file = lab.dir().join(format!("wire{whole}.pcapng"));
        let mut command = lab.weft_command();
        command.args(["capture", "net", "-w"]).arg(&file);
        if whole {
            command.arg(option);
        }
        let mut capture = command.spawn().expect("capture");
        eventually("the capture runs", || std::fs::metadata(&file).is_ok_and(|meta| meta.len() > 0));
        drop(one.run("iperf3 -c 10.9.0.12 -n 2M"));
        drop(capture.kill());
        drop(capture.wait());
        let longest = run(Command::new("tshark").args(["-r", &file.to_string_lossy(), "-T", "fields", "-e", "frame.len"])).stdout;
        let longest = longest.lines().filter_map(|line| line.trim().parse::<u32>().ok()).max().unwrap_or(0);
        if whole {
            assert!(longest > 3000, "super-frames are whole: {longest}");
        } else {
            assert!((1000..=1514).contains(&longest), "as the wire would see them: {longest}");
            let bad = run(Command::new("tshark").args(["-r", &file.to_string_lossy(), "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-Y", "tcp.checksum.status == 0 || ip.checksum.status == 0"])).stdout;
            assert!(bad.is_empty(), "checksums are finished:\n{bad}");
        }
    }
}

/// Beside tshark's own reading of everything.
fn filters() {
    let lab = Lab::start();
    lab.weft("network create net --subnet 10.9.0.0/24").ok();
    lab.weft("run -d --name a --net net:ip=10.9.0.11 -- sleep 1000").ok();
    lab.weft("run -d --name b --net net:ip=10.9.0.12 -- sleep 1000").ok();
    for (wrong, named) in [("tcp port x", "`x`"), ("nonsense", "`nonsense`"), ("( tcp", "`)`")] {
        let refused = lab.weft_args(&["capture", "net", "-c", "1", "-f", wrong]);
        assert!(refused.code == Some(1) && refused.stderr.contains(named), "{wrong}: {}", refused.stderr);
    }
    let (all, some) = (lab.dir().join("all.pcapng"), lab.dir().join("some.pcapng"));
    let start = |file: &std::path::Path, filter: &[&str]| {
        let mut command = lab.weft_command();
        command.args(["capture", "b", "-w"]).arg(file).args(filter);
        command.spawn().expect("capture")
    };
    let mut captures = [start(&all, &[]), start(&some, &["-f", "icmp", "and", "src", "host", "10.9.0.11"])];
    eventually("the captures run", || [&all, &some].iter().all(|file| std::fs::metadata(file).is_ok_and(|meta| meta.len() > 0)));
    lab.weft("exec a ping -c 3 -i 0.2 10.9.0.12").ok();
    let read = |file: &std::path::Path, filter: &str| run(Command::new("tshark").args(["-r", &file.to_string_lossy(), "-Y", filter, "-T", "fields", "-e", "eth.src", "-e", "frame.len", "-e", "icmp.seq"])).stdout;
    const WANTED: &str = "icmp && ip.src == 10.9.0.11";
    eventually("all of it is written", || read(&all, WANTED).lines().count() >= 3 && read(&all, WANTED) == read(&some, "frame"));
    for capture in &mut captures {
        drop(capture.kill());
        drop(capture.wait());
    }
    assert!(read(&all, "frame").lines().count() > read(&some, "frame").lines().count(), "the filter leaves out ARP and replies");
}
