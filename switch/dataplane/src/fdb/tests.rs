use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn fdb(capacity: usize) -> Fdb {
    Fdb::new(capacity, Duration::from_secs(300), Keyed::new([3, 5]))
}

fn mac(index: u32) -> u64 {
    0x0200_0000_0000 | u64::from(index)
}

fn seconds(seconds: u64) -> Instant {
    Instant::from_nanos(seconds * 1_000_000_000)
}

#[derive(Clone, Debug)]
enum Op {
    Learn(u32, PortSlot),
    AddStatic(u32, PortSlot),
    Remove(u32),
    Flush(PortSlot, bool),
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..60_u32, 0..4_u32).prop_map(|(mac, port)| Op::Learn(mac, port)),
        1 => (0..60_u32, 0..4_u32).prop_map(|(mac, port)| Op::AddStatic(mac, port)),
        2 => (0..60_u32).prop_map(Op::Remove),
        1 => (0..4_u32, any::<bool>()).prop_map(|(port, statics)| Op::Flush(port, statics)),
        2 => (0..200_u64).prop_map(Op::Wait),
    ]
}

proptest! {
    /// Against a map that does the obvious thing. Whole seconds never fall on the edge of a tick.
    #[test]
    fn behaves_like_a_naive_model(ops in proptest::collection::vec(op(), 1..400)) {
        let mut fdb = fdb(1000);
        let mut model: BTreeMap<u32, (PortSlot, Option<u64>)> = BTreeMap::new();
        let mut now = 0;
        let alive = |seen: Option<u64>, now: u64| seen.is_none_or(|seen| now - seen <= 300);
        for op in ops {
            match op {
                Op::Learn(m, p) => {
                    let known = model.get(&m).copied().filter(|(_, seen)| alive(*seen, now));
                    let expected = match known {
                        Some((_, None)) => Learned::Known,
                        Some((at, _)) if at == p => Learned::Known,
                        Some((at, _)) => Learned::Moved(at),
                        None => Learned::New,
                    };
                    prop_assert_eq!(fdb.learn(key(0, mac(m)), p, seconds(now)), expected);
                    if known.is_none_or(|(_, seen)| seen.is_some()) { model.insert(m, (p, Some(now))); }
                }
                Op::AddStatic(m, p) => {
                    prop_assert!(fdb.add_static(key(0, mac(m)), p, seconds(now)));
                    model.insert(m, (p, None));
                }
                Op::Remove(m) => {
                    let known = model.remove(&m).is_some_and(|(_, seen)| alive(seen, now));
                    prop_assert_eq!(fdb.remove(key(0, mac(m)), seconds(now)), known);
                }
                Op::Flush(p, statics) => {
                    fdb.flush(Some(p), statics);
                    model.retain(|_, (at, seen)| *at != p || (seen.is_none() && !statics));
                }
                Op::Wait(passed) => {
                    now += passed;
                    if fdb.poll_timeout().is_some_and(|at| at <= seconds(now)) {
                        fdb.sweep(seconds(now), |_| {});
                    }
                }
            }
            let expected: BTreeMap<_, _> = model.iter().filter(|(_, (_, seen))| alive(*seen, now)).map(|(m, (p, _))| (mac(*m), *p)).collect();
            for m in 0..60 {
                prop_assert_eq!(fdb.lookup(key(0, mac(m)), seconds(now)), expected.get(&mac(m)).copied());
            }
            let view: BTreeMap<_, _> = fdb.view(seconds(now)).into_iter().map(|found| (found.key, found.port)).collect();
            prop_assert_eq!(view, expected);
        }
    }
}

#[test]
fn a_mac_flood_evicts_the_flooder_only() {
    let mut fdb = fdb(1024);
    for station in 0..200 {
        fdb.learn(mac(station), station % 10, Instant::ZERO);
    }
    for random in 0..1_000_000 {
        fdb.learn(mac(1_000_000 + random), 10, Instant::from_nanos(u64::from(random)));
    }
    assert_eq!(fdb.len(), 1024);
    for station in 0..200 {
        assert_eq!(fdb.lookup(mac(station), Instant::ZERO), Some(station % 10), "station {station}");
    }
    // A newcomer on a quiet port still gets in, at the flooder's expense.
    let mut outcome = fdb.learn(mac(999), 11, Instant::ZERO);
    for _ in 0..8 {
        outcome = if outcome == Learned::Full { fdb.learn(mac(999), 11, Instant::ZERO) } else { outcome };
    }
    assert_eq!(outcome, Learned::Evicted);
    assert_eq!(fdb.lookup(mac(999), Instant::ZERO), Some(11));
}

#[test]
fn vlans_are_apart_and_statics_stay() {
    let mut fdb = fdb(16);
    fdb.learn(key(1, mac(1)), 1, Instant::ZERO);
    fdb.learn(key(2, mac(1)), 2, Instant::ZERO);
    assert_eq!((fdb.lookup(key(1, mac(1)), Instant::ZERO), fdb.lookup(key(2, mac(1)), Instant::ZERO)), (Some(1), Some(2)));
    assert!(fdb.add_static(mac(7), 3, Instant::ZERO));
    assert_eq!(fdb.learn(mac(7), 4, Instant::ZERO), Learned::Known);
    let late = seconds(100_000);
    fdb.sweep(late, |_| {});
    assert_eq!(fdb.lookup(mac(7), late), Some(3));
    assert_eq!((fdb.len(), fdb.poll_timeout()), (1, None));
}

#[test]
fn a_table_full_of_statics_refuses() {
    let mut fdb = fdb(4);
    assert!((0..4).all(|station| fdb.add_static(mac(station), 1, Instant::ZERO)));
    assert!(!fdb.add_static(mac(9), 1, Instant::ZERO));
    assert_eq!(fdb.learn(mac(9), 2, Instant::ZERO), Learned::Full);
    assert_eq!(fdb.len(), 4);
}

#[test]
fn an_entry_is_sixteen_bytes() {
    assert_eq!(size_of::<Entry>(), 16);
}
