//! What every store does, whoever keeps it.

use std::time::Duration;

use control::store::{Change, Compare, Entry, LeaseId, Outcome, Seen, Store, StoreError, Transaction};
use weft_tests::run::eventually;

/// A store with as many clients as asked for.
pub(super) trait World: Sync {
    type Handle: Store + Send;
    fn handle(&self) -> Self::Handle;
    /// Forgets what was before this revision.
    fn compact(&self, revision: u64);
    /// Lets time pass, if it does not by itself.
    fn pass(&self, time: Duration);
}

pub(super) fn all(world: &impl World) {
    compares(world);
    transactions_are_whole(world);
    prefixes(world);
    one_creator(world);
    watched(world);
    leases(world);
    kept_alive(world);
    compacted(world);
}

pub(super) fn put(key: &str, value: &str, lease: Option<LeaseId>) -> Change {
    Change::Put { key: key.into(), value: value.into(), lease }
}

fn delete(key: &str) -> Change {
    Change::Delete { key: key.into() }
}

fn when(when: &[Compare], then: Vec<Change>) -> Transaction {
    Transaction { when: when.to_vec(), then }
}

/// Carries changes out, whatever there is, and says at which revision.
pub(super) fn set(store: &mut impl Store, then: Vec<Change>) -> u64 {
    match store.transact(&when(&[], then)) {
        Ok(Outcome::Done(revision)) => revision,
        other => panic!("{other:?}"),
    }
}

/// What is seen until there are this many.
pub(super) fn see(store: &mut impl Store, many: usize) -> Vec<Seen> {
    let mut seen = Vec::new();
    eventually("the watch tells", || {
        seen.extend(store.poll());
        seen.len() >= many
    });
    seen
}

/// Each compare alone, where it holds and where it does not.
fn compares(world: &impl World) {
    let mut store = world.handle();
    let (here, gone) = ("compares/here".to_owned(), "compares/gone".to_owned());
    let at = set(&mut store, vec![put(&here, "v", None)]);
    let entry = Entry { key: here.clone(), value: b"v".to_vec(), revision: at, lease: None };
    let holds = [Compare::Absent(gone.clone()), Compare::Present(here.clone()), Compare::Unchanged(here.clone(), at)];
    for compare in holds {
        assert_eq!(store.transact(&when(std::slice::from_ref(&compare), Vec::new())), Ok(Outcome::Done(at)), "{compare:?}, and nothing was changed");
    }
    let not = [
        (Compare::Absent(here.clone()), vec![entry.clone()]),
        (Compare::Present(gone.clone()), vec![]),
        (Compare::Unchanged(here.clone(), at - 1), vec![entry.clone()]),
        (Compare::Unchanged(here.clone(), at + 1), vec![entry.clone()]),
        (Compare::Unchanged(gone.clone(), at), vec![]),
    ];
    for (compare, there) in not {
        assert_eq!(store.transact(&when(std::slice::from_ref(&compare), vec![delete(&here)])), Ok(Outcome::Refused(there)), "{compare:?}");
    }
    assert_eq!(store.range(&here).expect("a snapshot").entries, [entry]);
}

/// All under one revision or nothing; what was found is told in the order of the compares.
fn transactions_are_whole(world: &impl World) {
    let mut store = world.handle();
    let at = set(&mut store, vec![put("whole/b", "1", None), put("whole/a", "", None), delete("whole/none")]);
    let entry = |key: &str, value: &str| Entry { key: key.into(), value: value.into(), revision: at, lease: None };
    let snapshot = store.range("whole/").expect("a snapshot");
    assert_eq!((snapshot.revision, snapshot.entries), (at, vec![entry("whole/a", ""), entry("whole/b", "1")]));
    let compares = [Compare::Present("whole/b".into()), Compare::Absent("whole/c".into()), Compare::Absent("whole/a".into())];
    let refused = store.transact(&when(&compares, vec![delete("whole/b")]));
    assert_eq!(refused, Ok(Outcome::Refused(vec![entry("whole/b", "1"), entry("whole/a", "")])));
    assert_eq!(set(&mut store, vec![delete("whole/none")]), at, "a change that changes nothing takes no revision");
    let twice = store.transact(&when(&[], vec![put("whole/a", "1", None), put("whole/a", "2", None)]));
    assert!(matches!(twice, Err(StoreError::Refused(_))), "{twice:?}");
}

