//! The same frames into the kernel bridge and into weft: the same ports, the same bytes, in the same
//! order. Frames are random (few stations, so that they are known, unknown, moving, or behind the port
//! they came from) and recorded (the corpus of the fuzz targets: every protocol, whole and broken).
//!
//! Intended differences, and why:
//! 1. Destination 01-80-C2-00-00-00 (spanning tree): the kernel bridge forwards it while its own STP is
//!    off, lest a loop go unseen. Weft's `l2 = bridge` keeps the whole reserved group to itself, as IEEE
//!    802.1Q table 8-1 has it; `l2 = transparent` is there for those who want it to pass.
//! 2. Both learn from frames of the reserved group, which they do not forward. The kernel does not from
//!    01-80-C2-00-00-01 (PAUSE), and from tagged ones it learns in the tag's VLAN, though the bridge looks
//!    at no tags otherwise: that entry is never used. Weft has one rule for all.

use std::{fs, path::Path};

use libtest_mimic::Trial;
use weft_tests::{
    lab::Lab,
    ns::Ns,
    run::eventually,
    runner::{Need, test},
    wire::Wire,
};

const PORTS: usize = 4;

pub(crate) fn tests() -> Vec<Trial> {
    vec![test("differential::kernel_bridge_and_weft_do_the_same", &[Need::Root, Need::Tun], same)]
}

struct Step {
    port: usize,
    frame: Vec<u8>,
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound as u64).expect("below a usize")
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| u8::try_from(self.below(256)).expect("a byte")).collect()
    }
}

fn random_frame(random: &mut Random) -> Vec<u8> {
    let station = |random: &mut Random| [2, 0, 0, 0, 0, u8::try_from(random.below(6)).expect("small")];
    let destination = match random.below(12) {
        0 => [0xff; 6],
        1 => [1, 0, 0x5e, 0, 0, 9],
        2 => [0x33, 0x33, 0, 0, 0, 1],
        3 => [1, 0x80, 0xc2, 0, 0, 2 + u8::try_from(random.below(20)).expect("small")],
        _ => station(random),
    };
    let source = match random.below(30) {
        0 => [0xff; 6],
        1 => [0; 6],
        _ => station(random),
    };
    let tag: &[u8] = match random.below(8) {
        _ if destination[1] == 0x80 => &[],
        0 => &[0x81, 0, 0x60, 10],
        1 => &[0x88, 0xa8, 0, 100, 0x81, 0, 0, 200],
        2 => &[0x81, 0, 0, 0],
        _ => &[],
    };
    let ethertype = [[0x88, 0xb5], [8, 0], [0x86, 0xdd], [8, 6], [0, 46]][random.below(5)];
    let length = [2, 3, 46, 60, 500, 1490][random.below(6)];
    [&destination[..], &source, tag, &ethertype, &random.bytes(length)].concat()
}

fn steps(seed: u64) -> Vec<Step> {
    let mut random = Random(seed);
    let mut steps: Vec<Step> = recorded().into_iter().map(|frame| Step { port: 0, frame }).collect();
    for step in &mut steps {
        step.port = random.below(PORTS);
    }
    steps.extend((0..1500).map(|_| Step { port: random.below(PORTS), frame: random_frame(&mut random) }));
    steps
}

/// What a wire can carry of the corpus, without spanning tree (see the module), and without tags that
/// are cut short, which the kernel drops before a bridge or a packet socket sees them.
fn recorded() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/frame_parse");
    let mut files: Vec<_> = fs::read_dir(folder).expect("the corpus").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let frames = files.iter().map(|path| fs::read(path).expect("a file"));
    let cut = |frame: &[u8]| frame.len() < 20 && matches!(frame[12..14], [0x81, 0] | [0x88, 0xa8]);
    let kept: Vec<_> = frames.filter(|frame| (14..=1514).contains(&frame.len()) && frame[..6] != [1, 0x80, 0xc2, 0, 0, 0] && !cut(frame)).collect();
    assert!(kept.len() > 20, "the corpus holds frames");
    kept
}

