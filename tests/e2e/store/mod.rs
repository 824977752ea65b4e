//! The cluster's store: one contract, kept by the store in memory and by real etcd; and what happens to a live one.

mod contract;
mod faults;
mod local;
mod members;
pub(crate) mod security;

use libtest_mimic::Trial;
use weft_tests::runner::{Need, test};

const ETCD: &[Need] = &[Need::Tool("etcd"), Need::Tool("etcdctl")];
const TLS: &[Need] = &[Need::Tool("etcd"), Need::Tool("etcdctl"), Need::Tool("openssl")];

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("store::contract_in_memory", &[], local::memory),
        test("store::contract_of_etcd", ETCD, local::etcd),
        test("store::v4_a_leader_dies", ETCD, members::leader_dies),
        test("store::a_member_without_cluster_is_left", ETCD, members::no_quorum),
        test("store::another_cluster_at_the_same_address", ETCD, members::replaced),
        test("store::broken_connections_miss_nothing", ETCD, faults::broken),
        test("store::silence_is_noticed", ETCD, faults::silent),
        test("store::compacted_while_away", ETCD, faults::compacted),
        test("store::users_and_passwords", ETCD, security::users),
        test("store::tls_both_ways", TLS, security::tls),
    ]
}
