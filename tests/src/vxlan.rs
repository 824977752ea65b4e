//! VXLAN by hand, to send what no VTEP would.

use std::net::UdpSocket;

use netns_setup::Netns;

use crate::ns::Ns;

/// A socket in a namespace, on a port of its own.
///
/// # Panics
/// When the namespace is gone.
#[must_use]
pub fn socket_in(ns: &Ns) -> UdpSocket {
    let netns = Netns::open_path(ns.path()).expect("the namespace opens");
    netns.run(|| Ok(UdpSocket::bind("0.0.0.0:0"))).expect("the namespace").expect("a socket")
}

/// The header (RFC 7348 section 5).
#[must_use]
pub fn header(vni: u32) -> [u8; 8] {
    (u64::from(0x0800_0000_u32) << 32 | u64::from(vni) << 8).to_be_bytes()
}

/// A datagram with a broadcast frame from `source`, of no protocol in use.
#[must_use]
pub fn broadcast(vni: u32, source: [u8; 6]) -> Vec<u8> {
    [&header(vni)[..], &[0xff; 6], &source, &[0x88, 0xb5], &[0; 46]].concat()
}
