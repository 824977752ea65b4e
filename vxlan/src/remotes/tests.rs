use std::collections::BTreeMap;

use packet::Mac;
use proptest::prelude::*;

use super::*;

const AGEING: Duration = Duration::from_secs(300);

fn mac(number: u32) -> UnicastMac {
    let [a, b, c, d] = number.to_be_bytes();
    UnicastMac::new(Mac([2, 0, a, b, c, d])).unwrap()
}

fn remote(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 4789))
}

fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

fn remotes(capacity: usize) -> Remotes {
    Remotes::new(capacity, Keyed::new([5, 6]))
}

#[derive(Clone, Debug)]
enum Step {
    Learn(u32, u8),
    Set(u32, u8, bool),
    Remove(u32),
    Flush(u8),
    FlushBehind(u8),
    Wait(u64),
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_u32..60, 1_u8..5).prop_map(|(mac, to)| Step::Learn(mac, to)),
        2 => (0_u32..60, 1_u8..5, any::<bool>()).prop_map(|(mac, to, operator)| Step::Set(mac, to, operator)),
        2 => (0_u32..60).prop_map(Step::Remove),
        1 => (0_u8..3).prop_map(Step::Flush),
        1 => (1_u8..5).prop_map(Step::FlushBehind),
        3 => (0_u64..200).prop_map(Step::Wait),
        1 => Just(Step::Sweep),
    ]
}

/// Where each station is, who said so, and when.
type Model = BTreeMap<u32, (u8, RemoteKind, u64)>;

fn learned(model: &mut Model, keep: impl Fn(&(u8, RemoteKind, u64)) -> bool) {
    model.retain(|_, entry| entry.1 != RemoteKind::Learned || keep(entry));
}

proptest! {
    /// Far below its capacity the table is a plain map with ageing.
    #[test]
    fn agrees_with_a_naive_map(steps in proptest::collection::vec(step(), 0..300), seed: [u64; 2]) {
        let mut table = Remotes::new(4096, Keyed::new(seed));
        let mut model = Model::new();
        let mut now = 1000;
        for step in steps {
            match step {
                Step::Learn(station, to) => {
                    let outcome = table.learn(mac(station), remote(to), AGEING, at(now));
                    let before = model.get(&station).copied();
                    let wanted = match before {
                        Some((_, RemoteKind::Static | RemoteKind::Pushed, _)) => Outcome::Known,
                        Some((there, RemoteKind::Learned, _)) if there == to => Outcome::Known,
                        Some(_) => Outcome::Moved,
                        None => Outcome::New,
                    };
                    prop_assert_eq!(outcome, wanted);
                    if before.is_none_or(|(_, kind, _)| kind == RemoteKind::Learned) {
                        model.insert(station, (to, RemoteKind::Learned, now));
                    }
                }
                Step::Set(station, to, operator) => {
                    let kind = if operator { RemoteKind::Static } else { RemoteKind::Pushed };
                    table.set(mac(station), remote(to), kind).unwrap();
                    if operator || model.get(&station).is_none_or(|(_, kind, _)| *kind != RemoteKind::Static) {
                        model.insert(station, (to, kind, now));
                    }
                }
                Step::Remove(station) => {
                    // The table may still hold a dead one.
                    let removed = table.remove(mac(station));
                    prop_assert!(removed || !model.contains_key(&station));
                    model.remove(&station);
                }
                Step::Flush(which) => {
                    let kind = [RemoteKind::Static, RemoteKind::Pushed, RemoteKind::Learned][usize::from(which)];
                    table.flush(kind);
                    model.retain(|_, (_, held, _)| *held != kind);
                }
                Step::FlushBehind(to) => {
                    table.flush_behind(remote(to));
                    learned(&mut model, |(there, _, _)| *there != to);
                }
                Step::Wait(seconds) => {
                    now += seconds;
                    learned(&mut model, |(_, _, seen)| now - seen <= 300);
                }
                Step::Sweep => {
                    let mut cursor = Some(0);
                    while let Some(from) = cursor {
                        cursor = table.sweep(from, AGEING, at(now));
                    }
                    let alive = model.values().filter(|(_, kind, _)| *kind == RemoteKind::Learned).count();
                    prop_assert_eq!(table.learned_len(), alive);
                }
            }
            for station in 0..60 {
                let wanted = model.get(&station).map(|(to, _, _)| remote(*to));
                prop_assert_eq!(table.lookup(mac(station), AGEING, at(now)), wanted);
            }
        }
        let view: Vec<_> = table.view(AGEING, at(now)).into_iter().map(|entry| (entry.mac, entry.to, entry.kind, entry.idle)).collect();
        let wanted: Vec<_> = model.iter().map(|(station, (to, kind, seen))| {
            let idle = (*kind == RemoteKind::Learned).then(|| Duration::from_secs(now - seen));
            (mac(*station), remote(*to), *kind, idle)
        }).collect();
        prop_assert_eq!(view, wanted);
    }
}

