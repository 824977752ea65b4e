//! Messages from strangers to a resolver: each is answered in form, passed on, or ignored.

use simple_dns::Packet;
use weft_control::{
    EndpointKind, Model,
    api::{EndpointCreate, NetworkCreate, SandboxCreate},
    names::{Handled, Transport, Zone, handle, reply_refused, reply_servfail},
};

/// One sandbox `web1`, called `web` too, on a network `lab` of both families.
fn zone() -> Zone {
    let mut model = Model::default();
    let request = NetworkCreate { name: "lab".into(), subnets: ["10.9.0.0/24", "fd09::/64"].map(|subnet| subnet.parse().expect("a subnet")).into(), ..NetworkCreate::default() };
    model.create_network(&request, "1".repeat(64)).expect("a network");
    model.create_sandbox(&SandboxCreate { name: Some("web1".into()), ..SandboxCreate::default() }, "2".repeat(64)).expect("a sandbox");
    let request = EndpointCreate { network: "lab".into(), aliases: vec!["web".into()], ..EndpointCreate::default() };
    model.create_endpoint(&"2".repeat(64), &request, "3".repeat(64), EndpointKind::Tap).expect("an endpoint");
    Zone::of(&model, &["1".repeat(64)].into())
}

pub fn names(message: &[u8]) {
    let zone = zone();
    for (transport, limit) in [(Transport::Udp, 1232), (Transport::Tcp, 65_535)] {
        match handle(&zone, message, transport, message.len()) {
            Handled::Answer(answer) => {
                assert!((12..=limit).contains(&answer.len()));
                assert!(answer[..2] == message[..2] && answer[2] & 0x80 != 0);
                let packet = Packet::parse(&answer);
                // A header alone repeats bits of whoever could not be understood.
                assert!(packet.is_ok() || answer.len() == 12);
            }
            Handled::Forward(asked) => {
                let mut echoed = message.to_vec();
                echoed[2] |= 0x80;
                let id = u16::from_be_bytes([message[0], message[1]]);
                assert!(asked.is_answered_by(id, &echoed) && !asked.is_answered_by(id, message) && !asked.is_answered_by(!id, &echoed));
                assert!(asked.is_answered_by(id, &reply_servfail(message)) && asked.is_answered_by(id, &reply_refused(message)));
            }
            Handled::Ignore => assert!(message.len() < 12 || message[2] & 0x80 != 0),
        }
    }
}
