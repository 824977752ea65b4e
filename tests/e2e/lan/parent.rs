//! The device of a lan network: who else has it, what is wrong with it, and another in its place (O3).

use serde_json::{Value, json};
use weft_tests::{events::Events, lab::Lab, run::eventually};

use super::{CREATE, Wire, in_sandbox};

/// A device leads to one network, whichever way it was given to it.
pub(super) fn one_network() {
    let lab = Lab::start();
    let _wire = Wire::new(&lab);
    lab.weft("network create lab --subnet 10.9.0.0/24").ok();
    for (driver, name) in [("macvlan", "mac"), ("ipvlan", "ip")] {
        lab.weft(&format!("network create -d {driver} -o parent=eth1 --subnet 192.168.88.0/24 {name}")).ok();
        for dry in ["", " --dry-run"] {
            let said = lab.weft(&format!("attach lab --dev eth1{dry}")).fails();
            assert!(said.contains("device eth1 is already the parent of network ") && said.contains(name), "{said}");
        }
        assert!(!lab.weft("ps -a").ok().contains("dev-eth1"), "nothing is half made");
        lab.weft(&format!("network rm {name}")).ok();
    }
    // A network without a port on it has nothing; and the other way round.
    lab.weft("network create -d lan --internal -o parent=eth1 --subnet 192.168.88.0/24 inner").ok();
    lab.weft("attach lab --dev eth1").ok();
    let said = lab.weft("network create -d lan -o parent=eth1 --subnet 192.168.89.0/24 mac").fails();
    assert!(said.contains("device eth1 is already attached as dev-eth1"), "{said}");
    let said = lab.request("PATCH", "/v1/networks/inner", &json!({ "internal": false })).expect("an answer");
    assert!(said.0 == 409 && said.1.to_string().contains("dev-eth1"), "{said:?}");
    lab.weft("detach lab --dev eth1").ok();
    lab.weft(CREATE.replace("88.", "89.").as_str()).ok();
}

/// Down, too small, gone: seen in views, by the doctor and as events; and no longer when it is well.
pub(super) fn trouble() {
    let lab = Lab::start();
    let _wire = Wire::new(&lab);
    lab.weft(CREATE).ok();
    let events = Events::follow(&lab);
    let told = |part: &str| events.tell(&["network parent", part]);
    let doctor = |lab: &Lab| lab.weft("doctor").stdout;
    let inspected = |lab: &Lab| lab.weft("network inspect lan1").json()[0]["lan"]["problem"].clone();
    let is_well = |lab: &Lab| {
        assert!(doctor(lab).lines().any(|line| line.starts_with("ok") && line.contains("network lan1: parent eth1 serves")));
        assert_eq!(inspected(lab), Value::Null);
        assert!(!lab.weft("network ls").stderr.contains("lan1"));
    };
    is_well(&lab);
    for (spoil, what, hint, mend) in [
        ("ip link set eth1 down", "eth1 is down", "ip link set eth1 up", "ip link set eth1 up"),
        ("ip link set eth1 mtu 1400", "eth1 takes packets of 1400 bytes at most, and the network's have up to 1500", "weft network edit lan1 --mtu 1400", "ip link set eth1 mtu 1500"),
    ] {
        lab.host.sh(spoil).ok();
        let seen = doctor(&lab);
        let mut lines = seen.lines().skip_while(|line| !line.contains("network lan1"));
        let (line, next) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        assert!(line.starts_with("missing") && line.contains(what) && line.contains("parent eth1") && next.contains(hint), "{seen}");
        assert_eq!(inspected(&lab)["message"], json!(what));
        let listed = lab.weft("network ls");
        assert!(listed.code == Some(0) && listed.stderr.contains(&format!("network lan1: {what}")), "{listed:?}");
        eventually("it is told", || told(what) && lab.log().contains(what));
        lab.host.sh(mend).ok();
        eventually("it is told that it is over", || lab.log().matches("nothing is wrong with the device").count() > usize::from(what.contains("1400")));
        is_well(&lab);
    }
    eventually("so does an event", || told("\"problem\":null"));
    lab.host.ip("link del eth1").ok();
    assert!(doctor(&lab).contains("the host has no device eth1"));
    assert_eq!(inspected(&lab)["code"], json!("not_found"));
    eventually("it is told", || told("network parent gone"));
}

/// Another device is taken whole, or not at all.
pub(super) fn another() {
    let lab = Lab::start();
    let wire = Wire::new(&lab);
    // A second leg of the host, whose addresses are the host's too.
    wire.switch.sh(&format!("ip link add h9 type veth peer name eth2 netns {} && ip link set h9 master br0 up", lab.host.name)).ok();
    lab.host.sh("ip link set eth2 up && ip addr add 192.168.88.131/24 dev eth2").ok();
    lab.host.sh("ip link add small type veth peer name small9 && ip link set small mtu 1300 up").ok();
    lab.weft(CREATE).ok();
    let network = || lab.weft("network inspect lan1").json()[0].clone();
    // An edit of something else keeps what the device said.
    lab.weft("network edit lan1 --mtu 1400").ok();
    assert_eq!(network()["lan"]["host"][0], json!("192.168.88.5"));
    let before = network();
    for (patch, part) in [
        (json!({ "parent": "eth7" }), "the host has no device eth7"),
        (json!({ "parent": "small" }), "more than small takes (1300)"),
        (json!({ "parent": "lo" }), "loopback"),
        (json!({ "options": { "parent": "eth2" } }), "change parent instead"),
    ] {
        for path in ["/v1/networks/lan1?dry-run=true", "/v1/networks/lan1"] {
            let (status, said) = lab.request("PATCH", path, &patch).expect("an answer");
            assert!(status >= 400 && said.to_string().contains(part), "{patch}: {said}");
            assert_eq!(network(), before, "{patch}");
        }
    }
    assert!(lab.weft("port ls").ok().contains("lan1:eth1"));
    lab.weft("run -d --name a --net lan1 -- sleep 1000").ok();
    let (status, said) = lab.request("PATCH", "/v1/networks/lan1", &json!({ "parent": "eth2" })).expect("an answer");
    assert!(status == 409 && said.to_string().contains("not while a is in it"), "{said}");
    lab.weft("rm -f a").ok();
    let (status, said) = lab.request("PATCH", "/v1/networks/lan1", &json!({ "parent": "eth2" })).expect("an answer");
    assert!(status == 200 && said["network"]["lan"]["parent"] == json!("eth2") && said["network"]["lan"]["host"][0] == json!("192.168.88.131"), "{said}");
    assert_eq!((network()["options"]["parent"].clone(), network()["mtu"].clone()), (json!("eth2"), json!(1400)));
    assert!(lab.host.ip("-d link show eth2").ok().contains("promiscuity 1") && lab.weft("port ls").ok().contains("lan1:eth2"));
    eventually("the other is left as it was", || !lab.host.ip("-d link show eth1").ok().contains("promiscuity 1"));
    lab.weft("run -d --name a --net lan1:ip=192.168.88.130 -- sleep 1000").ok();
    assert!(wire.pc.pings("192.168.88.130"));
    let said = lab.weft("run --net lan1:ip=192.168.88.131 -- true").fails();
    assert!(said.contains("the host's own"), "{said}");
    in_sandbox(&lab, "a", "ping -c 1 -W 2 192.168.88.50").ok();
    lab.weft("rm -f a").ok();
}
