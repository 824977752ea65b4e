//! Writes the corpus that fuzzing starts from: `cargo run --example seed_corpus` in this folder.

use std::{fs, io, path::Path};

use weft_packet::checksum::{fold, pseudo_header, sum};

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let write = |target: &str, name: &str, bytes: &[u8]| {
        fs::create_dir_all(corpus.join(target))?;
        fs::write(corpus.join(target).join(name), bytes)
    };
    for (name, bytes) in frames() {
        write("frame_parse", name, &bytes)?;
        write("vnet_frame", name, &[&[0; 10], &bytes[..]].concat())?;
    }
    for (name, bytes) in vnet_frames() {
        write("vnet_frame", name, &bytes)?;
    }
    for (name, bytes) in tunnels() {
        write("vxlan", name, &bytes)?;
    }
    write("pcap", "each", b"\x00\x04eth0\x05\x06\x01\x02\x03\x04\x05\x06\x02\x03abc\x03\x00")?;
    write("pcap", "long", &[&[0x81, 255][..], &[b'x'; 70_000]].concat())
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

fn ethernet(tags: &[[u8; 4]], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1][..], &tags.concat(), &ethertype.to_be_bytes(), payload].concat()
}

fn ipv4(protocol: u8, options: &[u8], fragment: u16, l4: &[u8]) -> Vec<u8> {
    let header_len = 20 + options.len();
    let mut ip = vec![0x40 | (header_len / 4) as u8, 0, 0, 0, 0, 9, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    ip.extend(options);
    ip[2..4].copy_from_slice(&((header_len + l4.len()) as u16).to_be_bytes());
    ip[6..8].copy_from_slice(&fragment.to_be_bytes());
    let checksum = !fold(sum(&ip));
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    [&ip, l4].concat()
}

/// `headers` are extension headers with their own next-header bytes; `next` names the first.
fn ipv6(next: u8, headers: &[u8], l4: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x60, 0, 0, 0, 0, 0, next, 255, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    ip.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    ip[4..6].copy_from_slice(&((headers.len() + l4.len()) as u16).to_be_bytes());
    [&ip, headers, l4].concat()
}

fn tcp(flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut l4 = vec![4, 210, 0, 80, 0xff, 0xff, 0xff, 0, 0, 0, 0, 1, (5 + options.len() as u8 / 4) << 4, flags, 1, 0, 0, 0, 0, 0];
    l4.extend(options);
    l4.extend(payload);
    l4
}

fn udp(ports: [u8; 4], payload: &[u8]) -> Vec<u8> {
    [&ports, &((8 + payload.len()) as u16).to_be_bytes()[..], &[0, 0], payload].concat()
}

/// An L4 packet with its checksum: finished, or the pseudo-header's only.
fn summed(ip: Vec<u8>, l4_at: usize, protocol: u8, partial: bool) -> Vec<u8> {
    let mut ip = ip;
    let field = l4_at + match protocol { TCP => 16, UDP => 6, _ => 2 };
    let length = ip.len() - l4_at;
    let pseudo = if protocol == 1 { 0 } else { pseudo_header(&ip, protocol, length).expect("an IP header") };
    ip[field..field + 2].fill(0);
    let value = if partial { fold(pseudo) } else { !fold(pseudo + sum(&ip[l4_at..])) };
    ip[field..field + 2].copy_from_slice(&value.to_be_bytes());
    ip
}

fn data(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

const CTAG: [u8; 4] = [0x81, 0, 0, 5];
const STAG: [u8; 4] = [0x88, 0xa8, 0xa0, 6];
const SYN_OPTIONS: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];

fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let arp = |operation: u8, target: [u8; 6]| {
        [&[0, 1, 8, 0, 6, 4, 0, operation, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1][..], &target, &[10, 0, 0, 2]].concat()
    };
    let ndp = |kind: u8, option: u8| {
        let message = [&[kind, 0, 0, 0, 0x60, 0, 0, 0, 0xfe, 0x80][..], &[0; 13], &[2, option, 1, 2, 0, 0, 0, 0, 1]].concat();
        ethernet(&[], 0x86dd, &summed(ipv6(ICMPV6, &[], &message), 40, ICMPV6, false))
    };
    let echo = [8, 0, 0, 0, 0, 1, 0, 1, b'w', b'e', b'f', b't'];
    let udp4 = summed(ipv4(UDP, &[], 0, &udp([0, 53, 4, 210], b"answer")), 20, UDP, false);
    let tcp4 = summed(ipv4(TCP, &[], 0x4000, &tcp(ACK, &[], &data(100))), 20, TCP, false);
    let tcp6 = summed(ipv6(TCP, &[], &tcp(ACK, &[], &data(100))), 40, TCP, false);
    let syn4 = summed(ipv4(TCP, &[], 0x4000, &tcp(SYN, &SYN_OPTIONS, &[])), 20, TCP, false);
    let syn6 = summed(ipv6(TCP, &[], &tcp(SYN, &SYN_OPTIONS, &[])), 40, TCP, false);
    let dhcp = udp([0, 68, 0, 67], &[&[1, 1, 6, 0, 1, 2, 3, 4][..], &[0; 228], &[99, 130, 83, 99, 53, 1, 1, 255]].concat());
    let extensions = [0, 0, 1, 4, 0, 0, 0, 0].repeat(11);
    let mut vector = vec![
        ("arp_request", ethernet(&[], 0x0806, &arp(1, [0; 6]))),
        ("arp_reply", ethernet(&[], 0x0806, &arp(2, [2, 0, 0, 0, 0, 2]))),
        ("arp_cut", ethernet(&[], 0x0806, &arp(1, [0; 6])[..27])),
        ("ndp_solicitation", ndp(135, 1)),
        ("ndp_advertisement", ndp(136, 2)),
        ("ndp_router", ndp(134, 1)),
        ("ndp_redirect", ndp(137, 4)),
        ("echo4", ethernet(&[], 0x0800, &summed(ipv4(1, &[], 0, &echo), 20, 1, false))),
        ("echo6", ethernet(&[], 0x86dd, &summed(ipv6(ICMPV6, &[], &[&[128], &echo[1..]].concat()), 40, ICMPV6, false))),
        ("tcp4_syn", ethernet(&[], 0x0800, &syn4)),
        ("tcp6_syn", ethernet(&[], 0x86dd, &syn6)),
        ("tcp4", ethernet(&[], 0x0800, &tcp4)),
        ("tcp6", ethernet(&[], 0x86dd, &tcp6)),
        ("udp4", ethernet(&[], 0x0800, &udp4)),
        ("udp4_unsummed", ethernet(&[], 0x0800, &ipv4(UDP, &[], 0, &udp([0, 53, 4, 210], b"answer")))),
        ("udp6", ethernet(&[], 0x86dd, &summed(ipv6(UDP, &[], &udp([0, 53, 4, 210], b"answer")), 40, UDP, false))),
        ("dhcp", ethernet(&[], 0x0800, &ipv4(UDP, &[], 0, &dhcp))),
        ("lldp", ethernet(&[], 0x88cc, &[2, 7, 4, 2, 0, 0, 0, 0, 1, 4, 2, 7, b'p', 6, 2, 0, 120, 0, 0])),
        ("vlan_udp4", ethernet(&[CTAG], 0x0800, &udp4)),
        ("qinq_tcp6", ethernet(&[STAG, CTAG], 0x86dd, &tcp6)),
        ("three_tags", ethernet(&[STAG, CTAG, CTAG], 0x0800, &udp4)),
        ("tag_cut", ethernet(&[], 0x8100, &[0])),
        ("options4", ethernet(&[], 0x0800, &summed(ipv4(TCP, &[148, 4, 0, 0], 0, &tcp(SYN, &SYN_OPTIONS, &[])), 24, TCP, false))),
        ("first_fragment4", ethernet(&[], 0x0800, &ipv4(UDP, &[], 0x2000, &udp([0, 53, 4, 210], &data(16))))),
        ("later_fragment4", ethernet(&[], 0x0800, &ipv4(UDP, &[], 0x0003, &data(24)))),
        ("extensions6", ethernet(&[], 0x86dd, &ipv6(0, &[43, 0, 1, 4, 0, 0, 0, 0, 60, 0, 0, 1, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0], &tcp(SYN, &SYN_OPTIONS, &[])))),
        ("fragment6", ethernet(&[], 0x86dd, &ipv6(44, &[17, 0, 0, 1, 0, 0, 0, 9], &udp([0, 53, 4, 210], &data(16))))),
        ("extensions_beyond_the_bound", ethernet(&[], 0x86dd, &ipv6(0, &extensions, &tcp(ACK, &[], &[])))),
        ("extension_cut", ethernet(&[], 0x86dd, &ipv6(0, &[6, 9, 0, 0, 0, 0, 0, 0], &[]))),
        ("runt", vec![0xff; 13]),
    ];
    let lie = |bytes: &[u8], at: usize, value: u8| {
        let mut bytes = bytes.to_vec();
        bytes[at] = value;
        bytes
    };
    let (tcp4, syn4) = (ethernet(&[], 0x0800, &tcp4), ethernet(&[], 0x0800, &syn4));
    vector.extend([
        ("padded", [&ethernet(&[], 0x0800, &udp4)[..], &[0; 12]].concat()),
        ("lie_total_longer", lie(&tcp4, 17, 255)),
        ("lie_total_shorter", lie(&tcp4, 17, 3)),
        ("lie_header_length", lie(&tcp4, 14, 0x4f)),
        ("lie_version", lie(&tcp4, 14, 0x65)),
        ("lie_data_offset", lie(&tcp4, 46, 0xf0)),
        ("lie_data_offset_short", lie(&tcp4, 46, 0x10)),
        ("lie_option_length", lie(&syn4, 55, 0)),
        ("lie_option_beyond", lie(&syn4, 55, 255)),
        ("wrong_checksum", lie(&tcp4, 100, 0xee)),
    ]);
    vector
}

