use std::collections::BTreeMap;

use packet::{Parsed, PoolConfig, checksum};
use proptest::prelude::*;

use super::*;

const GATEWAY: Mac = Mac([2, 0x42, 10, 9, 0, 1]);
const OWN: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const DISCOVER: u8 = 1;
const OFFER_KIND: u8 = 2;
const REQUEST: u8 = 3;
const DECLINE: u8 = 4;
const ACK: u8 = 5;
const NAK: u8 = 6;
const RELEASE: u8 = 7;
const INFORM: u8 = 8;

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 0, last)
}

/// A client's message, made by hand.
#[derive(Clone, Debug)]
struct Message {
    from: u8,
    kind: u8,
    current: Ipv4Addr,
    broadcast: bool,
    relay: Ipv4Addr,
    options: Vec<(u8, Vec<u8>)>,
    to: Ipv4Addr,
}

fn message(from: u8, kind: u8) -> Message {
    Message { from, kind, current: Ipv4Addr::UNSPECIFIED, broadcast: false, relay: Ipv4Addr::UNSPECIFIED, options: vec![], to: Ipv4Addr::BROADCAST }
}

impl Message {
    fn requested(self, ip: Ipv4Addr) -> Self {
        self.with(50, &ip.octets())
    }

    fn server(self, ip: Ipv4Addr) -> Self {
        self.with(54, &ip.octets())
    }

    fn with(mut self, kind: u8, data: &[u8]) -> Self {
        self.options.push((kind, data.to_vec()));
        self
    }

    fn payload(&self) -> Vec<u8> {
        let mut bytes = vec![1, 1, 6, 0, 0xde, 0xad, 0xbe, self.from, 0, 0, if self.broadcast { 0x80 } else { 0 }, 0];
        bytes.extend(self.current.octets());
        bytes.extend([0; 8]);
        bytes.extend(self.relay.octets());
        bytes.extend([2, 0, 0, 0, 0, self.from]);
        bytes.resize(236, 0);
        bytes.extend([0x63, 0x82, 0x53, 0x63, 53, 1, self.kind]);
        for (kind, data) in &self.options {
            bytes.extend([*kind, u8::try_from(data.len()).unwrap()]);
            bytes.extend(data);
        }
        bytes.push(255);
        bytes
    }

    fn frame(&self) -> Vec<u8> {
        datagram(self.from, self.current, self.to, &self.payload())
    }
}

/// From port 68 to 67, without a UDP checksum.
fn datagram(from: u8, source: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let length = |more: usize| u16::try_from(payload.len() + more).unwrap().to_be_bytes();
    let mut ip = [&[0x45, 0][..], &length(28), &[0, 0, 0, 0, 64, 17, 0, 0], &source.octets(), &to.octets()].concat();
    let sum = !checksum::fold(checksum::sum(&ip));
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    [&[0xff; 6][..], &[2, 0, 0, 0, 0, from, 8, 0], &ip, &[0, 68, 0, 67], &length(8), &[0, 0], payload].concat()
}

/// An answer, taken apart by hand.
#[derive(Debug)]
struct Seen {
    kind: u8,
    yours: Ipv4Addr,
    to_mac: [u8; 6],
    to: Ipv4Addr,
    options: BTreeMap<u8, Vec<u8>>,
}

fn seen(frame: &Frame) -> Seen {
    let bytes = frame.bytes();
    assert!(checksum::verify(bytes));
    let parsed = Parsed::new(bytes).unwrap();
    let packet = parsed.ip.unwrap();
    assert_eq!((packet.source, bytes[6..12].to_vec(), &bytes[34..38]), (OWN.into(), GATEWAY.0.to_vec(), &[0, 67, 0, 68][..]));
    assert!(packet.length <= 576, "what every client takes");
    let dhcp = &bytes[packet.l4_offset + 8..packet.end()];
    assert_eq!((&dhcp[..3], &dhcp[236..240]), (&[2, 1, 6][..], &[0x63, 0x82, 0x53, 0x63][..]));
    assert!(dhcp.len() >= 300);
    let mut options = BTreeMap::new();
    let mut at = 240;
    while dhcp[at] != 255 {
        let end = at + 2 + usize::from(dhcp[at + 1]);
        assert!(options.insert(dhcp[at], dhcp[at + 2..end].to_vec()).is_none(), "each option once");
        at = end;
    }
    assert_eq!(options[&54], OWN.octets());
    let std::net::IpAddr::V4(to) = packet.destination else { panic!("{packet:?}") };
    Seen { kind: options[&53][0], yours: Ipv4Addr::new(dhcp[16], dhcp[17], dhcp[18], dhcp[19]), to_mac: bytes[..6].try_into().unwrap(), to, options }
}

