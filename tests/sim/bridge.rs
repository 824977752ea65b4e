//! Hosts with a stack that is not ours, through our switches.

use dataplane::{BridgeConfig, Capabilities, Command, PortConfig, Reply, StormLimit};
use packet::{Duration, Mac, NetworkId};
use sim::{Host, HostId, LinkConfig, SwitchId, World};

pub(crate) fn mac(number: u32) -> Mac {
    let [a, b, c, d] = number.to_be_bytes();
    Mac([2, 0, a, b, c, d])
}

pub(crate) fn ip(number: u32) -> [u8; 4] {
    let [_, b, c, d] = number.to_be_bytes();
    [10, b, c, d]
}

pub(crate) fn bridge(world: &mut World, switch: SwitchId) -> NetworkId {
    match world.apply(switch, Command::AddBridge(BridgeConfig::new("net"))) {
        Ok(Reply::Network(network)) => network,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn plain(network: NetworkId) -> PortConfig {
    PortConfig { capabilities: Capabilities::NONE, ..PortConfig::new(network, "port") }
}

pub(crate) fn host(world: &mut World, switch: SwitchId, network: NetworkId, number: u32, link: LinkConfig) -> HostId {
    let port = world.add_port(switch, plain(network));
    world.add_host(Host::new(mac(number), ip(number), u64::from(number)), switch, port, link)
}

/// `count` switches in a row, one host at each end.
fn line(seed: u64, count: usize, link: LinkConfig) -> (World, HostId, HostId) {
    let mut world = World::new(seed);
    let switches: Vec<_> = (0..count).map(|_| world.add_switch()).collect();
    let networks: Vec<_> = switches.iter().map(|&switch| bridge(&mut world, switch)).collect();
    for pair in 1..count {
        let one = world.add_port(switches[pair - 1], plain(networks[pair - 1]));
        let other = world.add_port(switches[pair], plain(networks[pair]));
        world.connect((switches[pair - 1], one), (switches[pair], other), link);
    }
    let first = host(&mut world, switches[0], networks[0], 1, LinkConfig::default());
    let last = host(&mut world, switches[count - 1], networks[count - 1], 2, LinkConfig::default());
    (world, first, last)
}

#[test]
fn pings_cross_three_switches() {
    let (mut world, first, _) = line(1, 3, LinkConfig { delay: Duration::from_millis(1), ..LinkConfig::default() });
    for sequence in 0..5 {
        world.with_host(first, |host| host.ping(ip(2), sequence));
        world.run_for(Duration::from_secs(1));
    }
    assert_eq!(world.host(first).replies, 5);
}

#[test]
fn tcp_survives_loss() {
    const BYTES: u64 = 300_000;
    for loss_ppm in [0, 10_000, 50_000] {
        let link = LinkConfig { delay: Duration::from_micros(200), loss_ppm, ..LinkConfig::default() };
        let (mut world, first, last) = line(7, 3, link);
        world.with_host(first, |host| host.transfer(ip(2), BYTES));
        assert!(world.run_while(3_000_000, |world| world.host(last).received.bytes == BYTES), "loss {loss_ppm} ppm: {:?}", world.host(last));
        let received = world.host(last).received;
        assert_eq!((received.bytes, received.hash), (BYTES, World::expected_hash(BYTES)), "loss {loss_ppm} ppm");
    }
}

#[test]
fn one_seed_is_one_run_to_the_byte() {
    let run = |seed| {
        let link = LinkConfig { delay: Duration::from_micros(50), jitter: Duration::from_micros(40), loss_ppm: 20_000, duplicate_ppm: 5000, bits_per_second: 100_000_000 };
        let (mut world, first, _) = line(seed, 4, link);
        world.record();
        world.with_host(first, |host| host.transfer(ip(2), 50_000));
        world.run_for(Duration::from_secs(5));
        world.capture().to_vec()
    };
    assert!(run(3) == run(3), "same seed, same capture");
    assert!(run(3) != run(4), "another seed, another run");
    assert!(run(3).len() > 50_000);
}

#[test]
fn addresses_age_in_virtual_hours() {
    let mut world = World::new(5);
    let switch = world.add_switch();
    let network = bridge(&mut world, switch);
    let first = host(&mut world, switch, network, 1, LinkConfig::default());
    let _second = host(&mut world, switch, network, 2, LinkConfig::default());
    world.with_host(first, |host| host.ping(ip(2), 1));
    world.run_for(Duration::from_secs(1));
    let known = |world: &mut World| match world.apply(switch, Command::ShowFdb(network)) {
        Ok(Reply::Fdb(entries)) => entries.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(known(&mut world), 2);
    world.arm_switch(switch);
    world.run_for(Duration::from_secs(290));
    assert_eq!(known(&mut world), 2, "not yet 300 s");
    world.run_for(Duration::from_secs(3600));
    assert_eq!(known(&mut world), 0);
}

/// Two ports wired to one another: a broadcast would go round for ever.
#[test]
fn storm_control_bounds_a_loop() {
    let mut world = World::new(9);
    let switch = world.add_switch();
    let network = bridge(&mut world, switch);
    let storm = Some(StormLimit { frames_per_second: 100, burst: 20 });
    let looped: Vec<_> = (0..2).map(|_| world.add_port(switch, PortConfig { storm, ..plain(network) })).collect();
    let first = host(&mut world, switch, network, 1, LinkConfig::default());
    let _second = host(&mut world, switch, network, 2, LinkConfig::default());
    let third = host(&mut world, switch, network, 3, LinkConfig::default());
    world.with_host(first, |host| host.ping(ip(2), 0));
    world.run_for(Duration::from_secs(1));
    let wire = LinkConfig { delay: Duration::from_micros(10), ..LinkConfig::default() };
    world.connect((switch, looped[0]), (switch, looped[1]), wire);
    // Nobody has this address: the question goes to all, and round and round.
    world.with_host(third, |host| host.ping(ip(99), 0));
    for sequence in 1..=10 {
        world.with_host(first, |host| host.ping(ip(2), sequence));
        world.run_for(Duration::from_secs(1));
    }
    assert!(world.hops < 10 * 100 * 4, "{} frames in ten seconds", world.hops);
    assert_eq!(world.host(first).replies, 11, "unicast goes on beside the storm");
    let drops = world.view(switch, looped[0]).expect("port").counters.drops;
    assert!(drops.get(dataplane::DropReason::Storm) > 0, "{drops:?}");
}