/// Records of the target `vxlan`: kind, length, bytes.
fn tunnels() -> Vec<(&'static str, Vec<u8>)> {
    let record = |kind: u8, bytes: &[u8]| [&[kind][..], &(bytes.len() as u16).to_be_bytes(), bytes].concat();
    let header = |flags: u8, vni: u8| [flags, 0, 0, 0, 0, 0, vni, 0];
    let inner = ethernet(&[], 0x0800, &summed(ipv4(UDP, &[], 0, &udp([0, 53, 4, 210], &data(100))), 20, UDP, false));
    let arp = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2]].concat();
    let super_frame = virtio(1, 1, 1400, 34, 16, &ethernet(&[], 0x0800, &summed(ipv4(TCP, &[], 0x4000, &tcp(0x10, &[], &data(9000))), 20, TCP, true)));
    let clear = [&header(8, 42)[..], &inner].concat();
    let sealed = [&header(0x40, 43)[..], &[0, 0, 0, 2], &[0; 8], &1_u64.to_be_bytes(), &inner, &[0; 16]].concat();
    let plain = virtio(0, 0, 0, 0, 0, &inner);
    vec![
        ("clear", record(0, &clear)),
        ("clear_into_the_encrypted", record(0, &[&header(8, 43)[..], &inner].concat())),
        ("sealed", record(0, &sealed)),
        ("sealed_into_the_clear", record(0, &[&header(0x40, 42)[..], &sealed[8..]].concat())),
        ("train", record(1, &[&(clear.len() as u16).to_be_bytes()[..], &clear, &clear, &clear, &clear[..60]].concat())),
        ("mixed_train", record(1, &[&(clear.len() as u16).to_be_bytes()[..], &clear, &sealed[..clear.len()], &clear].concat())),
        ("sealed_train", record(1, &[&(sealed.len() as u16).to_be_bytes()[..], &sealed, &sealed].concat())),
        ("arp_suppressed", record(2, &virtio(0, 0, 0, 0, 0, &arp))),
        ("across", [record(2, &plain), record(3, &plain), record(5, &[1, 200]), record(2, &plain)].concat()),
        ("super_frames", [record(2, &super_frame), record(3, &super_frame)].concat()),
        ("damaged", record(4, &[&[0, 77][..], &plain].concat())),
        ("damaged_super_frame", record(4, &[&[3, 1][..], &super_frame].concat())),
        ("short", record(0, &clear[..7])),
    ]
}

