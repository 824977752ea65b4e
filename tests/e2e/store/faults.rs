//! A connection that breaks, falls silent, or is away for too long.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use control::store::{Seen, Store, StoreError, StoreOptions};
use weft_tests::run::eventually;

use super::{
    contract::{World, put, see, set},
    local::{Cluster, address, client},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    Whole,
    /// Connections are closed, also new ones.
    Cut,
    /// Connections stay, and nothing comes through.
    Silent,
}

/// Carries connections to a member, or does not.
struct Proxy {
    url: String,
    wire: Arc<Mutex<Wire>>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    fn to(member: &str) -> Self {
        let listener = TcpListener::bind((address(), 2379)).expect("a listener");
        let url = format!("etcd://{}", listener.local_addr().expect("an address"));
        let proxy = Self { url, wire: Arc::new(Mutex::new(Wire::Whole)), open: Arc::default() };
        let (wire, open, member) = (proxy.wire.clone(), proxy.open.clone(), format!("{member}:2379"));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if *wire.lock().expect("a wire") == Wire::Cut {
                    continue;
                }
                let Ok(server) = TcpStream::connect(&member) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to, wire) = (from.try_clone().expect("a stream"), to.try_clone().expect("a stream"), wire.clone());
                    thread::spawn(move || carry(from, to, &wire));
                }
                open.lock().expect("streams").extend([client, server]);
            }
        });
        proxy
    }

    fn set(&self, wire: Wire) {
        *self.wire.lock().expect("a wire") = wire;
        if wire != Wire::Silent {
            for stream in self.open.lock().expect("streams").drain(..) {
                drop(stream.shutdown(Shutdown::Both));
            }
        }
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, wire: &Mutex<Wire>) {
    let mut bytes = [0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        if *wire.lock().expect("a wire") == Wire::Whole && to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    drop(to.shutdown(Shutdown::Both));
}

fn keys(seen: &[Seen]) -> Vec<&str> {
    seen.iter().filter_map(Seen::key).collect()
}

/// However often the connection breaks, each change is told once and in order.
pub(super) fn broken() {
    let cluster = Cluster::start(1);
    let proxy = Proxy::to(&cluster.members[0].address);
    let (mut near, mut far) = (cluster.client(), client(&proxy.url, StoreOptions::default()));
    let from = set(&mut near, vec![put("elsewhere", "", None)]);
    far.watch("k/", from).expect("a watch");
    let mut seen = Vec::new();
    for n in 0..60 {
        if n % 5 == 0 {
            proxy.set(Wire::Whole);
        }
        set(&mut near, vec![put(&format!("k/{n:02}"), "", None)]);
        seen.extend(far.poll());
    }
    eventually("the last is seen", || {
        seen.extend(far.poll());
        keys(&seen).contains(&"k/59")
    });
    assert_eq!(keys(&seen), (0..60).map(|n| format!("k/{n:02}")).collect::<Vec<_>>());
    // Away for longer: said once, and what happened meanwhile comes after it is back.
    proxy.set(Wire::Cut);
    let away = see(&mut far, 1);
    assert!(matches!(away.as_slice(), [Seen::Away(_)]), "{away:?}");
    set(&mut near, vec![put("k/60", "", None)]);
    assert!(matches!(far.range("k/"), Err(StoreError::Away(_))));
    thread::sleep(Duration::from_millis(1_200));
    assert_eq!(far.poll(), [], "told once");
    proxy.set(Wire::Whole);
    let seen = see(&mut far, 2);
    assert_eq!((&seen[0], seen[1].key()), (&Seen::Back, Some("k/60")));
}

/// A connection on which nothing arrives any more is not one; calls end in time.
pub(super) fn silent() {
    let cluster = Cluster::start(1);
    let proxy = Proxy::to(&cluster.members[0].address);
    let (mut near, mut far) = (cluster.client(), client(&proxy.url, StoreOptions::default()));
    let from = set(&mut near, vec![put("k/a", "", None)]);
    far.watch("k/", from).expect("a watch");
    set(&mut near, vec![put("k/b", "", None)]);
    assert_eq!(keys(&see(&mut far, 1)), ["k/b"]);
    proxy.set(Wire::Silent);
    let start = Instant::now();
    assert!(matches!(far.range("k/"), Err(StoreError::Away(_))));
    eprintln!("a call gave up after {:?}", start.elapsed());
    let away = see(&mut far, 1);
    assert!(matches!(away.as_slice(), [Seen::Away(_)]), "{away:?}");
    eprintln!("silence was noticed after {:?}", start.elapsed());
    set(&mut near, vec![put("k/c", "", None)]);
    proxy.set(Wire::Whole);
    let seen = see(&mut far, 2);
    assert_eq!((&seen[0], seen[1].key()), (&Seen::Back, Some("k/c")));
}

/// Away until what was missed is no longer kept: lost, and not back.
pub(super) fn compacted() {
    let cluster = Cluster::start(1);
    let proxy = Proxy::to(&cluster.members[0].address);
    let (mut near, mut far) = (cluster.client(), client(&proxy.url, StoreOptions::default()));
    let from = set(&mut near, vec![put("k/a", "", None)]);
    far.watch("k/", from).expect("a watch");
    set(&mut near, vec![put("k/a", "1", None)]);
    see(&mut far, 1);
    proxy.set(Wire::Cut);
    see(&mut far, 1);
    let last = (0..5).map(|_| set(&mut near, vec![put("k/a", "2", None)])).last().expect("a revision");
    cluster.compact(last);
    proxy.set(Wire::Whole);
    assert_eq!(see(&mut far, 1), [Seen::Lost]);
    let snapshot = far.range("k/").expect("a snapshot");
    far.watch("k/", snapshot.revision).expect("a watch");
    set(&mut near, vec![put("k/a", "3", None)]);
    assert_eq!(keys(&see(&mut far, 1)), ["k/a"]);
}
