//! Random frames, ports that come and go, and the invariants after every frame, for many seeds.

use dataplane::{Capabilities, Command, PortChange, PortConfig, VlanMode};
use packet::{Checksum, Frame, Gso, Offload, PortId, VlanId, checksum};
use sim::{Random, SwitchId, World};

use super::bridge::{bridge, mac};

/// Seeds to run; more with WEFT_SIM_SEEDS.
fn seeds() -> u64 {
    std::env::var("WEFT_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(200)
}

#[test]
fn invariants_hold_under_churn() {
    for seed in 0..seeds() {
        churn(seed);
    }
}

fn churn(seed: u64) {
    let mut random = Random::new(seed);
    let mut world = World::new(seed);
    let switch = world.add_switch();
    let network = bridge(&mut world, switch);
    let mut ports: Vec<PortId> = Vec::new();
    for _ in 0..300 {
        match random.below(20) {
            0 | 1 => ports.push(world.add_port(switch, random_port(&mut random, PortConfig::new(network, "p")))),
            2 if !ports.is_empty() => {
                let port = ports.swap_remove(index(&mut random, ports.len()));
                world.apply(switch, Command::RemovePort(port)).expect("it was there");
                assert!(world.apply(switch, Command::RemovePort(port)).is_err(), "seed {seed}: a stale id does nothing");
            }
            3 if !ports.is_empty() => change(&mut world, switch, ports[index(&mut random, ports.len())], &mut random),
            _ if !ports.is_empty() => {
                let port = ports[index(&mut random, ports.len())];
                let frame = random_frame(&mut random, &world);
                world.inject(switch, port, frame);
            }
            _ => {}
        }
    }
    let stats = world.pool().stats();
    assert_eq!((stats.small_used, stats.large_used), (0, 0), "seed {seed}: all buffers are home");
}

fn index(random: &mut Random, length: usize) -> usize {
    usize::try_from(random.below(length as u64)).expect("small")
}

fn random_port(random: &mut Random, mut config: PortConfig) -> PortConfig {
    config.isolated = random.below(4) == 0;
    config.horizon = (random.below(4) == 0).then_some(7);
    config.mtu = [576, 1500, 9000, 65_521][index(random, 4)];
    config.capabilities = if random.below(2) == 0 { Capabilities::FULL } else { Capabilities::NONE };
    config.vlan = match random.below(4) {
        0 => VlanMode::Access(VlanId::new(10).expect("id")),
        1 => VlanMode::Trunk { allowed: vec![], native: VlanId::new(10) },
        _ => VlanMode::PassThrough,
    };
    config
}

fn change(world: &mut World, switch: SwitchId, port: PortId, random: &mut Random) {
    let change = match random.below(4) {
        0 => PortChange::Up(random.below(3) > 0),
        1 => PortChange::Isolated(random.below(2) == 0),
        2 => PortChange::Mtu(1500),
        _ => PortChange::Learning(random.below(2) == 0),
    };
    world.apply(switch, Command::SetPort(port, change)).expect("it is there");
}

/// From runts over tagged frames to super-frames, some of them lying.
fn random_frame(random: &mut Random, world: &World) -> Frame {
    let mut bytes = Vec::new();
    let station = |random: &mut Random| mac(u32::try_from(random.below(12)).expect("small")).0;
    match random.below(10) {
        0 => bytes.extend([0xff; 6]),
        1 => bytes.extend([0x01, 0x80, 0xc2, 0, 0, 0x0e]),
        _ => bytes.extend(station(random)),
    }
    bytes.extend(if random.below(20) == 0 { [0x01, 0, 0x5e, 0, 0, 1] } else { station(random) });
    if random.below(4) == 0 {
        bytes.extend([0x81, 0, 0, [0, 10, 20][index(random, 3)]]);
    }
    let kind = random.below(4);
    if kind == 0 {
        bytes.extend([0x88, 0xb5]);
        let length = random.below(9100);
        bytes.extend((0..length).map(|at| u8::try_from(at & 0xff).expect("byte")));
        bytes.truncate(usize::try_from(random.below(bytes.len() as u64 + 2000)).expect("small"));
        return world.pool().copy_of(&bytes).expect("a buffer");
    }
    tcp_frame(random, bytes, world)
}

fn tcp_frame(random: &mut Random, mut bytes: Vec<u8>, world: &World) -> Frame {
    let payload = usize::try_from(random.below(20_000)).expect("small");
    bytes.extend([8, 0]);
    let start = bytes.len() + 20;
    let total = u16::try_from(40 + payload).expect("fits");
    let mut ip = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    let sum = !checksum::fold(checksum::sum(&ip));
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let pseudo = checksum::fold(checksum::pseudo_header(&ip, 6, 20 + payload).expect("IPv4"));
    bytes.extend(ip);
    let mut tcp = [0_u8; 20];
    tcp[12] = if random.below(30) == 0 { 0xf0 } else { 0x50 };
    tcp[16..18].copy_from_slice(&pseudo.to_be_bytes());
    bytes.extend(tcp);
    bytes.extend((0..payload).map(|at| u8::try_from(at % 251).expect("byte")));
    let mut frame = world.pool().copy_of(&bytes).expect("a buffer");
    let size = u16::try_from(random.below(3000) + 1).expect("small");
    frame.offload = Offload { checksum: Checksum::Partial { start: u16::try_from(start).expect("small"), offset: 16 }, gso: Gso::Tcp4 { size, ecn: false } };
    frame
}
