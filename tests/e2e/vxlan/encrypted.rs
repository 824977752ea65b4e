//! Encrypted overlays: what passes, what is seen on the wire, and what does not pass.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use serde_json::Value;
use weft_tests::{lab::Lab, run::eventually, vxlan::socket_in};

use super::{Fabric, Node, checksum_errors, sniff, traffic};

/// A key, by one byte.
fn key(byte: u8) -> String {
    format!("{byte:02x}").repeat(32)
}

/// Writes the node's key file, for its owner alone.
fn write_keys(lab: &Lab, text: &str) -> PathBuf {
    let path = lab.dir().join("keys");
    fs::write(&path, text).expect("a key file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode");
    path
}

impl Fabric {
    /// As `overlay`, with the same keys on all nodes.
    fn encrypted(&self, keys: &str, ipv6: bool) {
        let peers: Vec<_> = self.nodes.iter().map(|node| if ipv6 { format!("--peer fd88::{}", node.number) } else { format!("--peer {}", node.underlay()) }).collect();
        for node in &self.nodes {
            let path = write_keys(&node.lab, keys);
            node.overlay(&format!("{} -o encrypted -o weft.key-file={}", peers.join(" "), path.display()));
        }
    }
}

fn encryption(node: &Node) -> Value {
    node.show()["networks"][0]["encryption"].clone()
}

pub(super) fn two_nodes(ipv6: bool) {
    let fabric = Fabric::new(2, 2, "");
    fabric.encrypted(&key(7), ipv6);
    let [one, two] = &fabric.nodes[..] else { panic!("two nodes") };
    let (a, b) = (one.station(18), two.station(34));
    let mtu = if ipv6 { 1394 } else { 1414 };
    assert!(a.ip("link show eth0").ok().contains(&format!("mtu {mtu}")));
    traffic(&a, &b, 34);
    assert!(a.run(&format!("ping -c 2 -i 0.1 -W 2 -M do -s {} 10.0.0.34", mtu - 28)).stdout.contains(" 0% packet loss"));
    assert!(a.run("ping -c 2 -i 0.2 -W 2 -s 65000 fd0a::34").stdout.contains(" 0% packet loss"));
    assert_eq!(checksum_errors(&a) + checksum_errors(&b), 0);
    for node in [one, two] {
        let shown = node.show()["networks"][0].clone();
        assert_eq!((&shown["encryption"]["epoch"], &shown["encryption"]["accepted"], &shown["encryption"]["sessions"]), (&1.into(), &Value::from(vec![1]), &1.into()), "{shown}");
        for reason in ["replayed", "bad_tag", "no_key", "clear_text"] {
            assert_eq!(node.dropped(reason), 0, "nothing was lost to encryption: {shown}");
        }
        assert!(node.lab.weft("vxlan show").ok().contains("encrypted, epoch 1, accepts 1, 1 sessions"));
    }
}

