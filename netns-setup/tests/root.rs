//! With real namespaces; needs root. Nothing outside the namespaces made here is touched.

use std::{os::fd::AsFd, path::PathBuf};

use netns_setup::{
    Netns, PortFd,
    attach::{EndpointSpec, Kind, attach, reattach},
    link::Links,
    tap_name,
};

struct Pinned(PathBuf);

impl Drop for Pinned {
    fn drop(&mut self) {
        Netns::unpin(&self.0).ok();
    }
}

fn namespace(name: &str) -> (Netns, Pinned) {
    let path = std::env::temp_dir().join(format!("netns-setup-{}-{name}", std::process::id()));
    (Netns::create_pinned(&path).expect("namespace"), Pinned(path))
}

fn skipped() -> bool {
    let skip = !nix::unistd::geteuid().is_root();
    if skip {
        eprintln!("skipped: needs root");
    }
    skip
}

fn spec(kind: Kind) -> EndpointSpec {
    EndpointSpec {
        kind,
        ifname: "eth0".into(),
        mac: Some([2, 0, 0, 0, 0, 7]),
        mtu: 1400,
        gso_most: None,
        addresses: vec!["10.1.2.3/24".parse().expect("valid"), "fd01::3/64".parse().expect("valid")],
        neighbours: Vec::new(),
        gateways: vec!["10.1.2.1".parse().expect("valid")],
        persistent: true,
        peer_name: "peer0".into(),
        sysctls: Vec::new(),
    }
}

fn links(netns: &Netns) -> Vec<netns_setup::link::LinkView> {
    netns.run(|| Links::open()?.list()).expect("links")
}

#[test]
fn an_endpoint_has_what_was_asked() {
    if skipped() {
        return;
    }
    for kind in [Kind::Tap, Kind::Veth] {
        let ((target, _pin), (side, _pin2)) = (namespace(&format!("t{kind:?}")), namespace(&format!("s{kind:?}")));
        let _port = attach(&target, &side, &spec(kind)).expect("attach");
        let links = links(&target);
        let eth0 = links.iter().find(|link| link.name == "eth0").expect("eth0");
        assert_eq!((eth0.mtu, eth0.mac.as_str(), eth0.is_ethernet), (1400, "02:00:00:00:00:07", true));
        assert!(eth0.addresses.contains(&"10.1.2.3/24".parse().expect("valid")) && eth0.addresses.contains(&"fd01::3/64".parse().expect("valid")));
        let routes = target.run(|| Links::open()?.routes()).expect("routes");
        assert!(routes.iter().any(|route| route.destination == "default" && route.device == "eth0"), "{routes:?}");
        assert!(links.iter().any(|link| link.name == "lo" && !link.is_ethernet && link.flags.contains(&"UP".into())), "lo is up");
    }
}

#[test]
fn a_failed_step_leaves_nothing() {
    if skipped() {
        return;
    }
    for kind in [Kind::Tap, Kind::Veth] {
        let ((target, _pin), (side, _pin2)) = (namespace(&format!("ft{kind:?}")), namespace(&format!("fs{kind:?}")));
        let bad = EndpointSpec { gateways: vec!["192.168.77.1".parse().expect("valid")], ..spec(kind) };
        let error = attach(&target, &side, &bad).expect_err("the gateway is not reachable");
        assert!(error.to_string().contains("192.168.77.1"), "{error}");
        assert_eq!(links(&target).len(), 1, "only lo");
        assert_eq!(links(&side).len(), 1, "only lo");
    }
}

#[test]
fn a_persistent_tap_waits_for_its_next_owner() {
    if skipped() {
        return;
    }
    let ((target, _pin), (side, _pin2)) = (namespace("pt"), namespace("ps"));
    drop(attach(&target, &side, &spec(Kind::Tap)).expect("attach"));
    let eth0 = links(&target).into_iter().find(|link| link.name == "eth0").expect("still there");
    assert!(eth0.flags.contains(&"NO-CARRIER".into()) && eth0.addresses.contains(&"10.1.2.3/24".parse().expect("valid")));
    target.run(|| {
        let mut links = Links::open()?;
        links.set_up("eth0", false)?;
        links.rename("eth0", "lan0")?;
        links.set_up("lan0", true)
    }).expect("rename");
    let PortFd::Tap(fd, features) = reattach(&target, &side, Kind::Tap, "lan0", "").expect("reattach") else { panic!("a TAP") };
    assert!(features.vnet_hdr);
    assert_eq!(tap_name(fd.as_fd()).expect("name"), "lan0");
    assert!(!links(&target).iter().any(|link| link.flags.contains(&"NO-CARRIER".into())), "carrier is back");
    assert!(reattach(&target, &side, Kind::Tap, "eth9", "").is_err(), "nothing is made anew");
}