/// A prefix is one of text, not of path elements; the empty one is everything; values are any bytes.
fn prefixes(world: &impl World) {
    let mut store = world.handle();
    let any: Vec<u8> = (0..=255).collect();
    let value = Change::Put { key: "prefix/ü".into(), value: any.clone(), lease: None };
    set(&mut store, vec![put("prefix", "", None), put("prefix/1", "", None), put("prefix0", "", None), value]);
    let keys = |store: &mut dyn Store, prefix: &str| store.range(prefix).expect("a snapshot").entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>();
    assert_eq!(keys(&mut store, "prefix/"), ["prefix/1", "prefix/ü"]);
    assert_eq!(keys(&mut store, "prefix"), ["prefix", "prefix/1", "prefix/ü", "prefix0"]);
    assert_eq!(store.range("prefix/ü").expect("a snapshot").entries[0].value, any);
    let all = keys(&mut store, "");
    assert!(all.is_sorted() && all.len() > 4, "{all:?}");
}

/// V10: of creators that race exactly one wins, and the others are told who it was.
fn one_creator(world: &impl World) {
    const RACERS: usize = 8;
    for round in 0..10 {
        let key = format!("race/{round}");
        let start = std::sync::Barrier::new(RACERS);
        let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
            let racer = |name: usize| {
                let (mut store, key, start) = (world.handle(), key.clone(), &start);
                scope.spawn(move || {
                    start.wait();
                    store.transact(&when(&[Compare::Absent(key.clone())], vec![put(&key, &name.to_string(), None)])).expect("an outcome")
                })
            };
            let racers: Vec<_> = (0..RACERS).map(racer).collect();
            racers.into_iter().map(|racer| racer.join().expect("a racer")).collect()
        });
        let won: Vec<usize> = outcomes.iter().enumerate().filter(|(_, outcome)| matches!(outcome, Outcome::Done(_))).map(|(name, _)| name).collect();
        assert_eq!(won.len(), 1, "{outcomes:?}");
        for outcome in outcomes {
            if let Outcome::Refused(there) = outcome {
                assert_eq!(there[0].value, won[0].to_string().into_bytes());
            }
        }
    }
}

/// A watch tells what came after its revision, in order, and what is below its prefix; another replaces it.
fn watched(world: &impl World) {
    let (mut writer, mut store) = (world.handle(), world.handle());
    set(&mut writer, vec![put("watched/before", "", None)]);
    let from = store.range("watched/").expect("a snapshot").revision;
    let one = set(&mut writer, vec![put("watched/a", "1", None), put("watched/b", "1", None), put("elsewhere", "", None)]);
    store.watch("watched/", from).expect("a watch");
    set(&mut writer, vec![put("elsewhere", "2", None)]);
    let two = set(&mut writer, vec![delete("watched/b"), put("watched/a", "2", None)]);
    let entry = |key: &str, value: &str, revision| Seen::Put(Entry { key: key.into(), value: value.into(), revision, lease: None });
    let first = [entry("watched/a", "1", one), entry("watched/b", "1", one), Seen::Deleted { key: "watched/b".into(), revision: two }, entry("watched/a", "2", two)];
    assert_eq!(see(&mut store, 4), first);
    store.watch("elsewhere", two).expect("a watch");
    set(&mut writer, vec![put("watched/a", "3", None)]);
    let three = set(&mut writer, vec![delete("elsewhere")]);
    assert_eq!(see(&mut store, 1), [Seen::Deleted { key: "elsewhere".into(), revision: three }]);
}

