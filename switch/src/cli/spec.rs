//! Small grammars within arguments: `--net` specs, VLANs, KEY=VALUE.

use std::collections::BTreeMap;

use weft_control::{ControlError, EndpointKind, NetnsTarget, Vlan, api::EndpointCreate};

use super::{args::EndpointArguments, invalid};

/// The API's form of endpoint options.
pub(super) fn endpoint_request(network: &str, arguments: &EndpointArguments) -> Result<EndpointCreate, ControlError> {
    let vlan = match (&arguments.vlan, &arguments.trunk) {
        (Some(id), _) => Some(Vlan::Access(*id)),
        (None, Some(text)) => Some(trunk(text)?),
        (None, None) => None,
    };
    Ok(EndpointCreate {
        network: network.into(),
        ip: arguments.ip,
        ip6: arguments.ip6,
        mac: arguments.mac.clone(),
        ifname: arguments.ifname.clone(),
        kind: arguments.kind,
        mtu: arguments.mtu,
        vlan,
        isolated: arguments.isolated,
        horizon: arguments.horizon,
        guard: match (arguments.guard, arguments.no_guard) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        },
        aliases: arguments.alias.clone(),
        vips: services(arguments.vip, &arguments.alias)?,
        ..EndpointCreate::default()
    })
}

/// The services of `--vip`: each alias is one.
pub(super) fn services(is_vip: bool, aliases: &[String]) -> Result<Vec<String>, ControlError> {
    if is_vip && aliases.is_empty() {
        return Err(invalid("--vip", "--vip: which service?").hint("name it with --network-alias (`network connect`: --alias)"));
    }
    Ok(if is_vip { aliases.to_vec() } else { Vec::new() })
}

/// 10,20[,native=1], or all[,native=1].
pub(super) fn trunk(text: &str) -> Result<Vlan, ControlError> {
    let (mut allowed, mut native) = (Vec::new(), None);
    for part in text.split(',').filter(|part| *part != "all") {
        let number = |digits: &str| vlan_id(digits).map_err(|why| invalid(text, format!("--trunk {text}: {why}")).hint("want 10,20[,native=1] or all"));
        match part.strip_prefix("native=") {
            Some(digits) => native = Some(number(digits)?),
            None => allowed.push(number(part)?),
        }
    }
    // An empty list means all: nothing but a native VLAN would open every one by accident.
    if allowed.is_empty() && !text.split(',').any(|part| part == "all") {
        return Err(invalid(text, format!("--trunk {text}: which VLANs?")).hint("want 10,20[,native=1] or all"));
    }
    Ok(Vlan::Trunk { allowed, native })
}

fn vlan_id(digits: &str) -> Result<u16, String> {
    match digits.parse() {
        Ok(id @ 1..=4094) => Ok(id),
        _ => Err(format!("{digits:?} is not a VLAN id (1 to 4094)")),
    }
}

/// `vlan N` at the end of an FDB command.
pub(super) fn vlan_words(words: &[String]) -> Result<Option<u16>, ControlError> {
    match words {
        [] => Ok(None),
        [key, id] if key == "vlan" => vlan_id(id).map(Some).map_err(|why| invalid(id, why)),
        other => Err(invalid(&other.join(" "), format!("{:?}: want `vlan N`", other.join(" ")))),
    }
}

/// What a sandbox is to be connected to, by its `--net` words.
pub(super) fn networks(words: &[String]) -> Result<(NetnsTarget, Vec<EndpointCreate>), ControlError> {
    match words {
        [] => Ok((NetnsTarget::New, vec![EndpointCreate { network: "bridge".into(), ..EndpointCreate::default() }])),
        [mode] if mode == "none" => Ok((NetnsTarget::New, Vec::new())),
        [mode] if mode == "host" => Ok((NetnsTarget::Host, Vec::new())),
        many => match many.iter().find(|word| matches!(word.as_str(), "none" | "host")) {
            Some(mode) => Err(invalid(mode, format!("--net {mode} goes with no other network"))),
            None => Ok((NetnsTarget::New, many.iter().map(|word| endpoint(word)).collect::<Result<_, _>>()?)),
        },
    }
}

/// NETWORK[:key=value,...].
pub(super) fn endpoint(word: &str) -> Result<EndpointCreate, ControlError> {
    let (network, options) = word.split_once(':').unwrap_or((word, ""));
    if network.is_empty() {
        return Err(invalid(word, format!("--net {word:?}: which network?")).hint("want NETWORK[:key=value,...]"));
    }
    let mut endpoint = EndpointCreate { network: network.into(), ..EndpointCreate::default() };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        let bad = |what: &str| invalid(option, format!("--net {word}: {value:?} is not {what}"));
        match key {
            "ip" => endpoint.ip = Some(value.parse().map_err(|_| bad("an IPv4 address"))?),
            "ip6" => endpoint.ip6 = Some(value.parse().map_err(|_| bad("an IPv6 address"))?),
            "mac" | "mac-address" => endpoint.mac = Some(value.into()),
            "ifname" => endpoint.ifname = Some(value.into()),
            "alias" => endpoint.aliases.push(value.into()),
            "vip" => endpoint.vips.push(value.into()),
            "mtu" => endpoint.mtu = Some(value.parse().map_err(|_| bad("a number"))?),
            "vlan" => endpoint.vlan = Some(Vlan::Access(vlan_id(value).map_err(|_| bad("a VLAN id (1 to 4094)"))?)),
            "horizon" => endpoint.horizon = Some(value.parse().map_err(|_| bad("a number"))?),
            "isolated" => endpoint.isolated = switch(value).ok_or_else(|| bad("on or off"))?,
            "noguard" => endpoint.guard = Some(!switch(value).ok_or_else(|| bad("on or off"))?),
            "kind" => {
                endpoint.kind = Some(match value {
                    "tap" => EndpointKind::Tap,
                    "veth" => EndpointKind::Veth,
                    _ => return Err(bad("tap or veth")),
                });
            }
            _ => {
                return Err(invalid(option, format!("--net {word}: unknown option {key:?}"))
                    .hint("there are ip, ip6, mac, ifname, alias, vip, mtu, vlan, kind, isolated, horizon, noguard"));
            }
        }
    }
    Ok(endpoint)
}