/// On the wire nothing of what is inside can be read, and nothing clear is taken from there.
pub(super) fn on_the_wire() {
    let fabric = Fabric::new(3, 3, "");
    fabric.encrypted(&key(7), false);
    let [one, two, three] = &fabric.nodes[..] else { panic!("three nodes") };
    let (a, b) = (one.station(18), two.station(34));
    let (file, sniffer) = sniff(one, 0);
    let secret = "706c61696e74657874";
    assert!(a.run(&format!("ping -c 5 -i 0.1 -W 2 -p {secret} -s 400 10.0.0.34")).stdout.contains(" 0% packet loss"));
    a.sh("echo plaintext-in-a-datagram > /dev/udp/10.0.0.34/9; python3 -c \"import socket; s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.sendto(b'plaintext'*50,('10.0.0.34',9))\"");
    let read = |options: &str| one.lab.host.sh(&format!("tshark -r {} {options} 2>/dev/null", file.display())).stdout;
    eventually("the capture has them", || read("-Y 'udp.dstport==4789 && udp.length>400'").lines().count() >= 10);
    drop(sniffer);
    let bytes = fs::read(&file).expect("the capture");
    let mac = a.sh("cat /sys/class/net/eth0/address").stdout;
    let mac: Vec<u8> = mac.trim().split(':').map(|byte| u8::from_str_radix(byte, 16).expect("a byte")).collect();
    for inside in [&b"plaintext"[..], &mac, &[10, 0, 0, 18], &[10, 0, 0, 34]] {
        assert!(!bytes.windows(inside.len()).any(|window| window == inside), "{inside:?} is on the wire");
    }
    assert_eq!(read("-Y 'vxlan.flag_i==1'"), "", "for anybody who knows VXLAN there is none");
    one.takes_nothing_clear_from(two);
    // One that plays back what it saw, and one that makes things up.
    let peer = socket_in(&two.lab.host);
    let seen = read("-Y 'udp.dstport==4789 && ip.src==192.168.88.212' -T fields -e udp.payload");
    let seen: Vec<u8> = seen.lines().next().map(|line| (0..line.len() / 2).map(|at| u8::from_str_radix(&line[2 * at..2 * at + 2], 16).expect("a byte")).collect()).expect("a datagram");
    peer.send_to(&seen, "192.168.88.211:4789").expect("sent");
    eventually("replayed", || one.dropped("replayed") == 1);
    let mut changed = seen.clone();
    *changed.last_mut().expect("a byte") ^= 1;
    changed[27] ^= 0x80;
    peer.send_to(&changed, "192.168.88.211:4789").expect("sent");
    eventually("bad_tag", || one.dropped("bad_tag") == 1);
    peer.send_to(&seen[..40], "192.168.88.211:4789").expect("sent");
    eventually("short", || one.dropped("short") == 1);
    // A node with another key reaches nothing, and both say why.
    write_keys(&three.lab, &key(9));
    three.lab.weft("vxlan rekey net").ok();
    let c = three.station(50);
    let before = one.dropped("bad_tag");
    assert!(c.cannot_ping("10.0.0.18") && c.cannot_ping("fd0a::34"));
    assert!(one.dropped("bad_tag") > before && two.dropped("bad_tag") > 0);
    assert!(a.cannot_ping("10.0.0.50") && three.dropped("bad_tag") > 0);
    write_keys(&three.lab, &format!("5 {}", key(7)));
    three.lab.weft("vxlan rekey net").ok();
    assert!(c.cannot_ping("10.0.0.18") && one.dropped("no_key") > 0 && a.cannot_ping("10.0.0.50") && three.dropped("no_key") > 0, "the right key of another epoch");
    write_keys(&three.lab, &key(7));
    three.lab.weft("vxlan rekey net").ok();
    eventually("with the right one it does", || c.run("ping -c 1 -W 1 10.0.0.18").code == Some(0));
    assert!(a.pings("10.0.0.34") && b.pings("fd0a::18"));
}

