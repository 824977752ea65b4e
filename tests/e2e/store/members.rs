//! Members that die, are cut off from the others, or belong to another cluster than before.

use control::store::{Outcome, Seen, Store, StoreError, StoreOptions, Transaction};
use nix::sys::signal::Signal;
use weft_tests::run::eventually;

use super::{
    contract::{put, see, set},
    local::{Cluster, client},
};

/// Puts until a member that can do so has.
fn put_at_last(store: &mut impl Store, key: &str) -> u64 {
    let mut at = 0;
    eventually("a put is carried out", || match store.transact(&Transaction { when: Vec::new(), then: vec![put(key, "", None)] }) {
        Ok(Outcome::Done(revision)) => {
            at = revision;
            true
        }
        Err(StoreError::Away(_)) => false,
        other => panic!("{other:?}"),
    });
    at
}

/// V4: a cluster started as in the field; its leader, which we talk to, dies: calls and the watch go on with the others, and
/// nothing is missed.
pub(super) fn leader_dies() {
    let mut cluster = Cluster::start(3);
    assert_eq!(cluster.etcdctl(&["member", "list"]).lines().filter(|line| line.contains("docker-node")).count(), 3);
    let leader = cluster.leader();
    cluster.members.swap(0, leader);
    let (mut store, mut watcher) = (cluster.client(), cluster.client());
    let from = set(&mut store, vec![put("k/before", "", None)]);
    watcher.watch("k/", from).expect("a watch");
    set(&mut store, vec![put("k/0", "", None)]);
    let mut seen = see(&mut watcher, 1);
    eprintln!("leader {} is killed", cluster.members[0].name);
    cluster.members[0].kill();
    for n in 1..20 {
        put_at_last(&mut store, &format!("k/{n}"));
    }
    let keys = |seen: &[Seen]| seen.iter().filter_map(Seen::key).map(str::to_owned).collect::<Vec<_>>();
    eventually("the watch has seen the last", || {
        seen.extend(watcher.poll());
        keys(&seen).iter().any(|key| key == "k/19")
    });
    // A put that was carried out without an answer was put again: the same key twice, never one missing.
    let mut keys = keys(&seen);
    keys.dedup();
    assert_eq!(keys, (0..20).map(|n| format!("k/{n}")).collect::<Vec<_>>(), "{seen:?}");
    assert!(!seen.contains(&Seen::Lost));
    let revisions: Vec<u64> = seen.iter().filter_map(|seen| if let Seen::Put(entry) = seen { Some(entry.revision) } else { None }).collect();
    assert!(revisions.is_sorted(), "{revisions:?}");
    assert!(store.range("k/").expect("a snapshot").entries.len() == 21);
}

/// A member that has lost the others keeps its streams open and says nothing: it is not believed. With the others it is back.
pub(super) fn no_quorum() {
    let cluster = Cluster::start(3);
    let mut store = client(&format!("etcd://{}", cluster.members[0].address), StoreOptions::default());
    let from = set(&mut store, vec![put("k/a", "", None)]);
    store.watch("k/", from).expect("a watch");
    set(&mut store, vec![put("k/b", "", None)]);
    see(&mut store, 1);
    for member in &cluster.members[1..] {
        member.signal(Signal::SIGSTOP);
    }
    let away = see(&mut store, 1);
    assert!(matches!(away.as_slice(), [Seen::Away(_)]), "{away:?}");
    assert!(matches!(store.range("k/"), Err(StoreError::Away(_))));
    for member in &cluster.members[1..] {
        member.signal(Signal::SIGCONT);
    }
    assert_eq!(see(&mut store, 1), [Seen::Back]);
    put_at_last(&mut store, "k/c");
    assert!(see(&mut store, 1).iter().all(|seen| seen.key() == Some("k/c")));
}

/// A store that was put back from a backup, or made anew, has revisions of its own: what was seen before means nothing.
pub(super) fn replaced() {
    let mut cluster = Cluster::start(1);
    let mut store = cluster.client();
    let from = set(&mut store, vec![put("k/a", "", None)]);
    let backup = cluster.directory.join("backup").display().to_string();
    cluster.etcdctl(&["snapshot", "save", &backup]);
    let later = set(&mut store, vec![put("k/b", "", None)]);
    assert!(later > from);
    store.range("k/").expect("a snapshot");
    store.watch("k/", later).expect("a watch");
    cluster.members[0].kill();
    let away = see(&mut store, 1);
    assert!(matches!(away.as_slice(), [Seen::Away(_)]), "{away:?}");
    let member = &mut cluster.members[0];
    let data = cluster.directory.join(&member.name);
    std::fs::remove_dir_all(&data).expect("the old data go");
    let peer = format!("http://{}:2380", member.address);
    let restore = ["snapshot", "restore", &backup, "--name", &member.name, "--initial-cluster", &format!("{}={peer}", member.name), "--initial-advertise-peer-urls", &peer, "--data-dir"];
    let restored = std::process::Command::new("etcdctl").env("ETCDCTL_API", "3").args(restore).arg(&data).output().expect("etcdctl");
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    member.start();
    assert_eq!(see(&mut store, 1), [Seen::Lost]);
    let snapshot = store.range("k/").expect("a snapshot");
    assert_eq!(snapshot.entries.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["k/a"]);
    store.watch("k/", snapshot.revision).expect("a watch");
    set(&mut store, vec![put("k/c", "", None)]);
    assert_eq!(see(&mut store, 1)[0].key(), Some("k/c"));
}