#[test]
fn it_lives_for_its_ageing_time_and_no_longer() {
    let mut table = remotes(64);
    table.learn(mac(1), remote(1), AGEING, at(10));
    assert_eq!(table.lookup(mac(1), AGEING, at(310)), Some(remote(1)));
    assert_eq!(table.lookup(mac(1), AGEING, at(311)), None);
    assert_eq!(table.learn(mac(1), remote(2), AGEING, at(311)), Outcome::New);
    assert_eq!(table.lookup(mac(1), AGEING, at(5)), Some(remote(2)), "a clock a little behind does no harm");
}

#[test]
fn a_thousand_stations_are_all_found() {
    let mut table = remotes(4096);
    for station in 0..1000 {
        assert_eq!(table.learn(mac(station), remote(1), AGEING, at(1)), Outcome::New);
    }
    assert!((0..1000).all(|station| table.lookup(mac(station), AGEING, at(2)).is_some()));
}

#[test]
fn a_flood_from_one_remote_stays_bounded_and_leaves_the_others() {
    let mut table = remotes(1024);
    for station in 0..200 {
        table.learn(mac(station), remote(1), AGEING, at(1));
    }
    table.set(mac(5000), remote(3), RemoteKind::Pushed).unwrap();
    for station in 10_000..200_000 {
        table.learn(mac(station), remote(2), AGEING, at(2));
    }
    assert!(table.learned_len() <= 2048, "{}", table.learned_len());
    assert_eq!(table.lookup(mac(5000), AGEING, at(2)), Some(remote(3)));
    let kept = (0..200).filter(|station| table.lookup(mac(*station), AGEING, at(2)).is_some()).count();
    // Five of eight in one bucket, which is more than a fair share, are rare.
    assert!(kept >= 198, "{kept}");
}

#[test]
fn the_idlest_goes_first() {
    let mut table = remotes(1);
    for station in 0..8 {
        table.learn(mac(station), remote(1), AGEING, at(u64::from(station)));
    }
    table.learn(mac(0), remote(1), AGEING, at(20));
    assert_eq!(table.learn(mac(8), remote(1), AGEING, at(21)), Outcome::Evicted);
    assert_eq!(table.lookup(mac(1), AGEING, at(21)), None);
    assert!([0, 2, 3, 4, 5, 6, 7, 8].iter().all(|station| table.lookup(mac(*station), AGEING, at(21)).is_some()));
}

#[test]
fn fixed_entries_are_bounded() {
    let mut table = remotes(1);
    for station in 0..u32::try_from(FIXED_MOST).unwrap() {
        table.set(mac(station), remote(1), RemoteKind::Pushed).unwrap();
    }
    assert_eq!(table.set(mac(u32::MAX), remote(1), RemoteKind::Static), Err(Refused::Full));
    assert_eq!(table.set(mac(7), remote(2), RemoteKind::Static), Ok(()));
}
