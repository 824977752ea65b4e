//! Keys of encrypted networks: one record for all nodes, changed by stages.

use vxlan::crypt::Secret;

use super::*;

const PERIOD: u32 = 600;

fn secret(byte: u8) -> Secret {
    Secret([byte; 32])
}

/// A node with its clock.
struct Timed {
    node: TestNode,
    rotation: Rotation,
    fresh: u8,
}

impl Timed {
    fn new(store: &MemoryStore, number: u8) -> Self {
        Self { node: TestNode::new(store, number), rotation: Rotation::default(), fresh: 100 * number }
    }

    /// One round of its keeper at second `now`: true when it changed something.
    fn turn(&mut self, now: u64) -> bool {
        self.node.catch_up();
        let at = Instant::from_nanos(now * 1_000_000_000);
        let due = self.rotation.due(&self.node.replica, &self.node.member.node.name, LEASE, at);
        let mut changed = false;
        for network in due {
            self.fresh += 1;
            changed |= self.node.member.advance_secrets(&mut self.node.store, &mut self.node.replica, &network, secret(self.fresh)).unwrap();
        }
        changed
    }

    fn view(&self, id: &str) -> (Vec<u32>, u32) {
        let epochs = self.node.replica.epochs(id).unwrap();
        (epochs.accepted.iter().map(|(epoch, _)| *epoch).collect(), epochs.current)
    }
}

fn sealed(node: &mut TestNode) -> String {
    let request = NetworkCreate { name: "sealed".into(), driver: Some("overlay".into()), global: Some(true), encrypted: true, rekey_s: Some(PERIOD), ..NetworkCreate::default() };
    let id = node.id();
    node.model.create_network(&request, id.clone()).unwrap();
    let network = node.model.networks[&id].clone();
    assert!(node.member.create_network(&mut node.store, &mut node.replica, &network, Some(secret(1))).unwrap());
    id
}

fn put_raw(store: &MemoryStore, key: &str, value: &[u8]) {
    store.handle().transact(&Transaction { when: vec![], then: vec![Change::Put { key: key.into(), value: value.to_vec(), lease: None }] }).unwrap();
}

#[test]
fn all_nodes_have_the_same_and_nothing_else_shows_them() {
    let (store, mut one, mut two) = two();
    let id = sealed(&mut one);
    two.catch_up();
    assert_eq!(one.replica.epochs(&id), two.replica.epochs(&id));
    assert_eq!(two.replica.epochs(&id).unwrap().accepted, [(1, secret(1))]);
    let network = &two.model.networks[&id];
    assert_eq!((network.mtu, network.overlay.as_ref().map(|overlay| (overlay.encrypted, overlay.rekey_s))), (1414, Some((true, Some(PERIOD)))));
    let key = "01".repeat(32);
    assert!(!serde_json::to_string(&two.model).unwrap().contains(&key) && !format!("{:?}{:?}", two.replica, two.model).contains(&key));
    let everything = store.handle().range("").unwrap().entries;
    let with: Vec<_> = everything.iter().filter(|entry| String::from_utf8_lossy(&entry.value).contains(&key)).map(|entry| entry.key.clone()).collect();
    assert_eq!(with, [one.member.keys.secrets(&id)]);
    one.member.remove_network(&mut one.store, &mut one.replica, &one.model.networks[&id].clone()).unwrap();
    assert!(store.handle().range(&one.member.keys.secrets(&id)).unwrap().entries.is_empty(), "with the network goes its key");
}

/// A program that knows of no encryption must not take the network for a clear one.
#[test]
fn older_programs_cannot_read_the_network() {
    let (_store, mut one, _) = two();
    let version = |node: &mut TestNode, id: &str| {
        let entry = node.store.range(&node.member.keys.network(id)).unwrap().entries.remove(0);
        serde_json::from_slice::<serde_json::Value>(&entry.value).unwrap()["version"].clone()
    };
    let (id, clear) = (sealed(&mut one), one.create_network("clear").unwrap());
    assert_eq!((version(&mut one, &id), version(&mut one, &clear)), (2.into(), 1.into()));
}

