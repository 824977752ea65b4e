//! Frames for tests.

use packet::{Checksum, Frame, Gso, Offload, Pool, checksum};

pub(crate) const HERE: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const THERE: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn be(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap().to_be_bytes()
}

/// A frame from [`HERE`] to [`THERE`], with the pseudo-header's sum in the checksum field.
fn partial(ipv6: bool, protocol: u8, l4: &[u8], field: usize) -> Vec<u8> {
    let mut ip = if ipv6 {
        let mut ip = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
        ip.extend([0xfd; 16]);
        ip.extend([0xfc; 16]);
        ip[4..6].copy_from_slice(&be(l4.len()));
        ip
    } else {
        let mut ip = vec![0x45, 0, 0, 0, 0, 7, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        ip[2..4].copy_from_slice(&be(20 + l4.len()));
        let sum = !checksum::fold(checksum::sum(&ip));
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        ip
    };
    let pseudo = checksum::fold(checksum::pseudo_header(&ip, protocol, l4.len()).unwrap());
    let at = ip.len() + field;
    ip.extend(l4);
    ip[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
    let ethertype: &[u8] = if ipv6 { &[0x86, 0xdd] } else { &[8, 0] };
    [&THERE[..], &HERE, ethertype, &ip].concat()
}

fn udp(ipv6: bool, from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let l4 = [&from.to_be_bytes()[..], &to.to_be_bytes(), &be(8 + payload.len()), &[0, 0], payload].concat();
    finished(partial(ipv6, 17, &l4, 6), ipv6, 6)
}

fn finished(mut bytes: Vec<u8>, ipv6: bool, field: usize) -> Vec<u8> {
    let start = if ipv6 { 54 } else { 34 };
    let sum = match !checksum::fold(checksum::sum(&bytes[start..])) {
        0 if field == 6 => 0xffff,
        sum => sum,
    };
    bytes[start + field..start + field + 2].copy_from_slice(&sum.to_be_bytes());
    assert!(checksum::verify(&bytes));
    bytes
}

pub(crate) fn udp4(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    udp(false, from, to, payload)
}

pub(crate) fn udp6(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    udp(true, from, to, payload)
}

/// TCP or UDP with `payload`, to be cut into segments of `size` bytes; `size` 0: only its checksum is to be finished.
pub(crate) fn super_frame(pool: &Pool, ipv6: bool, tcp: bool, payload: &[u8], size: u16) -> Frame {
    let (protocol, field) = if tcp { (6, 16) } else { (17, 6) };
    let header = if tcp {
        vec![0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]
    } else {
        [&[0x30, 0x39, 0, 80][..], &be(8 + payload.len()), &[0, 0]].concat()
    };
    let mut frame = pool.copy_of(&partial(ipv6, protocol, &[&header, payload].concat(), field)).unwrap();
    let start = if ipv6 { 54 } else { 34 };
    frame.offload = Offload {
        checksum: Checksum::Partial { start, offset: u16::try_from(field).unwrap() },
        gso: match (size, tcp, ipv6) {
            (0, _, _) => Gso::None,
            (_, true, false) => Gso::Tcp4 { size, ecn: false },
            (_, true, true) => Gso::Tcp6 { size, ecn: false },
            (_, false, _) => Gso::Udp { size },
        },
    };
    frame
}

pub(crate) fn arp_request(sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    [&[0xff; 6][..], &HERE, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &HERE, &sender, &[0; 6], &target].concat()
}

/// A neighbour solicitation for `target` to its solicited-node group, with a source address option unless from `::`.
pub(crate) fn solicitation(source: [u8; 16], target: [u8; 16]) -> Vec<u8> {
    let [.., a, b, c] = target;
    let mut group = [0; 16];
    group[..2].copy_from_slice(&[0xff, 2]);
    group[11..].copy_from_slice(&[1, 0xff, a, b, c]);
    let option: &[u8] = if source == [0; 16] { &[] } else { &[1, 1, 2, 0, 0, 0, 0, 1] };
    let message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target, option].concat();
    let mut ip = [&[0x60, 0, 0, 0][..], &be(message.len()), &[58, 255], &source, &group].concat();
    let pseudo = checksum::pseudo_header(&ip, 58, message.len()).unwrap();
    let sum = !checksum::fold(checksum::sum(&message) + pseudo);
    ip.extend(message);
    ip[42..44].copy_from_slice(&sum.to_be_bytes());
    [&[0x33, 0x33, 0xff, a, b, c][..], &HERE, &[0x86, 0xdd], &ip].concat()
}
