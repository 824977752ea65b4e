//! Whose an overlay is: this node's alone, or its cluster's.

use std::{net::IpAddr, time::Duration};

use super::{DRIVER, usual_mtu};
use crate::{
    api::NetworkCreate,
    error::{Code, ControlError, Result},
};

/// What a node's cluster says about networks that it shares.
#[derive(Clone, Copy, Debug)]
pub struct Membership {
    /// Where other nodes reach this one's tunnels; the others are reached alike.
    pub advertise: IpAddr,
    /// How long what a node has outlives it.
    pub lease: Duration,
}

/// A complete request ([`Model::complete`](crate::Model::complete)) as a node takes it: in a cluster an overlay is the
/// cluster's, unless it is said to be this node's.
///
/// # Errors
/// When it is to be shared and there is no cluster, or its keys are to be changed more often than can be.
pub fn scoped(request: NetworkCreate, cluster: Option<Membership>) -> Result<NetworkCreate> {
    let Some(cluster) = cluster else {
        return match request.global {
            Some(true) => Err(ControlError::new(Code::Invalid, &request.name, "scope global: this node is in no cluster").hint("start the daemon with --cluster-store")),
            _ => Ok(request),
        };
    };
    let is_overlay = request.driver.as_deref() == Some(DRIVER);
    let own = !request.peers.is_empty() || request.group.is_some();
    let global = request.global.or((is_overlay && !own).then_some(true));
    check_rekey(&NetworkCreate { global, ..request.clone() }, cluster.lease)?;
    let mtu = (global == Some(true)).then(|| usual_mtu(cluster.advertise.is_ipv6(), request.encrypted));
    Ok(NetworkCreate { global, mtu: request.mtu.or(mtu), ..request })
}

/// A change of keys is over after two leases; the next one cannot be due before.
fn check_rekey(request: &NetworkCreate, lease: Duration) -> Result<()> {
    let least = 2 * lease.as_secs();
    match request.rekey_s.filter(|period| request.encrypted && request.global == Some(true) && *period > 0 && u64::from(*period) < least) {
        Some(period) => Err(ControlError::new(Code::Invalid, &request.name, format!("weft.rekey={period}s: a change of keys takes two leases of this cluster, {least} s")).hint(format!("want at least {least}s, or 0 for never"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Model;

    fn cluster() -> Option<Membership> {
        Some(Membership { advertise: [192, 0, 2, 1].into(), lease: Duration::from_secs(15) })
    }

    fn overlay() -> NetworkCreate {
        NetworkCreate { name: "x".into(), driver: Some(DRIVER.into()), ..NetworkCreate::default() }
    }

    #[test]
    fn an_overlay_is_the_cluster_s_unless_it_is_said_to_be_the_node_s() {
        let scope = |request: NetworkCreate, cluster| scoped(request, cluster).unwrap().global;
        assert_eq!((scope(overlay(), cluster()), scope(overlay(), None)), (Some(true), None));
        assert_eq!(scope(NetworkCreate { driver: None, ..overlay() }, cluster()), None);
        assert_eq!(scope(NetworkCreate { peers: vec!["192.0.2.2".parse().unwrap()], ..overlay() }, cluster()), None);
        assert_eq!(scope(NetworkCreate { group: Some([239, 1, 1, 1].into()), ..overlay() }, cluster()), None);
        assert_eq!(scope(NetworkCreate { global: Some(false), ..overlay() }, cluster()), Some(false));
        assert!(scoped(NetworkCreate { global: Some(true), ..overlay() }, None).unwrap_err().message.contains("no cluster"));
    }

    #[test]
    fn keys_are_used_for_two_leases_at_least() {
        let sealed = |rekey_s| NetworkCreate { encrypted: true, rekey_s: Some(rekey_s), ..overlay() };
        for period in [0, 30, 43_200] {
            assert_eq!(scoped(sealed(period), cluster()).unwrap().rekey_s, Some(period));
        }
        for period in [1, 29] {
            let error = scoped(sealed(period), cluster()).unwrap_err();
            assert!(error.message.contains(&format!("weft.rekey={period}s")) && error.hint.unwrap().contains("at least 30s"));
        }
    }

    #[test]
    fn what_the_configuration_says_decides_too() {
        let mut model = Model::default();
        for (number, name, encrypted, group) in [(1, "plain", false, None), (2, "sealed", true, None), (3, "group", false, Some([239, 1, 1, 1].into()))] {
            let subnets = vec![format!("10.98.{number}.0/24").parse().unwrap()];
            model.create_config(NetworkCreate { name: name.into(), subnets, encrypted, group, ..NetworkCreate::default() }, format!("{number:064}"), 0).unwrap();
        }
        for (from, global, mtu) in [("plain", true, 1450), ("sealed", true, 1414), ("group", false, 1450)] {
            let request = NetworkCreate { name: format!("{from}-1"), config_from: Some(from.into()), ..overlay() };
            let request = scoped(model.complete(&request).unwrap(), cluster()).unwrap();
            let id = model.make_network(&request, format!("f{from:0<63}")).unwrap();
            let network = model.network(&id).unwrap();
            assert_eq!((network.is_global(), network.mtu, network.config_from.as_deref()), (global, mtu, Some(from)));
        }
        let asked = NetworkCreate { name: "own".into(), config_from: Some("plain".into()), global: Some(false), ..overlay() };
        assert_eq!(model.complete(&asked).unwrap().global, Some(false));
    }
}
