//! Questions as bytes, answers as bytes; a real parser between is the library's own.

use std::net::IpAddr;

use proptest::prelude::*;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, Question, RCODE, TYPE, rdata::{OPT, RData}};

use super::{Asked, Files, Handled, Surroundings, Transport, Zone, handle, nameservers, reply_servfail};
use crate::{
    EndpointKind, Model, Protocol, Published,
    api::{EndpointCreate, NetworkCreate, SandboxCreate},
};

fn id(number: u32) -> String {
    format!("{number:064x}")
}

/// Two networks; `web1` and `web2` share the alias `web`, `db` has a host name.
fn model() -> Model {
    let mut model = Model::default();
    for (number, name, subnet, internal) in [(1, "lab", "10.9.0.0/24", false), (2, "back", "10.8.0.0/24", true)] {
        let request = NetworkCreate { name: name.into(), subnets: vec![subnet.parse().unwrap(), format!("fd0{number}::/64").parse().unwrap()], internal, ..NetworkCreate::default() };
        model.create_network(&request, id(number)).unwrap();
    }
    for (number, name, hostname, networks, aliases) in [
        (0x10, "web1", None, &["lab"][..], &["web"][..]),
        (0x11, "web2", None, &["lab"], &["Web"]),
        (0x12, "DB.main", Some("box"), &["lab", "back"], &[]),
    ] {
        let request = SandboxCreate { name: Some(name.into()), hostname: hostname.map(Into::into), ..SandboxCreate::default() };
        let sandbox = model.create_sandbox(&request, format!("{number:x}").repeat(32)).unwrap();
        for network in networks {
            let request = EndpointCreate { network: (*network).into(), aliases: aliases.iter().map(|alias| (*alias).into()).collect(), ..EndpointCreate::default() };
            model.create_endpoint(&sandbox, &request, format!("{number:x}{network}").repeat(9), EndpointKind::Tap).unwrap();
        }
    }
    if let Some(sandbox) = model.sandboxes.get_mut(&id_of(&model, "web1")) {
        sandbox.publishes.push(Published { host_ip: None, host_port: 8888, port: 8080, protocol: Protocol::Tcp });
    }
    model
}

fn id_of(model: &Model, sandbox: &str) -> String {
    model.sandbox(sandbox).unwrap().id.clone()
}

fn zone() -> Zone {
    Zone::of(&model(), &[id(1)].into())
}

fn question(name: &str, kind: TYPE) -> Packet<'_> {
    let mut packet = Packet::new_query(77);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(Name::new(name).unwrap(), QTYPE::TYPE(kind), CLASS::IN.into(), false));
    packet
}

fn query(name: &str, kind: TYPE) -> Vec<u8> {
    question(name, kind).build_bytes_vec().unwrap()
}

fn answer(zone: &Zone, message: &[u8], turn: usize) -> Vec<u8> {
    match handle(zone, message, Transport::Udp, turn) {
        Handled::Answer(bytes) => bytes,
        other => panic!("{other:?}"),
    }
}

/// Code and records, in words.
fn said(zone: &Zone, name: &str, kind: TYPE, turn: usize) -> (RCODE, Vec<String>) {
    let bytes = answer(zone, &query(name, kind), turn);
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!((packet.id(), packet.questions[0].qname.to_string().as_str()), (77, name));
    assert!(packet.has_flags(PacketFlag::RESPONSE | PacketFlag::RECURSION_DESIRED | PacketFlag::RECURSION_AVAILABLE));
    let records = packet.answers.iter().map(|record| {
        assert!(record.ttl <= 5);
        match &record.rdata {
            RData::A(a) => std::net::Ipv4Addr::from(a.address).to_string(),
            RData::AAAA(aaaa) => std::net::Ipv6Addr::from(aaaa.address).to_string(),
            RData::PTR(name) => name.0.to_string(),
            RData::SRV(srv) => format!("{} {}", srv.port, srv.target),
            other => panic!("{other:?}"),
        }
    });
    (packet.rcode(), records.collect())
}

fn ok(records: &[&str]) -> (RCODE, Vec<String>) {
    (RCODE::NoError, records.iter().map(|&record| record.to_owned()).collect())
}

#[test]
fn each_name_of_a_sandbox_leads_to_it() {
    let zone = zone();
    for name in ["web1", "WEB1", "web1.lab", "Web1.LAB", &"10".repeat(6)] {
        assert_eq!(said(&zone, name, TYPE::A, 0), ok(&["10.9.0.2"]), "{name}");
        assert_eq!(said(&zone, name, TYPE::AAAA, 0), ok(&["fd01::2"]), "{name}");
    }
    for name in ["db.main", "box", "box.lab", "db.main.lab"] {
        assert_eq!(said(&zone, name, TYPE::A, 0), ok(&["10.9.0.4"]), "{name}");
    }
}