/// A word that is on by being there.
fn switch(value: &str) -> Option<bool> {
    match value {
        "" | "on" | "true" | "yes" => Some(true),
        "off" | "false" | "no" => Some(false),
        _ => None,
    }
}

/// KEY=VALUE words.
pub(super) fn pairs(words: &[String]) -> Result<BTreeMap<String, String>, ControlError> {
    let split = |word: &String| match word.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(invalid(word, format!("{word:?}: want KEY=VALUE"))),
    };
    words.iter().map(split).collect()
}

/// KEY=VALUE words; the value of KEY alone is empty (as Docker's --opt).
pub(super) fn options(words: &[String]) -> Result<BTreeMap<String, String>, ControlError> {
    pairs(&words.iter().map(|word| if word.contains('=') { word.clone() } else { format!("{word}=") }).collect::<Vec<_>>())
}

/// KEY=VALUE words; KEY alone has the value it has here, if it has one (as Docker's -e).
pub(super) fn environment(words: &[String], here: impl Fn(&str) -> Option<String>) -> Result<BTreeMap<String, String>, ControlError> {
    let (given, named): (Vec<_>, Vec<_>) = words.iter().cloned().partition(|word| word.contains('='));
    let mut all = pairs(&given)?;
    for key in named {
        if let Some(value) = here(&key) {
            all.insert(key, value);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trunks() {
        assert_eq!(trunk("10,20,native=1").unwrap(), Vlan::Trunk { allowed: vec![10, 20], native: Some(1) });
        assert_eq!(trunk("all,native=5").unwrap(), Vlan::Trunk { allowed: vec![], native: Some(5) });
        for (text, part) in [("10,x", "\"x\""), ("0", "\"0\""), ("4095", "\"4095\""), ("native=1", "which"), ("", "\"\"")] {
            assert!(trunk(text).unwrap_err().message.contains(part), "{text}");
        }
    }

    #[test]
    fn vlan_at_the_end() {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(vlan_words(&[]).unwrap(), None);
        assert_eq!(vlan_words(&words("vlan 7")).unwrap(), Some(7));
        assert!(vlan_words(&words("vlan")).is_err() && vlan_words(&words("vlan 9999")).is_err() && vlan_words(&words("tag 7")).is_err());
    }

    #[test]
    fn net_words() {
        let parsed = endpoint("lab:ip=10.0.0.5,ip6=fd00::5,mac=02:00:00:00:00:01,kind=veth,isolated,vlan=7,alias=a,alias=b").unwrap();
        assert_eq!((parsed.network.as_str(), parsed.ip, parsed.kind, parsed.isolated), ("lab", Some("10.0.0.5".parse().unwrap()), Some(EndpointKind::Veth), true));
        assert_eq!((parsed.mac.as_deref(), parsed.ip6, parsed.vlan), (Some("02:00:00:00:00:01"), Some("fd00::5".parse().unwrap()), Some(Vlan::Access(7))));
        assert_eq!(parsed.aliases, ["a", "b"]);
        for (word, part) in [("lab:ip=x", "IPv4"), ("lab:kind=foo", "tap or veth"), ("lab:what=1", "what"), ("lab:isolated=maybe", "on or off"), (":ip=1.2.3.4", "which network"), ("", "which network")] {
            assert!(endpoint(word).unwrap_err().message.contains(part), "{word}");
        }
    }

    #[test]
    fn modes_without_a_network() {
        assert_eq!(networks(&["none".into()]).unwrap(), (NetnsTarget::New, Vec::new()));
        assert_eq!(networks(&["host".into()]).unwrap(), (NetnsTarget::Host, Vec::new()));
        assert_eq!(networks(&[]).unwrap().1[0].network, "bridge");
        assert!(networks(&["lab".into(), "host".into()]).unwrap_err().message.contains("no other"));
    }

    #[test]
    fn environment_words() {
        let here = |key: &str| (key == "HOME").then(|| "/root".to_owned());
        let all = environment(&["A=b=c".into(), "HOME".into(), "GONE".into()], here).unwrap();
        assert_eq!(all, BTreeMap::from([("A".into(), "b=c".into()), ("HOME".into(), "/root".into())]));
        assert!(environment(&["=x".into()], here).is_err());
    }
}