/// V18: with a lease goes what hangs on it, under one revision; what was hung elsewhere meanwhile stays.
fn leases(world: &impl World) {
    let mut store = world.handle();
    let lease = store.grant(Duration::from_secs(60)).expect("a lease");
    let other = store.grant(Duration::from_secs(60)).expect("a lease");
    assert_ne!(lease, other);
    set(&mut store, vec![put("leases/a", "", Some(lease)), put("leases/b", "", Some(lease)), put("leases/c", "", Some(lease)), put("leases/d", "", Some(lease))]);
    let from = set(&mut store, vec![put("leases/c", "", Some(other)), put("leases/d", "", None)]);
    store.watch("leases/", from).expect("a watch");
    store.revoke(lease).expect("the end");
    let gone = |key: &str| Seen::Deleted { key: key.into(), revision: from + 1 };
    let mut seen = see(&mut store, 2);
    seen.sort_by_key(|seen| seen.key().map(str::to_owned));
    assert_eq!(seen, [gone("leases/a"), gone("leases/b")]);
    let left: Vec<_> = store.range("leases/").expect("a snapshot").entries.into_iter().map(|entry| (entry.key, entry.lease)).collect();
    assert_eq!(left, [("leases/c".into(), Some(other)), ("leases/d".into(), None)]);
    assert_eq!(store.revoke(lease), Ok(()), "gone is no error");
    let hung = vec![put("leases/e", "", Some(lease))];
    assert_eq!(store.transact(&when(&[], hung.clone())), Err(StoreError::LeaseEnded));
    assert_eq!(store.transact(&when(&[Compare::Present("leases/e".into())], hung)), Ok(Outcome::Refused(vec![])), "what is compared comes first");
}

/// V18: a lease ends by itself, unless it is kept alive; then it cannot be any more.
fn kept_alive(world: &impl World) {
    let (mut store, mut watcher) = (world.handle(), world.handle());
    let dies = store.grant(Duration::from_secs(2)).expect("a lease");
    let lives = store.grant(Duration::from_secs(60)).expect("a lease");
    let from = set(&mut store, vec![put("alive/dies", "", Some(dies)), put("alive/lives", "", Some(lives))]);
    watcher.watch("alive/", from).expect("a watch");
    assert_eq!(store.keep_alive(dies), Ok(()));
    world.pass(Duration::from_secs(2));
    assert_eq!(see(&mut watcher, 1), [Seen::Deleted { key: "alive/dies".into(), revision: from + 1 }]);
    assert_eq!(store.keep_alive(dies), Err(StoreError::LeaseEnded));
    assert_eq!(store.keep_alive(lives), Ok(()));
    assert_eq!(store.keep_alive(LeaseId(77)), Err(StoreError::LeaseEnded), "never granted");
}

/// Who asks for what is no longer kept has lost it, and hears nothing more until he watches again.
fn compacted(world: &impl World) {
    let mut store = world.handle();
    let from = set(&mut store, vec![put("compacted/a", "1", None)]);
    let last = (2..6).map(|value| set(&mut store, vec![put("compacted/a", &value.to_string(), None)])).last().expect("a revision");
    world.compact(last);
    store.watch("compacted/", from).expect("a watch");
    assert_eq!(see(&mut store, 1), [Seen::Lost]);
    set(&mut store, vec![put("compacted/a", "6", None)]);
    let snapshot = store.range("compacted/").expect("a snapshot");
    assert_eq!(snapshot.entries[0].value, b"6");
    assert_eq!(store.poll(), []);
    store.watch("compacted/", snapshot.revision).expect("a watch");
    let at = set(&mut store, vec![delete("compacted/a")]);
    assert_eq!(see(&mut store, 1), [Seen::Deleted { key: "compacted/a".into(), revision: at }]);
}