#[test]
fn a_shared_alias_is_all_of_them_and_each_is_first_once() {
    let zone = zone();
    assert_eq!(said(&zone, "web", TYPE::A, 0), ok(&["10.9.0.2", "10.9.0.3"]));
    assert_eq!(said(&zone, "web", TYPE::A, 1), ok(&["10.9.0.3", "10.9.0.2"]));
    assert_eq!(said(&zone, "web.lab", TYPE::A, usize::MAX).1.len(), 2);
}

#[test]
fn endpoints_that_are_down_are_no_answer() {
    let mut model = model();
    let web1 = id_of(&model, "web1");
    model.sandboxes.get_mut(&web1).unwrap().endpoints[0].up = false;
    let zone = Zone::of(&model, &[id(1)].into());
    assert_eq!(said(&zone, "web", TYPE::A, 0), ok(&["10.9.0.3"]));
    assert_eq!(said(&zone, "web1", TYPE::A, 0), (RCODE::NameError, vec![]));
}

#[test]
fn no_data_is_not_no_name() {
    let zone = zone();
    assert_eq!(said(&zone, "web1", TYPE::MX, 0), ok(&[]));
    assert_eq!(said(&zone, "web1", TYPE::TXT, 0), ok(&[]));
    assert_eq!(said(&zone, "nobody", TYPE::A, 0), (RCODE::NameError, vec![]));
    assert!(matches!(handle(&zone, &query("example.com", TYPE::A), Transport::Udp, 0), Handled::Forward(_)));
}

#[test]
fn addresses_to_names() {
    let zone = zone();
    assert_eq!(said(&zone, "2.0.9.10.in-addr.arpa", TYPE::PTR, 0), ok(&["web1.lab"]));
    assert_eq!(said(&zone, "2.0.9.10.IN-ADDR.ARPA", TYPE::A, 0), ok(&[]));
    let v6 = format!("2{}1.0.d.f.ip6.arpa", ".0".repeat(27) + ".");
    assert_eq!(said(&zone, &v6, TYPE::PTR, 0), ok(&["web1.lab"]));
    assert_eq!(said(&zone, "99.0.9.10.in-addr.arpa", TYPE::PTR, 0), (RCODE::NameError, vec![]), "ours, and nobody's");
    assert!(matches!(handle(&zone, &query("8.8.8.8.in-addr.arpa", TYPE::PTR), Transport::Udp, 0), Handled::Forward(_)));
}

#[test]
fn published_ports_are_services() {
    let zone = zone();
    assert_eq!(said(&zone, "_http._tcp.web1", TYPE::SRV, 0), ok(&["8080 web1"]));
    assert_eq!(said(&zone, "_HTTP._tcp.Web", TYPE::SRV, 0), ok(&["8080 web1"]));
    assert_eq!(said(&zone, "_8080._tcp.web1.lab", TYPE::SRV, 0), ok(&["8080 web1"]));
    assert_eq!(said(&zone, "_http._tcp.web1", TYPE::A, 0), ok(&[]));
    assert_eq!(said(&zone, "_http._udp.web1", TYPE::SRV, 0), (RCODE::NameError, vec![]));
    assert_eq!(said(&zone, "_http._tcp.web2", TYPE::SRV, 0), (RCODE::NameError, vec![]));
    let bytes = answer(&zone, &query("_http._tcp.web1", TYPE::SRV), 0);
    assert_eq!(Packet::parse(&bytes).unwrap().additional_records.len(), 2, "with its addresses");
}

#[test]
fn a_network_may_keep_names_to_itself() {
    let mut model = model();
    model.networks.get_mut(&id(1)).unwrap().names = false;
    let zone = Zone::of(&model, &[id(1)].into());
    assert_eq!(said(&zone, "web1", TYPE::A, 0), (RCODE::NameError, vec![]));
}

#[test]
fn views_of_several_networks() {
    let model = model();
    let both = Zone::of(&model, &[id(1), id(2)].into());
    assert_eq!(said(&both, "box", TYPE::A, 0), ok(&["10.8.0.2", "10.9.0.4"]));
    assert_eq!(said(&both, "box.back", TYPE::A, 0), ok(&["10.8.0.2"]));
    assert_eq!(said(&both, "web1", TYPE::A, 0), ok(&["10.9.0.2"]));
    assert_eq!(said(&Zone::of(&model, &[id(2)].into()), "web1", TYPE::A, 0).0, RCODE::NameError);
}