/// Each stage lasts at least a lease from when anybody heard of it; one node does it, and no stage is left out.
#[test]
fn a_change_goes_by_stages_that_all_have_heard_of() {
    let store = MemoryStore::new();
    let (mut one, mut two) = (Timed::new(&store, 1), Timed::new(&store, 2));
    let id = sealed(&mut one.node);
    assert!(!one.turn(0) && !two.turn(0));
    assert!(!one.turn(599) && !two.turn(599), "the period is not over");
    assert!(one.turn(600) && !two.turn(600), "the first by name does it");
    let offered = (vec![1, 2], 1);
    assert_eq!((one.view(&id), two.view(&id)), (offered.clone(), offered));
    let error = two.node.member.rekey(&mut two.node.store, &mut two.node.replica, &one.node.model.networks[&id], secret(9)).unwrap_err();
    assert!(error.to_string().contains("are being changed"), "{error}");
    // The first is dead: the second takes its turn.
    assert!(!two.turn(615) && two.turn(616));
    assert_eq!(two.view(&id), (vec![1, 2], 2));
    // It starts again, and knows not when that was: it waits whole leases.
    two.rotation = Rotation::default();
    assert!(!two.turn(625) && !two.turn(640) && two.turn(641));
    assert_eq!(two.view(&id), (vec![2], 2));
    assert!(!one.turn(642) && one.view(&id) == (vec![2], 2));
    assert_eq!(one.node.replica.epochs(&id), two.node.replica.epochs(&id));
}

/// Two nodes at once: one record, and both have it.
#[test]
fn of_two_that_change_one_is_first() {
    let (_store, mut one, mut two) = two();
    let id = sealed(&mut one);
    two.catch_up();
    let network = one.model.networks[&id].clone();
    let first = one.member.rekey(&mut one.store, &mut one.replica, &network, secret(2)).unwrap();
    let error = two.member.rekey(&mut two.store, &mut two.replica, &network, secret(3)).unwrap_err();
    assert!(error.to_string().contains("are being changed"), "{error}");
    assert!(!two.member.advance_secrets(&mut two.store, &mut two.replica, &id, secret(3)).unwrap(), "what it knows is old");
    two.catch_up();
    assert_eq!(two.replica.epochs(&id), Ok(&first));
}

#[test]
fn what_is_missing_is_made_anew_and_what_is_damaged_is_named() {
    let store = MemoryStore::new();
    let mut one = Timed::new(&store, 1);
    let id = sealed(&mut one.node);
    let key = one.node.member.keys.secrets(&id);
    let network = one.node.model.networks[&id].clone();
    let good = "5a".repeat(32);
    for (number, (value, why)) in (1u64..).zip([
        (String::new(), "no record of secrets"),
        ("{}".into(), "no record of secrets"),
        (r#"{"version":9}"#.into(), "has version 9"),
        (r#"{"version":1,"epochs":[],"current":1}"#.into(), "0 epochs"),
        (format!(r#"{{"version":1,"epochs":[{{"epoch":1,"key":"{good}"}}],"current":2}}"#), "epoch 2 has no key"),
        (format!(r#"{{"version":1,"epochs":[{{"epoch":1,"key":"{good}"}},{{"epoch":1,"key":"{good}"}}],"current":1}}"#), "twice"),
        (format!(r#"{{"version":1,"epochs":[{{"epoch":1,"key":"{}"}}],"current":1}}"#, &good[..62]), "62 digits"),
        (format!(r#"{{"version":1,"epochs":[{{"epoch":1,"key":"{}"}}],"current":1}}"#, "0".repeat(64)), "zeros"),
        (format!(r#"{{"version":1,"epochs":"{good}","current":1}}"#), "no record of secrets"),
        (format!(r#"{{"version":1,"epochs":[{{"epoch":1,"key":"{good}"}},{{"epoch":2,"key":"{good}"}},{{"epoch":3,"key":"{good}"}}],"current":1}}"#), "3 epochs"),
    ]) {
        put_raw(&store, &key, value.as_bytes());
        assert!(!one.turn(1000 * number) && !one.turn(1000 * number + 900), "nobody replaces what he does not understand");
        let error = one.node.replica.epochs(&id).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains(&key) && !error.contains("5a5a"), "{error}");
        assert!(one.node.replica.problems().any(|problem| problem.contains(why)));
    }
    // Whoever runs the cluster may, but for what a later program wrote.
    put_raw(&store, &key, br#"{"version":9}"#);
    one.node.catch_up();
    assert!(one.node.member.rekey(&mut one.node.store, &mut one.node.replica, &network, secret(7)).is_err());
    put_raw(&store, &key, b"rubbish");
    one.node.catch_up();
    one.node.member.rekey(&mut one.node.store, &mut one.node.replica, &network, secret(7)).unwrap();
    assert_eq!(one.view(&id), (vec![1], 1));
    store.handle().transact(&Transaction { when: vec![], then: vec![Change::Delete { key: key.clone() }] }).unwrap();
    assert!(!one.turn(50_000) && one.node.replica.epochs(&id).unwrap_err().to_string().contains("is not in the store"));
    assert!(!one.turn(50_014) && one.turn(50_015));
    assert_eq!(one.view(&id), (vec![1], 1));
}