fn virtio(flags: u8, gso: u8, size: u16, start: u16, offset: u16, frame: &[u8]) -> Vec<u8> {
    let [size, start, offset] = [size, start, offset].map(u16::to_le_bytes);
    [&[flags, gso, 0, 0], &size[..], &start, &offset, frame].concat()
}

fn vnet_frames() -> Vec<(&'static str, Vec<u8>)> {
    let tcp4 = ethernet(&[], 0x0800, &summed(ipv4(TCP, &[], 0x4000, &tcp(0x99, &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2], &data(4000))), 20, TCP, true));
    let tcp6 = ethernet(&[], 0x86dd, &summed(ipv6(TCP, &[], &tcp(0x19, &[], &data(4000))), 40, TCP, true));
    let tagged = ethernet(&[CTAG], 0x0800, &tcp4[14..]);
    let udp4 = ethernet(&[], 0x0800, &summed(ipv4(UDP, &[], 0, &udp([0, 53, 4, 210], &data(2500))), 20, UDP, true));
    let udp6 = ethernet(&[], 0x86dd, &summed(ipv6(UDP, &[], &udp([0, 53, 4, 210], &data(2500))), 40, UDP, true));
    let routed = [60, 2, 4, 1, 0, 0, 0, 0, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 6, 0, 1, 4, 0, 0, 0, 0];
    let behind = ethernet(&[], 0x86dd, &summed(ipv6(43, &routed, &tcp(0x19, &[], &data(4000))), 40 + routed.len(), TCP, true));
    vec![
        ("partial_tcp4", virtio(1, 0, 0, 34, 16, &tcp4)),
        ("partial_udp6", virtio(1, 0, 0, 54, 6, &udp6)),
        ("super_tcp4", virtio(1, 1, 1448, 34, 16, &tcp4)),
        ("super_tcp4_ecn", virtio(1, 0x81, 1448, 34, 16, &tcp4)),
        ("super_tcp4_tagged", virtio(1, 1, 1448, 38, 16, &tagged)),
        ("super_tcp6", virtio(1, 4, 1428, 54, 16, &tcp6)),
        ("super_tcp6_routed", virtio(1, 4, 1428, 54 + 32, 16, &behind)),
        ("super_udp4", virtio(1, 5, 1000, 34, 6, &udp4)),
        ("super_udp6", virtio(1, 5, 1000, 54, 6, &udp6)),
        ("super_of_small_pieces", virtio(1, 1, 8, 34, 16, &tcp4)),
        ("super_in_one_piece", virtio(1, 1, 65535, 34, 16, &tcp4)),
        ("lie_family", virtio(1, 4, 1448, 34, 16, &tcp4)),
        ("lie_protocol", virtio(1, 5, 1448, 34, 6, &tcp4)),
        ("lie_start", virtio(1, 1, 1448, 33, 16, &tcp4)),
        ("lie_start_in_ethernet", virtio(1, 0, 0, 3, 2, &tcp4)),
        ("lie_start_last", virtio(1, 0, 0, u16::MAX, 0, &[0; 65_540])),
        ("lie_offset_last", virtio(1, 0, 0, 34, (tcp4.len() - 36) as u16, &tcp4)),
        ("lie_offset_beyond", virtio(1, 0, 0, 34, (tcp4.len() - 35) as u16, &tcp4)),
        ("lie_size_nothing", virtio(1, 1, 0, 34, 16, &tcp4)),
        ("lie_without_checksum", virtio(0, 1, 1448, 34, 16, &tcp4)),
        ("lie_unknown_gso", virtio(1, 3, 1448, 34, 16, &udp4)),
        ("header_alone", virtio(0, 0, 0, 0, 0, &[])),
        ("header_cut", vec![0; 9]),
    ]
}
