//! What a transparent network passes and a bridge keeps: LLDP, LACP, STP, 802.1X, tags, anything.

use std::process::Command;

use libtest_mimic::Trial;
use weft_tests::{
    lab::Lab,
    ns::Ns,
    run::{eventually, run},
    runner::{Need, test},
};

const NEEDS: &[Need] = &[Need::Root, Need::Tun, Need::Tool("python3")];

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("transparent::every_frame_byte_identical_tap", NEEDS, || byte_identical("tap")),
        test("transparent::every_frame_byte_identical_veth", NEEDS, || byte_identical("veth")),
        test("transparent::bridge_keeps_the_reserved_group", NEEDS, bridge_keeps),
        test("transparent::lldpd_sees_its_neighbour", &[Need::Root, Need::Tun, Need::Tool("lldpd")], lldp),
    ]
}

/// Name, and the frame as hex.
fn frames() -> Vec<(&'static str, String)> {
    let source = "020000000001";
    let body = "00112233445566778899aabbccddeeff".repeat(4);
    vec![
        ("LLDP", format!("0180c200000e{source}88cc{body}")),
        ("LACP", format!("0180c2000002{source}8809{body}")),
        ("STP", format!("0180c2000000{source}0040424203{body}")),
        ("802.1X", format!("0180c2000003{source}888e{body}")),
        ("own EtherType", format!("ffffffffffff{source}88b5{body}")),
        ("802.1Q", format!("ffffffffffff{source}8100600a88b5{body}")),
        ("QinQ", format!("ffffffffffff{source}88a80064810000c888b5{body}")),
        ("triple tag", format!("ffffffffffff{source}88a8000181000002810000030800{body}")),
        ("jumbo", format!("ffffffffffff{source}88b5{}", body.repeat(120))),
    ]
}

const SEND: &str = "import socket,sys\ns=socket.socket(socket.AF_PACKET,socket.SOCK_RAW)\ns.bind(('eth0',0))\nfor f in sys.argv[1:]: s.send(bytes.fromhex(f))\n";

/// Prints each frame seen, with tags that the kernel took off put back.
const RECEIVE: &str = "import socket,sys,struct\ns=socket.socket(socket.AF_PACKET,socket.SOCK_RAW,socket.htons(3))\ns.bind(('eth0',3))\ns.setsockopt(263,8,1)\ns.settimeout(15)\nprint('ready',flush=True)\nwhile True:\n d,a,_,_=s.recvmsg(70000,64)\n for l,t,c in a:\n  if l==263 and t==8:\n   st,_,_,_,_,tci,tpid=struct.unpack('IIIHHHH',c[:20])\n   if st&0x10: d=d[:12]+struct.pack('!HH',tpid if st&0x40 else 0x8100,tci)+d[12:]\n if d[6:12].hex()=='020000000001': print(d.hex(),flush=True)\n";

fn exchange(l2: &str, kind: &str) -> (Vec<(&'static str, String)>, String) {
    let lab = Lab::start();
    let (one, two) = (lab.ns("one"), lab.ns("two"));
    lab.weft(&format!("network create net --subnet 10.9.0.0/24 --l2 {l2} --mtu 9000")).ok();
    for ns in [&one, &two] {
        lab.weft(&format!("attach net {} --ifname eth0 --kind {kind}", ns.path())).ok();
    }
    let log = lab.dir().join("received");
    let output = std::fs::File::create(&log).expect("file");
    let receiver = two.command("python3").args(["-c", RECEIVE]).stdout(output).spawn().expect("receiver");
    let _receiver = weft_tests::ns::Background(receiver);
    let received = || std::fs::read_to_string(&log).unwrap_or_default();
    eventually("the receiver listens", || received().contains("ready"));
    let frames = frames();
    send(&one, &frames);
    eventually("the last frame arrives", || received().contains(&frames.last().expect("frames").1));
    (frames, received())
}

fn send(from: &Ns, frames: &[(&str, String)]) {
    let mut command: Command = from.command("python3");
    command.args(["-c", SEND]).args(frames.iter().map(|(_, frame)| frame));
    run(&mut command).ok();
}

fn byte_identical(kind: &str) {
    let (frames, received) = exchange("transparent", kind);
    for (name, frame) in frames {
        assert!(received.lines().any(|line| line == frame), "{name} did not cross byte-identical over {kind}:\nsent {frame}\n{received}");
    }
}

fn bridge_keeps() {
    let (frames, received) = exchange("bridge", "tap");
    for (name, frame) in frames {
        let crossed = received.lines().any(|line| line == frame);
        assert_eq!(crossed, !frame.starts_with("0180c200000"), "{name}");
    }
}

fn lldp() {
    let lab = Lab::start();
    let (one, two) = (lab.ns("one"), lab.ns("two"));
    lab.weft("network create net --subnet 10.9.0.0/24 --l2 transparent").ok();
    let mut daemons = Vec::new();
    for ns in [&one, &two] {
        lab.weft(&format!("attach net {} --ifname eth0", ns.path())).ok();
        let socket = lab.dir().join(format!("{}.sock", ns.name));
        // Its privilege separation wants a directory of its own in /run.
        std::fs::create_dir_all("/run/lldpd").expect("/run/lldpd");
        let child = ns.command("lldpd").args(["-d", "-u"]).arg(&socket).args(["-I", "eth0"]).stderr(std::process::Stdio::null()).spawn();
        daemons.push(weft_tests::ns::Background(child.expect("lldpd")));
    }
    let client = |ns: &Ns, line: &str| run(ns.command("lldpcli").arg("-u").arg(lab.dir().join(format!("{}.sock", ns.name))).args(line.split(' ')));
    for ns in [&one, &two] {
        // Not before it has sent: a change of the interval while lldpd starts may leave it silent.
        eventually("lldpd sends", || client(ns, "show statistics").stdout.lines().any(|line| line.trim_start().starts_with("Transmitted:") && !line.ends_with(" 0")));
        client(ns, "configure lldp tx-interval 1").ok();
    }
    for ns in [&one, &two] {
        eventually("the neighbour is seen", || client(ns, "show neighbors").stdout.contains("via: LLDP"));
    }
    // lldpd's monitor leaves its unprivileged child to the signal; end it by the pid file's absence.
    drop(daemons);
}