/// A service of so many that its answer is too long.
fn crowded() -> Zone {
    let mut model = Model::default();
    model.create_network(&NetworkCreate { name: "lab".into(), subnets: vec!["10.9.0.0/16".parse().unwrap()], ..NetworkCreate::default() }, id(1)).unwrap();
    for number in 0x1000..0x1000 + 2000_u32 {
        let sandbox = model.create_sandbox(&SandboxCreate { name: Some(format!("s{number}")), ..SandboxCreate::default() }, id(number)).unwrap();
        model.create_endpoint(&sandbox, &EndpointCreate { network: "lab".into(), aliases: vec!["all".into()], ..EndpointCreate::default() }, id(number + 100_000), EndpointKind::Tap).unwrap();
    }
    Zone::of(&model, &[id(1)].into())
}

#[test]
fn too_long_for_udp_says_so_and_goes_by_tcp() {
    let zone = crowded();
    let plain = answer(&zone, &query("all", TYPE::A), 0);
    assert!(plain.len() <= 512 && Packet::parse(&plain).unwrap().has_flags(PacketFlag::TRUNCATION));
    let mut asked = question("all", TYPE::A);
    *asked.opt_mut() = Some(OPT { opt_codes: vec![], udp_packet_size: 4096, version: 0 });
    let extended = answer(&zone, &asked.build_bytes_vec().unwrap(), 0);
    let packet = Packet::parse(&extended).unwrap();
    assert!(extended.len() <= 1232 && packet.has_flags(PacketFlag::TRUNCATION) && packet.opt().is_some());
    let Handled::Answer(whole) = handle(&zone, &query("all", TYPE::A), Transport::Tcp, 5) else { panic!() };
    let packet = Packet::parse(&whole).unwrap();
    assert!(!packet.has_flags(PacketFlag::TRUNCATION) && packet.answers.len() == 1024);
}

#[test]
fn what_is_no_question_is_told_so() {
    let zone = zone();
    let mut message = query("web1", TYPE::A);
    let code = |message: &[u8]| {
        let bytes = answer(&zone, message, 0);
        assert_eq!((&bytes[..2], bytes[2] & 0x80), (&message[..2], 0x80));
        bytes[3] & 0xf
    };
    message[5] = 2;
    assert_eq!(code(&message), 1, "two questions");
    message[5] = 0;
    assert_eq!(code(&message), 1, "none");
    message[5] = 1;
    for opcode in [1, 2, 3, 4, 5, 6, 15] {
        message[2] = opcode << 3;
        assert_eq!(code(&message), 4, "opcode {opcode}");
        assert_eq!(answer(&zone, &message, 0)[2] & 0x78, opcode << 3);
    }
    message[2] = 0x80;
    assert_eq!(handle(&zone, &message, Transport::Udp, 0), Handled::Ignore, "an answer");
    assert_eq!(code(&query("web1", TYPE::A)[..20]), 1, "cut");
    let mut version = question("web1", TYPE::A);
    *version.opt_mut() = Some(OPT { opt_codes: vec![], udp_packet_size: 1232, version: 1 });
    assert_eq!(Packet::parse(&answer(&zone, &version.build_bytes_vec().unwrap(), 0)).unwrap().rcode(), RCODE::BADVERS);
    let mut transfer = question("lab", TYPE::A);
    transfer.questions[0].qtype = QTYPE::AXFR;
    assert_eq!(code(&transfer.build_bytes_vec().unwrap()), 5);
}

#[test]
fn only_its_own_answer_answers_a_question() {
    let sent = query("Example.com", TYPE::AAAA);
    let Handled::Forward(asked) = handle(&zone(), &sent, Transport::Udp, 0) else { panic!() };
    let check = |asked: &Asked, change: &dyn Fn(&mut Vec<u8>)| {
        let mut answer = sent.clone();
        answer[2] |= 0x80;
        change(&mut answer);
        asked.is_answered_by(77, &answer)
    };
    assert!(check(&asked, &|_| ()));
    assert!(check(&asked, &|answer| answer[13] = b'e'), "another case");
    for (what, change) in [
        ("id", &(|answer: &mut Vec<u8>| answer[1] ^= 1) as &dyn Fn(&mut Vec<u8>)),
        ("a question", &|answer| answer[2] &= 0x7f),
        ("name", &|answer| answer[14] = b'y'),
        ("type", &|answer| *answer.iter_mut().rev().nth(2).unwrap() = 1),
        ("count", &|answer| answer[5] = 0),
        ("cut", &|answer| answer.truncate(20)),
        ("empty", &|answer| answer.clear()),
    ] {
        assert!(!check(&asked, change), "{what}");
    }
    let failed = reply_servfail(&sent);
    assert!(asked.is_answered_by(77, &failed) && failed[3] & 0xf == 2);
}

