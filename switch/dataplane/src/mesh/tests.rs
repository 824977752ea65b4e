use packet::{Pool, PoolConfig};

use super::*;

const OWN: [u8; 6] = [6, 0, 0, 0, 0, 1];
const OTHER: [u8; 6] = [6, 0, 0, 0, 0, 2];
const GATEWAY: [u8; 6] = [2, 0x42, 10, 0, 0, 1];
const HERE: [u8; 6] = [2, 0x42, 10, 0, 0, 5];
const CLIENT: [u8; 4] = [192, 0, 2, 9];
const SYN: u8 = 2;
const RST: u8 = 4;

fn mac(bytes: [u8; 6]) -> UnicastMac {
    UnicastMac::new(Mac(bytes)).unwrap()
}

fn ids() -> (NetworkId, PortId) {
    (NetworkId::new(3, 0), PortId::new(7, 0))
}

/// A replica here, 10.0.0.5, and one on the other node, 10.0.0.6.
fn config() -> MeshConfig {
    let (network, port) = ids();
    MeshConfig {
        network,
        port,
        station: mac(OWN),
        gateway: mac(GATEWAY),
        gateways: vec!["10.0.0.1/24".parse().unwrap()],
        nodes: BTreeSet::from([mac(OTHER)]),
        replicas: BTreeMap::from([([10, 0, 0, 5].into(), Place::Here(mac(HERE))), ([10, 0, 0, 6].into(), Place::There(mac(OTHER)))]),
    }
}

fn mesh() -> Mesh {
    let mut mesh = Mesh::default();
    mesh.configure(Some(config()));
    mesh
}

/// IPv4 between two ends; `more` is the word of flags and fragment offset.
fn packet(macs: ([u8; 6], [u8; 6]), number: u8, source: ([u8; 4], u16), destination: ([u8; 4], u16), (flags, more): (u8, u16)) -> Frame {
    let mut bytes = [&macs.0[..], &macs.1, &[8, 0, 0x45, 0, 0, 40, 0, 9]].concat();
    bytes.extend(more.to_be_bytes());
    bytes.extend([64, number, 0, 0]);
    bytes.extend(source.0.into_iter().chain(destination.0));
    bytes.extend(source.1.to_be_bytes().into_iter().chain(destination.1.to_be_bytes()));
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
    Pool::new(PoolConfig::default()).copy_of(&bytes).unwrap()
}

fn syn(macs: ([u8; 6], [u8; 6]), to: [u8; 4]) -> Frame {
    packet(macs, 6, (CLIENT, 4000), (to, 80), (SYN, 0))
}

fn answer(from: [u8; 4]) -> Frame {
    packet((GATEWAY, HERE), 6, (from, 80), (CLIENT, 4000), (SYN | 16, 0))
}

fn ends(frame: &Frame) -> ([u8; 6], [u8; 6]) {
    (frame.bytes()[..6].try_into().unwrap(), frame.bytes()[6..12].try_into().unwrap())
}

#[test]
fn x5_the_answer_leaves_where_the_client_came_in() {
    let (network, port) = ids();
    let now = Instant::ZERO;
    let mut mesh = mesh();
    // Of a client of ours to the replica elsewhere: station to station.
    let Routed::Port(to, frame) = mesh.send(syn((OWN, OWN), [10, 0, 0, 6]), now) else { panic!("not sent") };
    assert_eq!((to, ends(&frame)), (port, (OTHER, OWN)));
    // Its answer is the proxy's.
    let reply = packet((OWN, OTHER), 6, ([10, 0, 0, 6], 80), (CLIENT, 4000), (SYN | 16, 0));
    assert!(matches!(mesh.arrive(reply, now), Routed::Proxy(_)));
    // Of a client of the other node to the replica here, and back.
    let Routed::Gateway(to, frame) = mesh.arrive(syn((OWN, OTHER), [10, 0, 0, 5]), now) else { panic!("not delivered") };
    assert_eq!((to, ends(&frame)), (network, (HERE, GATEWAY)));
    let Routed::Port(_, frame) = mesh.back(answer([10, 0, 0, 5]), now) else { panic!("not sent back") };
    assert_eq!(ends(&frame), (OTHER, OWN));
    // The same client comes by this node now.
    assert!(matches!(mesh.send(syn((OWN, OWN), [10, 0, 0, 5]), now), Routed::Gateway(..)));
    assert!(matches!(mesh.back(answer([10, 0, 0, 5]), now), Routed::Proxy(_)));
    // What the replica says to others is not the mesh's, nor what other networks do.
    assert!(mesh.is_network(network) && !mesh.is_network(NetworkId::new(9, 0)) && mesh.is_port(port) && !mesh.is_port(PortId::new(8, 0)));
    assert!(matches!(mesh.back(packet((GATEWAY, HERE), 6, ([10, 0, 0, 5], 80), (CLIENT, 4001), (SYN, 0)), now), Routed::NotMine(_)));
    assert_eq!(mesh.stats, MeshStats::default());
}

