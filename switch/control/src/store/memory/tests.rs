//! What only a world that holds the clock and the links can ask; the contract itself is tested beside etcd's client.

use std::time::Duration;

use packet::Instant;

use super::{Link, MemoryHandle, MemoryStore};
use crate::store::{Change, Compare, LeaseId, Outcome, Seen, Store, StoreError, Transaction};

fn put(handle: &mut MemoryHandle, key: &str, lease: Option<LeaseId>) -> Result<Outcome, StoreError> {
    handle.transact(&Transaction { when: Vec::new(), then: vec![Change::Put { key: key.into(), value: b"v".to_vec(), lease }] })
}

fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

fn keys(seen: &[Seen]) -> Vec<&str> {
    seen.iter()
        .map(|seen| match seen {
            Seen::Put(entry) => entry.key.as_str(),
            Seen::Deleted { .. } => "deleted",
            Seen::Lost => "lost",
            Seen::Away(_) => "away",
            Seen::Back => "back",
        })
        .collect()
}

/// V18: a lease ends when its time is over, not before, and its keys go under one revision; renewed, it lives on.
#[test]
fn leases_end_in_virtual_time() {
    let store = MemoryStore::new();
    let (mut node, mut other) = (store.handle(), store.handle());
    let dies = node.grant(Duration::from_millis(2_500)).unwrap();
    let lives = node.grant(Duration::from_secs(3)).unwrap();
    put(&mut node, "k/a", Some(dies)).unwrap();
    put(&mut node, "k/b", Some(dies)).unwrap();
    put(&mut node, "k/c", Some(lives)).unwrap();
    other.watch("k/", store.revision()).unwrap();
    store.advance(at(2));
    node.keep_alive(lives).unwrap();
    assert_eq!(store.next_end(), Some(at(3)), "2.5 s are rounded up");
    assert_eq!(other.poll(), []);
    store.advance(at(3));
    let gone = |key: &str| Seen::Deleted { key: key.into(), revision: 5 };
    assert_eq!(other.poll(), [gone("k/a"), gone("k/b")]);
    assert_eq!(node.keep_alive(dies), Err(StoreError::LeaseEnded));
    store.advance(at(5));
    assert_eq!((node.range("k/").unwrap().entries.len(), store.next_end()), (0, None));
}

/// A cut client learns nothing and changes nothing; when its link is mended it has missed nothing.
#[test]
fn a_cut_link_misses_nothing_once_mended() {
    let store = MemoryStore::new();
    let (mut near, mut far) = (store.handle(), store.handle());
    far.watch("k/", 1).unwrap();
    put(&mut near, "k/1", None).unwrap();
    store.set_link(far.number(), Link::Cut);
    put(&mut near, "k/2", None).unwrap();
    put(&mut near, "other", None).unwrap();
    assert!(matches!(put(&mut far, "k/never", None), Err(StoreError::Away(_))));
    assert_eq!(keys(&far.poll()), ["k/1", "away"]);
    assert_eq!(keys(&far.poll()), [""; 0], "told once");
    store.set_link(far.number(), Link::Whole);
    assert_eq!(keys(&far.poll()), ["back", "k/2"]);
    assert_eq!(far.range("").unwrap().entries.len(), 3, "nothing was carried out over a cut link");
}

/// A call whose answer is lost was carried out all the same.
#[test]
fn a_lost_answer_is_away_and_done() {
    let store = MemoryStore::new();
    let mut node = store.handle();
    store.set_link(node.number(), Link::Deaf);
    assert!(matches!(put(&mut node, "k", None), Err(StoreError::Away(_))));
    store.set_link(node.number(), Link::Whole);
    assert_eq!(node.range("k").unwrap().entries.len(), 1);
}

/// Compaction costs only whom it overtook: a client that was cut off, or one that asks for what is gone.
#[test]
fn compaction_overtakes_the_cut_off() {
    let store = MemoryStore::new();
    let (mut near, mut far) = (store.handle(), store.handle());
    for handle in [&mut near, &mut far] {
        handle.watch("", 1).unwrap();
    }
    store.set_link(far.number(), Link::Cut);
    for key in ["a", "b", "c"] {
        put(&mut near, key, None).unwrap();
    }
    store.compact(3);
    store.set_link(far.number(), Link::Whole);
    assert_eq!(keys(&near.poll()), ["a", "b", "c"]);
    assert_eq!(keys(&far.poll()), ["away", "lost"]);
    put(&mut near, "d", None).unwrap();
    assert_eq!(far.poll(), [], "a lost watch is over");
    far.watch("", 2).unwrap();
    assert_eq!(keys(&far.poll()), ["b", "c", "d"], "3 is still kept");
    far.watch("", 1).unwrap();
    assert_eq!(keys(&far.poll()), ["lost"]);
}

/// After a restore revisions count from the backup's again: what was unchanged then is changed, and every watch is lost.
#[test]
fn a_restored_store_loses_every_watch() {
    let store = MemoryStore::new();
    let mut node = store.handle();
    let lease = node.grant(Duration::from_secs(10)).unwrap();
    put(&mut node, "old", Some(lease)).unwrap();
    let backup = store.backup();
    put(&mut node, "new", None).unwrap();
    node.watch("", store.revision()).unwrap();
    store.advance(at(9));
    store.restore(&backup);
    assert_eq!(keys(&node.poll()), ["lost"]);
    assert_eq!(node.range("").unwrap().entries.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["old"]);
    assert_eq!(store.next_end(), Some(at(19)));
    let stale = Transaction { when: vec![Compare::Unchanged("new".into(), 3)], then: Vec::new() };
    assert_eq!(node.transact(&stale).unwrap(), Outcome::Refused(Vec::new()));
}

/// What etcd would refuse whole is refused here too, before anything is compared.
#[test]
fn impossible_transactions_are_refused() {
    let mut node = MemoryStore::new().handle();
    let delete = |key: &str| Change::Delete { key: key.into() };
    for (then, why) in [
        (vec![delete("k"), delete("k")], "twice"),
        (vec![delete("")], "empty key"),
        (vec![Change::Put { key: "k".into(), value: vec![0; Transaction::LARGEST], lease: None }], "bytes"),
        ((0..=Transaction::MOST).map(|n| delete(&n.to_string())).collect(), "129 changes"),
    ] {
        let refused = node.transact(&Transaction { when: vec![Compare::Present("absent".into())], then });
        assert!(matches!(&refused, Err(StoreError::Refused(text)) if text.contains(why)), "{refused:?}");
    }
}