#[test]
fn files_of_a_sandbox() {
    let mut model = model();
    let request = SandboxCreate {
        name: Some("app".into()),
        dns_option: vec!["rotate".into()],
        add_host: vec!["files:10.1.1.1".into(), "host:host-gateway".into()],
        link: vec!["web1:front".into()],
        endpoints: vec![EndpointCreate { network: "lab".into(), ..EndpointCreate::default() }],
        ..SandboxCreate::default()
    };
    let host = Surroundings { resolv_conf: "nameserver 9.9.9.9\nsearch example.com\n".into(), address: Some("192.0.2.7".parse().unwrap()) };
    let app = model.create_sandbox(&request, id(0x20)).unwrap();
    let alone = Files::of(&model, model.sandbox(&app).unwrap(), &host);
    assert_eq!(alone.resolv_conf, host.resolv_conf, "nobody here answers");
    for network in ["back", "lab"] {
        model.create_endpoint(&app, &EndpointCreate { network: network.into(), ..EndpointCreate::default() }, format!("{network}x").repeat(9), EndpointKind::Tap).unwrap();
    }
    let files = Files::of(&model, model.sandbox(&app).unwrap(), &host);
    let lines: Vec<_> = files.resolv_conf.lines().skip(1).collect();
    assert_eq!(lines, ["nameserver 10.9.0.1", "nameserver fd01::1", "nameserver 10.8.0.1", "search example.com", "options rotate ndots:0"]);
    assert!(files.hosts.starts_with("127.0.0.1\tlocalhost\n"));
    for line in ["10.9.0.5\tapp\n", "fd02::3\tapp\n", "10.1.1.1\tfiles\n", "192.0.2.7\thost\n", "10.9.0.2\tfront web1\n"] {
        assert!(files.hosts.contains(line), "{line} in {}", files.hosts);
    }
    assert_eq!(files.hostname, "app\n");
    assert_eq!(nameservers("# nameserver 1.1.1.1\nnameserver\t8.8.8.8\nnameserver fe80::1%eth0\n nameserver ::1\n"), ["8.8.8.8".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]);
}

#[test]
fn refusals_about_names_name_their_part() {
    let model = model();
    let of = |change: &dyn Fn(&mut SandboxCreate)| {
        let mut request = SandboxCreate { name: Some("x".into()), endpoints: vec![EndpointCreate { network: "back".into(), ..EndpointCreate::default() }], ..SandboxCreate::default() };
        change(&mut request);
        model.clone().create_sandbox(&request, id(0x30)).unwrap_err().message
    };
    assert!(of(&|request| request.dns = vec!["10.9.0.2".parse().unwrap()]).contains("10.9.0.2"));
    assert!(of(&|request| request.link = vec!["web1".into()]).contains("web1"));
    assert!(of(&|request| request.link = vec!["gone".into()]).contains("gone"));
    assert!(of(&|request| request.hostname = Some("a b".into())).contains("a b"));
    assert!(of(&|request| {
        request.netns = crate::NetnsTarget::Host;
        request.add_host = vec!["a:1.1.1.1".into()];
    })
    .contains("--add-host"));
}

proptest! {
    #[test]
    fn rubbish_is_answered_or_ignored(bytes in proptest::collection::vec(any::<u8>(), 0..700), turn in any::<usize>()) {
        check_any(&bytes, turn);
    }

    #[test]
    fn so_are_damaged_questions(at in 0..40_usize, value in any::<u8>(), cut in 0..60_usize, turn in any::<usize>()) {
        for name in ["web.lab", "_http._tcp.web1", "2.0.9.10.in-addr.arpa"] {
            let mut asked = question(name, TYPE::A);
            *asked.opt_mut() = Some(OPT { opt_codes: vec![], udp_packet_size: 600, version: 0 });
            let mut bytes = asked.build_bytes_vec().unwrap();
            let at = at % bytes.len();
            bytes[at] = value;
            bytes.truncate(cut.max(1));
            check_any(&bytes, turn);
        }
    }
}

fn check_any(bytes: &[u8], turn: usize) {
    match handle(&zone(), bytes, Transport::Udp, turn) {
        Handled::Answer(answer) => assert!((12..=1232).contains(&answer.len()) && answer[..2] == bytes[..2] && answer[2] & 0x80 != 0),
        Handled::Forward(asked) => assert!(!asked.is_answered_by(0, bytes) || bytes[2] & 0x80 != 0),
        Handled::Ignore => assert!(bytes.len() < 12 || bytes[2] & 0x80 != 0),
    }
    assert!(reply_servfail(bytes).len() >= 12);
}