#[test]
fn strangers_and_forgeries_are_dropped() {
    let now = Instant::ZERO;
    let mut mesh = mesh();
    for (what, frame) in [
        ("of no node", syn((OWN, HERE), [10, 0, 0, 5])),
        ("to no replica", syn((OWN, OTHER), [10, 0, 0, 77])),
        ("to one that is on another node", syn((OWN, OTHER), [10, 0, 0, 6])),
        ("to outside", syn((OWN, OTHER), [198, 51, 100, 1])),
        ("an answer for a replica that is here", packet((OWN, OTHER), 6, ([10, 0, 0, 5], 80), (CLIENT, 4000), (SYN, 0))),
        ("from inside to inside", packet((OWN, OTHER), 6, ([10, 0, 0, 6], 80), ([10, 0, 0, 5], 80), (SYN, 0))),
    ] {
        let before = mesh.stats.stray;
        assert!(matches!(mesh.arrive(frame, now), Routed::Gone), "{what}");
        assert_eq!(mesh.stats.stray, before + 1, "{what}");
    }
    assert!(matches!(mesh.arrive(syn((HERE, OTHER), [10, 0, 0, 5]), now), Routed::Gone), "flooded");
    assert!(matches!(mesh.send(syn((OWN, OWN), [10, 0, 0, 77]), now), Routed::Gone));
    assert_eq!(mesh.flows(), 0);
}

#[test]
fn what_is_noted_ends() {
    let mut mesh = mesh();
    let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
    mesh.arrive(syn((OWN, OTHER), [10, 0, 0, 5]), at(0));
    assert!(matches!(mesh.back(answer([10, 0, 0, 5]), at(7000)), Routed::Port(..)), "idle, and open");
    mesh.arrive(packet((OWN, OTHER), 6, (CLIENT, 4000), ([10, 0, 0, 5], 80), (RST, 0)), at(7001));
    assert!(matches!(mesh.back(answer([10, 0, 0, 5]), at(7300)), Routed::NotMine(_)), "closed");
    mesh.handle_timeout(at(7300));
    assert_eq!((mesh.flows(), mesh.poll_timeout()), (0, None));
    // Datagrams, and the later fragments of an answer.
    mesh.arrive(packet((OWN, OTHER), 17, (CLIENT, 4000), ([10, 0, 0, 5], 53), (0, 0)), at(7400));
    let reply = |more| packet((GATEWAY, HERE), 17, ([10, 0, 0, 5], 53), (CLIENT, 4000), (0, more));
    assert!(matches!(mesh.back(reply(5), at(7400)), Routed::NotMine(_)), "before the first");
    assert!(matches!(mesh.back(reply(0x2000), at(7400)), Routed::Port(..)));
    assert!(matches!(mesh.back(reply(5), at(7400)), Routed::Port(..)));
    // With the replica goes what was noted of it.
    mesh.configure(Some(MeshConfig { replicas: BTreeMap::new(), ..config() }));
    assert_eq!(mesh.flows(), 0);
}