/// `far` gets f0..f3; their peers b0..b3 are in `near`. Nothing speaks of itself.
fn wires(far: &Ns, near: &Ns) -> Vec<Wire> {
    for ns in [far, near] {
        ns.sh("echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6; echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6").ok();
    }
    for port in 0..PORTS {
        far.sh(&format!("ip link add f{port} type veth peer name b{port} netns {} && ip link set f{port} up && ip -n {} link set b{port} up", near.name, near.name)).ok();
    }
    let wires: Vec<Wire> = (0..PORTS).map(|port| Wire::new(far, &format!("f{port}"), false)).collect();
    wires.iter().for_each(|wire| wire.set_buffer(64 << 20));
    wires
}

/// Sends all, then a last frame from each port, and gives what each port heard before those.
fn play(steps: &[Step], wires: &[Wire], mut settled: impl FnMut(u64)) -> Vec<Vec<Vec<u8>>> {
    let mut sent = 0;
    for step in steps {
        wires[step.port].send(&step.frame).unwrap_or_else(|error| panic!("{error}: {:02x?}", step.frame));
        sent += 1;
        settled(sent);
    }
    let last = |port: usize| [&[0xff; 6][..], &[2, 9, 9, 9, 9, u8::try_from(port).expect("small")], b"\x88\xb6the end"].concat();
    for (port, wire) in wires.iter().enumerate() {
        wire.send(&last(port)).expect("the last frame");
        sent += 1;
        settled(sent);
    }
    let heard_until_the_end = |(port, wire): (usize, &Wire)| {
        let end = last(if port == 0 { 1 } else { 0 });
        let mut heard = Vec::new();
        eventually("the last frame is heard", || {
            while let Some(frame) = wire.receive() {
                if frame == end {
                    return true;
                }
                heard.push(frame);
            }
            false
        });
        heard
    };
    wires.iter().enumerate().map(heard_until_the_end).collect()
}

fn same() {
    let lab = Lab::start();
    let steps = steps(0x5eed);

    let (far, near) = (lab.ns("kf"), lab.ns("kn"));
    let kernel_wires = wires(&far, &near);
    // A bridge, and not also a firewall that drops what is malformed above Ethernet.
    near.sh("for f in /proc/sys/net/bridge/bridge-nf-call-*; do test -e $f && echo 0 >$f; done; true").ok();
    near.sh("ip link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0 && for i in 0 1 2 3; do ip link set b$i master br0; done && ip link set br0 up").ok();
    eventually("the kernel's ports forward", || near.sh("bridge link show").stdout.matches("state forwarding").count() == PORTS);
    // The kernel forwards within the system call that sends, as long as the CPU stays the same.
    let mut cpus = nix::sched::CpuSet::new();
    cpus.set(0).expect("CPU 0");
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &cpus).expect("affinity");
    let expected = play(&steps, &kernel_wires, |_| {});

    let far = lab.ns("wf");
    let weft_wires = wires(&far, &lab.host);
    lab.weft("network create net --ipam-driver null").ok();
    for port in 0..PORTS {
        lab.weft(&format!("attach net --dev b{port}")).ok();
    }
    let received = || lab.api("/v1/stats")["rx_frames"].as_u64().expect("a number");
    let before = received();
    let seen = play(&steps, &weft_wires, |sent| {
        let frame = steps.get(usize::try_from(sent).expect("small") - 1).map_or(&[][..], |step| &step.frame);
        eventually(&format!("weft took frame {sent}: {frame:02x?}"), || received() >= before + sent);
    });

    for port in 0..PORTS {
        let missing: Vec<_> = expected[port].iter().filter(|frame| !seen[port].contains(frame)).collect();
        let extra: Vec<_> = seen[port].iter().filter(|frame| !expected[port].contains(frame)).collect();
        assert!(missing.is_empty() && extra.is_empty(), "port {port}: only by the kernel {missing:02x?}\nonly by weft {extra:02x?}");
        let apart = expected[port].iter().zip(&seen[port]).position(|(kernel, weft)| kernel != weft);
        assert_eq!(apart, None, "port {port} hears the same frames, in another order");
        assert_eq!(expected[port].len(), seen[port].len(), "frames heard by port {port}");
    }
    let total: usize = expected.iter().map(Vec::len).sum();
    assert!(total > steps.len(), "{total} frames were compared");
}