/// Keys change while traffic flows, and daemons start again.
pub(super) fn rotation() {
    let mut fabric = Fabric::new(2, 2, "");
    fabric.encrypted(&key(1), false);
    let (a, b) = (fabric.nodes[0].station(18), fabric.nodes[1].station(34));
    assert!(a.pings("10.0.0.34") && b.pings("10.0.0.18"));
    let report = fabric.nodes[0].lab.dir().join("pings");
    let pinging = a.command("sh").args(["-c", &format!("exec ping -i 0.01 -w 30 10.0.0.34 > {}", report.display())]).spawn().expect("ping");
    let all = |keys: &str| {
        for node in &fabric.nodes {
            write_keys(&node.lab, keys);
            node.lab.weft("vxlan rekey net").ok();
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    };
    all(&format!("1 {}\n2 {}\n", key(1), key(2)));
    all(&format!("2 {}\n1 {}\n", key(2), key(1)));
    all(&format!("2 {}\n", key(2)));
    std::thread::sleep(std::time::Duration::from_millis(200));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(pinging.id()).expect("a pid")), nix::sys::signal::Signal::SIGINT).expect("the ping is told");
    pinging.wait_with_output().expect("it ends");
    let text = fs::read_to_string(&report).expect("a report");
    assert!(text.contains(" 0% packet loss"), "{}", text.lines().rev().take(4).collect::<Vec<_>>().join("\n"));
    for node in &fabric.nodes {
        assert_eq!((&encryption(node)["epoch"], &encryption(node)["accepted"]), (&2.into(), &Value::from(vec![2])));
    }
    // A sender that starts again is heard at once: its session is new.
    fabric.nodes[0].lab.kill_daemon();
    fabric.nodes[0].lab.start_daemon();
    eventually("the way is back", || b.run("ping -c 1 -W 1 10.0.0.18").code == Some(0));
    assert!(a.pings("fd0a::34"));
    assert_eq!(fabric.nodes[1].dropped("replayed"), 0);
    // Without its keys it starts, and is silent.
    let node = &mut fabric.nodes[0];
    node.lab.kill_daemon();
    fs::remove_file(node.lab.dir().join("keys")).expect("there was one");
    node.lab.start_daemon();
    assert!(b.cannot_ping("10.0.0.18") && a.cannot_ping("10.0.0.34"));
    assert!(node.dropped("no_key") > 0 && node.lab.log().contains("key file"), "{}", node.show());
    assert!(node.lab.weft("vxlan show").ok().contains("encrypted, no keys"));
    assert!(node.lab.weft("vxlan rekey net").fails().contains("keys"));
    write_keys(&node.lab, &key(2));
    node.lab.weft("vxlan rekey net").ok();
    assert!(a.cannot_ping("10.0.0.34"), "of another epoch");
    write_keys(&node.lab, &format!("2 {}", key(2)));
    node.lab.weft("vxlan rekey net").ok();
    eventually("with them it speaks", || a.run("ping -c 1 -W 1 10.0.0.34").code == Some(0));
}

pub(super) fn refusals() {
    let lab = Lab::start();
    let path = write_keys(&lab, &key(7));
    let create = |options: &str| lab.weft(&format!("network create x {options}"));
    let with_file = format!("-d overlay -o encrypted -o weft.key-file={}", path.display());
    for (options, culprit) in [
        ("-o encrypted", "overlay"),
        ("-d overlay -o encrypted", "weft.key-file"),
        ("-d overlay -o encrypted=perhaps", "perhaps"),
        ("-d overlay -o weft.key-file=/k", "encrypted"),
        ("-d overlay -o encrypted -o weft.key-file=keys", "absolute"),
        ("-d overlay -o encrypted -o weft.key-file=/nowhere/keys", "/nowhere/keys"),
        ("-d overlay -o encrypted -o weft.key-file=/dev/zero", "regular"),
    ] {
        let error = create(options).fails();
        assert!(error.contains(culprit), "{options}: {error}");
    }
    for (text, mode, culprit) in [(key(7), 0o644, "0644"), (key(7), 0o640, "0640"), (key(7)[..62].to_owned(), 0o600, "62 digits"), (String::new(), 0o600, "no key"), ("x".repeat(5000), 0o600, "4096")] {
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
        let error = create(&with_file).fails();
        assert!(error.contains(culprit) && error.contains("keys") && !error.contains("0707"), "{error}");
    }
    assert!(!lab.weft("network ls").ok().contains(" x "), "nothing half-made");
    write_keys(&lab, &key(7));
    create(&with_file).ok();
    assert!(lab.weft("vxlan rekey bridge").fails().contains("bridge"));
    let saved = fs::read_to_string(lab.state_dir().join("state.json")).unwrap_or_default();
    assert!(!saved.is_empty() && !saved.contains(&key(7)), "the secret is in its own file alone");
    lab.weft("network rm x").ok();
}
