//! A thousand ports, a million stations.

use dataplane::{Command, Reply};
use packet::Duration;
use sim::{LinkConfig, World};

use super::bridge::{bridge, host, ip, mac, plain};

#[test]
fn a_thousand_hosts_on_ten_switches() {
    let mut world = World::new(11);
    world.checked = false;
    let core = world.add_switch();
    let core_network = bridge(&mut world, core);
    let mut hosts = Vec::new();
    for edge in 0..10_u32 {
        let switch = world.add_switch();
        let network = bridge(&mut world, switch);
        let (up, down) = (world.add_port(switch, plain(network)), world.add_port(core, plain(core_network)));
        world.connect((switch, up), (core, down), LinkConfig { delay: Duration::from_micros(5), ..LinkConfig::default() });
        for number in 0..100 {
            hosts.push(host(&mut world, switch, network, 1 + edge * 100 + number, LinkConfig::default()));
        }
    }
    let sample: Vec<usize> = (0..1000).step_by(37).collect();
    for &from in &sample {
        let to = u32::try_from((from * 7 + 13) % 1000).expect("small") + 1;
        world.with_host(hosts[from], |host| host.ping(ip(to), 1));
        world.run_for(Duration::from_millis(100));
    }
    for &from in &sample {
        assert_eq!(world.host(hosts[from]).replies, 1, "host {from}");
    }
}

#[test]
fn a_mac_flood_harms_nobody_else() {
    let mut world = World::new(13);
    world.checked = false;
    let switch = world.add_switch();
    let network = bridge(&mut world, switch);
    let first = host(&mut world, switch, network, 1, LinkConfig::default());
    let _second = host(&mut world, switch, network, 2, LinkConfig::default());
    let flooder = world.add_port(switch, plain(network));
    world.with_host(first, |host| host.ping(ip(2), 0));
    world.run_for(Duration::from_millis(10));
    let flooded_before = world.view(switch, flooder).expect("port").counters.tx_frames;
    for number in 0..1_000_000 {
        let bytes = [&mac(1).0[..], &mac(1_000_000 + number).0, &[0x88, 0xb5], &[0; 46]].concat();
        let frame = world.pool().copy_of(&bytes).expect("a buffer");
        world.inject(switch, flooder, frame);
        if number % 100_000 == 0 {
            world.with_host(first, |host| host.ping(ip(2), 1));
            world.run_for(Duration::from_millis(10));
        }
    }
    world.run_for(Duration::from_millis(10));
    assert_eq!(world.host(first).replies, 11, "established traffic is unharmed");
    assert_eq!(world.view(switch, flooder).expect("port").counters.tx_frames, flooded_before, "nothing of it was flooded");
    match world.apply(switch, Command::ShowBridges) {
        Ok(Reply::Bridges(bridges)) => assert!(bridges[0].fdb_entries <= 16_384),
        other => panic!("{other:?}"),
    }
}