struct Bench {
    server: Server,
    pool: Pool,
    now: Instant,
}

fn config(first: u8, last: u8) -> DhcpConfig {
    DhcpConfig { range: (ip(first), ip(last)), excluded: vec![], lease: Duration::from_secs(3600), is_router: true, mtu: 1400 }
}

fn bench_with(config: DhcpConfig) -> Bench {
    let server = Server::new(config, "10.9.0.1/24".parse().unwrap(), UnicastMac::new(GATEWAY).unwrap());
    Bench { server, pool: Pool::new(PoolConfig::default()), now: Instant::ZERO }
}

fn bench() -> Bench {
    bench_with(config(200, 203))
}

impl Bench {
    fn say(&mut self, message: &Message) -> Result<Seen, DropReason> {
        self.raw(&message.frame()).map(|answer| answer.expect("it is for us"))
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<Option<Seen>, DropReason> {
        let frame = self.pool.copy_of(bytes).unwrap();
        let ip = Parsed::new(bytes).and_then(|parsed| parsed.ip).filter(|ip| self.server.is_asked(ip, bytes)).expect("a DHCP client's packet");
        match self.server.serve(&ip, &frame, self.now, &self.pool)? {
            Served::Answer(answer) => Ok(Some(seen(&answer))),
            Served::NotMine => Ok(None),
        }
    }

    /// Discovers and requests what is offered.
    fn lease(&mut self, from: u8) -> Ipv4Addr {
        let offered = self.say(&message(from, DISCOVER)).unwrap();
        assert_eq!(offered.kind, OFFER_KIND);
        let given = self.say(&message(from, REQUEST).requested(offered.yours).server(OWN)).unwrap();
        assert_eq!((given.kind, given.yours), (ACK, offered.yours));
        given.yours
    }

    /// Asks for an address as after a reboot.
    fn reboot(&mut self, from: u8, wanted: Ipv4Addr) -> u8 {
        self.say(&message(from, REQUEST).requested(wanted)).unwrap().kind
    }

    fn reserve(&mut self, station: u8, ip: Ipv4Addr) {
        let mac = UnicastMac::new(Mac([2, 0, 0, 0, 0, station])).unwrap();
        self.server.reserve(mac, Reservation { ip, host_name: Some("web".into()) });
    }

    fn pass(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
    }
}

#[test]
fn a_client_is_told_all_that_it_needs() {
    let mut bench = bench();
    let offer = bench.say(&message(5, DISCOVER)).unwrap();
    assert_eq!((offer.kind, offer.yours, offer.to, offer.to_mac), (OFFER_KIND, ip(200), ip(200), [2, 0, 0, 0, 0, 5]));
    let wanted: [(u8, &[u8]); 10] = [
        (1, &[255, 255, 255, 0]),
        (3, &[10, 9, 0, 1]),
        (6, &[10, 9, 0, 1]),
        (26, &[0x05, 0x78]),
        (28, &[10, 9, 0, 255]),
        (51, &[0, 0, 0x0e, 0x10]),
        (53, &[2]),
        (54, &[10, 9, 0, 1]),
        (58, &[0, 0, 0x07, 0x08]),
        (59, &[0, 0, 0x0c, 0x4e]),
    ];
    assert_eq!(offer.options.iter().map(|(kind, data)| (*kind, &data[..])).collect::<Vec<_>>(), wanted);
    let ack = bench.say(&message(5, REQUEST).requested(ip(200)).server(OWN)).unwrap();
    assert_eq!((ack.kind, ack.options[&51].clone()), (ACK, vec![0, 0, 0x0e, 0x10]));
}

#[test]
fn an_internal_network_has_no_router() {
    let mut bench = bench_with(DhcpConfig { is_router: false, ..config(200, 203) });
    assert!(!bench.say(&message(5, DISCOVER)).unwrap().options.contains_key(&3));
}

#[test]
fn answers_go_where_the_client_hears_them() {
    let mut bench = bench();
    let broadcast = bench.say(&Message { broadcast: true, ..message(5, DISCOVER) }).unwrap();
    assert_eq!((broadcast.to, broadcast.to_mac), (Ipv4Addr::BROADCAST, [0xff; 6]));
    bench.lease(5);
    let renewed = bench.say(&Message { current: ip(200), to: OWN, ..message(5, REQUEST) }).unwrap();
    assert_eq!((renewed.kind, renewed.to, renewed.to_mac), (ACK, ip(200), [2, 0, 0, 0, 0, 5]));
    let refused = bench.say(&Message { current: ip(203), to: OWN, ..message(5, REQUEST) }).unwrap();
    assert_eq!((refused.kind, refused.to, refused.to_mac, refused.yours), (NAK, Ipv4Addr::BROADCAST, [0xff; 6], Ipv4Addr::UNSPECIFIED));
    assert_eq!(refused.options.keys().copied().collect::<Vec<_>>(), [53, 54]);
}

#[test]
fn a_known_station_has_its_own_address_and_no_other() {
    let mut bench = bench();
    bench.reserve(7, ip(20));
    assert_eq!(bench.lease(7), ip(20));
    // Whatever it asks for, and whatever it calls itself.
    assert_eq!(bench.say(&message(7, DISCOVER).requested(ip(201)).with(61, b"somebody")).unwrap().yours, ip(20));
    assert_eq!(bench.reboot(7, ip(201)), NAK);
    assert_eq!(bench.reboot(8, ip(20)), NAK, "nor has anybody else");
    let named = bench.say(&message(7, DISCOVER).with(55, &[1, 12])).unwrap();
    assert_eq!(named.options[&12], b"web");
    assert_eq!(bench.server.leases.len(), 0);
    bench.server.unreserve(UnicastMac::new(Mac([2, 0, 0, 0, 0, 7])).unwrap());
    assert_eq!(bench.lease(7), ip(200));
}

#[test]
fn a_reserved_address_of_the_range_goes_to_nobody_else() {
    let mut bench = bench();
    assert_eq!(bench.lease(1), ip(200));
    bench.reserve(7, ip(200));
    bench.reserve(8, ip(201));
    assert_eq!(bench.reboot(1, ip(200)), NAK, "a lease ends for it");
    assert_eq!((bench.lease(1), bench.lease(2)), (ip(202), ip(203)));
    assert_eq!(bench.say(&message(3, DISCOVER)).unwrap_err(), DropReason::DhcpFull);
}

#[test]
fn a_lease_that_a_reservation_ended_comes_back_to_nobody() {
    let mut bench = bench_with(config(200, 201));
    assert_eq!(bench.lease(1), ip(200));
    bench.pass(1);
    assert_eq!(bench.lease(2), ip(201));
    bench.reserve(7, ip(200));
    bench.pass(3601);
    assert_eq!(bench.lease(3), ip(201));
}

#[test]
fn the_gateway_and_excluded_addresses_are_never_lent() {
    let mut bench = bench_with(DhcpConfig { excluded: vec![ip(2)], ..config(1, 3) });
    assert_eq!(bench.reboot(5, OWN), NAK);
    assert_eq!(bench.reboot(5, ip(2)), NAK);
    assert_eq!(bench.lease(5), ip(3));
    assert_eq!(bench.say(&message(6, DISCOVER)).unwrap_err(), DropReason::DhcpFull);
}

#[test]
fn a_requested_address_is_given_when_it_is_free() {
    let mut bench = bench();
    assert_eq!(bench.say(&message(1, DISCOVER).requested(ip(202))).unwrap().yours, ip(202));
    assert_eq!(bench.say(&message(2, DISCOVER).requested(ip(202))).unwrap().yours, ip(200));
    assert_eq!(bench.say(&message(3, DISCOVER).requested(ip(9))).unwrap().yours, ip(201), "not of the range");
}

#[test]
fn an_offer_is_kept_for_a_minute() {
    let mut bench = bench_with(config(200, 200));
    bench.say(&message(1, DISCOVER)).unwrap();
    bench.pass(59);
    assert_eq!(bench.say(&message(2, DISCOVER)).unwrap_err(), DropReason::DhcpFull);
    assert_eq!(bench.reboot(2, ip(200)), NAK);
    bench.pass(2);
    assert_eq!(bench.lease(2), ip(200));
    assert_eq!(bench.say(&message(1, REQUEST).requested(ip(200)).server(OWN)).unwrap().kind, NAK, "too late");
}

#[test]
fn an_offer_does_not_shorten_a_lease() {
    let mut bench = bench_with(config(200, 200));
    bench.lease(1);
    bench.say(&message(1, DISCOVER)).unwrap();
    bench.pass(600);
    assert_eq!(bench.say(&message(2, DISCOVER)).unwrap_err(), DropReason::DhcpFull);
}

#[test]
fn a_lease_ends_and_is_remembered_while_there_is_room() {
    let mut bench = bench();
    let first = bench.lease(1);
    bench.pass(1800);
    let renewed = bench.say(&Message { current: first, to: OWN, ..message(1, REQUEST) }).unwrap();
    assert_eq!(renewed.kind, ACK);
    bench.pass(1801);
    assert_eq!(bench.reboot(2, first), NAK, "renewed");
    bench.pass(1800);
    let others: Vec<_> = (2..=4).map(|client| bench.lease(client)).collect();
    assert!(!others.contains(&first));
    bench.pass(1);
    assert_eq!(bench.lease(1), first, "it is back");
    bench.pass(3601);
    // Nobody's: the one that ended first goes to a new client.
    assert_eq!(bench.lease(9), others[0]);
    assert_eq!(bench.reboot(8, others[1]), ACK, "nor does it need an offer");
}

#[test]
fn after_a_restart_clients_keep_their_free_addresses() {
    let mut bench = bench();
    assert_eq!(bench.reboot(1, ip(203)), ACK);
    assert_eq!(bench.say(&Message { current: ip(202), to: OWN, ..message(2, REQUEST) }).unwrap().kind, ACK, "renewing");
    assert_eq!(bench.say(&Message { current: ip(201), ..message(3, REQUEST) }).unwrap().kind, ACK, "rebinding");
    assert_eq!(bench.reboot(4, ip(203)), NAK, "taken");
    assert_eq!(bench.reboot(4, Ipv4Addr::new(192, 168, 0, 5)), NAK, "of another network");
    assert_eq!(bench.reboot(4, ip(50)), NAK, "not of the range");
    assert_eq!(bench.reboot(1, ip(200)), NAK, "it has another");
}

#[test]
fn a_released_address_is_free() {
    let mut bench = bench_with(config(200, 200));
    let released = bench.lease(1);
    let stranger = bench.say(&Message { current: released, to: OWN, ..message(2, RELEASE) });
    assert_eq!(stranger.unwrap_err(), DropReason::GatewayNothing);
    assert_eq!(bench.say(&message(2, DISCOVER)).unwrap_err(), DropReason::DhcpFull, "only its holder gives it back");
    assert_eq!(bench.say(&Message { current: released, to: OWN, ..message(1, RELEASE) }).unwrap_err(), DropReason::GatewayNothing);
    assert_eq!(bench.lease(2), released);
}

#[test]
fn a_declined_address_rests() {
    let mut bench = bench_with(config(200, 201));
    let declined = bench.lease(1);
    bench.say(&message(2, DECLINE).requested(declined).server(OWN)).unwrap_err();
    assert_eq!(bench.reboot(1, declined), ACK, "only its holder can know");
    bench.say(&message(1, DECLINE).requested(declined).server(OWN)).unwrap_err();
    assert_eq!(bench.lease(1), ip(201));
    assert_eq!(bench.say(&message(2, DISCOVER)).unwrap_err(), DropReason::DhcpFull);
    bench.pass(601);
    assert_eq!(bench.lease(2), declined);
}

#[test]
fn an_inform_gets_configuration_and_no_lease() {
    let mut bench = bench();
    let ack = bench.say(&Message { current: ip(50), to: OWN, ..message(1, INFORM) }).unwrap();
    assert_eq!((ack.kind, ack.yours, ack.to), (ACK, Ipv4Addr::UNSPECIFIED, ip(50)));
    assert!(ack.options.contains_key(&6) && !ack.options.contains_key(&51) && !ack.options.contains_key(&58));
    assert_eq!(bench.say(&message(1, INFORM)).unwrap_err(), DropReason::DhcpMalformed);
    assert_eq!(bench.server.leases.len(), 0);
}

#[test]
fn a_client_identifier_is_who_one_is() {
    let mut bench = bench();
    let mut lease = |from: u8, id: &[u8]| {
        let offer = bench.say(&message(from, DISCOVER).with(61, id)).unwrap();
        assert_eq!(offer.options[&61], id, "RFC 6842");
        bench.say(&message(from, REQUEST).with(61, id).requested(offer.yours).server(OWN)).unwrap().yours
    };
    let first = lease(1, b"disk");
    assert_eq!(lease(2, b"disk"), first, "another card, the same client");
    assert_ne!(lease(1, b"other"), first);
    assert_eq!(bench.say(&message(1, DISCOVER).with(61, &[7; 129])).unwrap_err(), DropReason::DhcpMalformed);
    assert!(bench.say(&message(1, DISCOVER).with(61, &[7; 128])).is_ok());
}

#[test]
fn another_server_s_client_is_not_ours() {
    let mut bench = bench_with(config(200, 200));
    bench.say(&message(1, DISCOVER)).unwrap();
    assert!(bench.raw(&message(1, REQUEST).requested(ip(77)).server(ip(2)).frame()).unwrap().is_none());
    assert_eq!(bench.lease(2), ip(200), "what was offered is free at once");
}

#[test]
fn the_table_is_bounded() {
    let mut bench = bench_with(DhcpConfig { range: (Ipv4Addr::new(10, 0, 0, 0), Ipv4Addr::new(10, 255, 255, 255)), ..config(0, 0) });
    for client in 0..20_000_u32 {
        let offer = bench.say(&message(1, DISCOVER).with(61, &client.to_be_bytes()));
        assert_eq!(offer.is_ok(), client < 16_384, "{client}");
    }
    assert_eq!(bench.server.leases.len(), 16_384);
    bench.pass(61);
    assert!(bench.say(&message(1, DISCOVER).with(61, b"late")).is_ok());
    assert!(bench.say(&message(1, REQUEST).with(61, b"new").requested(Ipv4Addr::new(10, 200, 0, 0))).is_ok());
    assert_eq!(bench.server.leases.len(), 16_384);
}

#[test]
fn leases_outlive_a_change() {
    let mut bench = bench();
    let kept = bench.lease(1);
    bench.lease(2);
    bench.reserve(7, ip(202));
    bench.server.configure(config(200, 200), "10.9.0.1/24".parse().unwrap(), UnicastMac::new(GATEWAY).unwrap());
    assert_eq!(bench.reboot(1, kept), ACK);
    assert_eq!(bench.reboot(2, ip(201)), NAK, "out of the range");
    bench.server.configure(config(200, 202), "10.9.0.1/24".parse().unwrap(), UnicastMac::new(GATEWAY).unwrap());
    assert_eq!(bench.reboot(3, ip(202)), NAK, "still another's");
    assert_eq!(bench.lease(7), ip(202));
    assert_eq!(bench.server.leases.len(), 1);
}

#[test]
fn what_is_no_client_s_message_is_dropped_by_name() {
    let mut bench = bench();
    let relayed = Message { relay: ip(9), ..message(1, DISCOVER) };
    assert_eq!(bench.say(&relayed).unwrap_err(), DropReason::DhcpMalformed);
    for kind in [0, OFFER_KIND, ACK, NAK, 9, 255] {
        assert_eq!(bench.say(&message(1, kind)).unwrap_err(), DropReason::DhcpMalformed, "{kind}");
    }
    assert_eq!(bench.say(&message(1, REQUEST)).unwrap_err(), DropReason::DhcpMalformed, "for no address");
    let good = message(1, DISCOVER).frame();
    let payload = 42;
    for (at, value, what) in [(11, 9, "another's MAC"), (payload, 2, "a reply"), (payload + 1, 6, "no Ethernet"), (payload + 2, 16, "a long address"), (payload + 28, 1, "a group"), (payload + 237, 0, "no magic"), (25, 0, "IP checksum"), (41, 1, "UDP checksum")] {
        let mut bytes = good.clone();
        bytes[at] = value;
        assert_eq!(bench.raw(&bytes).unwrap_err(), DropReason::DhcpMalformed, "{what}");
    }
    for length in [0, 100, 239, 240, 242] {
        let bytes = datagram(1, Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, &message(1, DISCOVER).payload()[..length]);
        assert_eq!(bench.raw(&bytes).unwrap_err(), DropReason::DhcpMalformed, "{length} bytes");
    }
}

fn any_message() -> impl Strategy<Value = Message> {
    let address = || prop_oneof![Just(Ipv4Addr::UNSPECIFIED), Just(OWN), (195..210_u8).prop_map(ip), (15..25_u8).prop_map(ip)];
    let option = prop_oneof![address().prop_map(|ip| (50, ip.octets().to_vec())), address().prop_map(|ip| (54, ip.octets().to_vec())), (0..3_u8).prop_map(|id| (61, vec![id]))];
    (1..8_u8, 0..9_u8, address(), any::<bool>(), proptest::collection::vec(option, 0..4)).prop_map(|(from, kind, current, broadcast, options)| Message { current, broadcast, options, ..message(from, kind) })
}

proptest! {
    #[test]
    fn no_address_has_two_holders(messages in proptest::collection::vec((any_message(), 0..2000_u64), 1..60)) {
        let mut bench = bench();
        // What control gave away: a station, and an address for it.
        bench.reserve(1, ip(20));
        bench.reserve(2, ip(201));
        let mut holders: BTreeMap<Ipv4Addr, (String, Instant)> = BTreeMap::new();
        for (message, seconds) in messages {
            bench.pass(seconds);
            let Ok(Some(answer)) = bench.raw(&message.frame()) else {
                // Given back, perhaps: then anybody may have it.
                if matches!(message.kind, RELEASE | DECLINE | REQUEST) {
                    holders.clear();
                }
                continue;
            };
            if answer.kind == ACK && !answer.yours.is_unspecified() {
                let last = answer.yours.octets()[3];
                match message.from {
                    1 => prop_assert_eq!(last, 20),
                    2 => prop_assert_eq!(last, 201),
                    _ => prop_assert!([200, 202, 203].contains(&last)),
                }
                let id = message.options.iter().find(|(kind, _)| *kind == 61);
                let who = id.filter(|_| message.from > 2).map_or_else(|| format!("station {}", message.from), |(_, id)| format!("id {id:?}"));
                if let Some((before, end)) = holders.get(&answer.yours) {
                    prop_assert!(*before == who || *end <= bench.now, "{} went from {before} to {who}", answer.yours);
                }
                holders.insert(answer.yours, (who, bench.now + Duration::from_secs(3600)));
            }
            bench.server.leases.len();
        }
    }

    #[test]
    fn rubbish_is_survived(message in any_message(), edits in proptest::collection::vec((0..400_usize, any::<u8>()), 0..20), cut in 0..400_usize) {
        let mut payload = message.payload();
        for (at, value) in edits {
            if let Some(byte) = payload.get_mut(at) {
                *byte = value;
            }
        }
        payload.truncate(cut);
        drop(bench().raw(&datagram(message.from, Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, &payload)));
    }

    #[test]
    fn noise_is_survived(payload in proptest::collection::vec(any::<u8>(), 0..700)) {
        drop(bench().raw(&datagram(1, Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, &payload)));
    }
}
