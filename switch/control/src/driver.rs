//! Docker's driver options that mean something here.

use std::{collections::BTreeMap, net::IpAddr};

use serde_json::{Map, Value};

use crate::{
    api::NetworkCreate,
    error::{Code, ControlError, Result},
    lan,
    model::Network,
    overlay,
};

const MTU: &str = "com.docker.network.driver.mtu";
const ICC: &str = "com.docker.network.bridge.enable_icc";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
/// Ours: whether the network's sandboxes know each other by name.
const NAMES: &str = "com.weft.names";
/// Docker's lists one VNI for each subnet; a network here has one.
const VNI: &str = "com.docker.network.driver.overlay.vxlanid_list";
/// Ours: where the keys of an encrypted overlay are.
const KEY_FILE: &str = "weft.key-file";
/// Ours: how long a cluster uses a key.
const REKEY: &str = "weft.rekey";
const IFNAME: &str = "com.docker.network.container_iface_prefix";

/// What `-o` said.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DriverOptions {
    /// Largest packet.
    pub mtu: Option<u32>,
    /// Whether sandboxes talk to one another.
    pub icc: Option<bool>,
    /// Whether they may open flows to the outside.
    pub masquerade: Option<bool>,
    /// Where ports are published.
    pub host_binding: Option<IpAddr>,
    /// What interfaces are called inside.
    pub ifname_prefix: Option<String>,
    /// Whether sandboxes know each other by name.
    pub names: Option<bool>,
    /// Of an overlay: its number on the wire.
    pub vni: Option<u32>,
    /// Of an overlay: learn which station is behind which node.
    pub learning: Option<bool>,
    /// Of an overlay: only peers may speak.
    pub strict: Option<bool>,
    /// Of an overlay: UDP port of all nodes.
    pub vxlan_port: Option<u16>,
    /// Of an overlay: hops of packets between nodes.
    pub ttl: Option<u8>,
    /// Of an overlay: a multicast group to join and flood to.
    pub group: Option<IpAddr>,
    /// Of an overlay: encrypted between nodes.
    pub encrypted: bool,
    /// Of an encrypted overlay: a file with its keys.
    pub key_file: Option<String>,
    /// Of a lan: the device of the host, or `DEVICE.VLAN`.
    pub parent: Option<String>,
    /// Of an encrypted overlay of a cluster: how long a key is used, seconds; 0 for ever.
    pub rekey_s: Option<u32>,
}

impl DriverOptions {
    /// An option without effect is refused, never ignored.
    ///
    /// # Errors
    /// Naming the option.
    pub fn parse(pairs: &BTreeMap<String, String>) -> Result<Self> {
        let mut options = Self::default();
        for (key, value) in pairs {
            let bad = |what: &str| ControlError::new(Code::Invalid, value, format!("-o {key}={value}: {value:?} is not {what}"));
            match key.as_str() {
                MTU => options.mtu = Some(value.parse().map_err(|_| bad("an MTU"))?),
                ICC => options.icc = Some(value.parse().map_err(|_| bad("true or false"))?),
                MASQUERADE => options.masquerade = Some(value.parse().map_err(|_| bad("true or false"))?),
                BINDING => options.host_binding = Some(value.parse().map_err(|_| bad("an address"))?),
                NAMES => options.names = Some(value.parse().map_err(|_| bad("true or false"))?),
                IFNAME => options.ifname_prefix = Some(value.clone()),
                VNI => options.vni = Some(value.parse().map_err(|_| bad("one VNI"))?),
                "learning" => options.learning = Some(value.parse().map_err(|_| bad("true or false"))?),
                "strict" => options.strict = Some(value.parse().map_err(|_| bad("true or false"))?),
                "port" => options.vxlan_port = Some(value.parse().map_err(|_| bad("a UDP port"))?),
                "ttl" => options.ttl = Some(value.parse().map_err(|_| bad("a number from 1 to 255"))?),
                // Docker's has no value.
                "encrypted" => options.encrypted = value.is_empty() || value.parse().map_err(|_| bad("true or false"))?,
                REKEY => options.rekey_s = Some(period(value).ok_or_else(|| bad("a time such as 12h, 30m or 90s; 0 is never"))?),
                KEY_FILE => options.key_file = Some(value.clone()),
                lan::PARENT => options.parent = Some(value.clone()).filter(|parent| !parent.is_empty()),
                lan::MACVLAN_MODE | lan::IPVLAN_MODE | lan::IPVLAN_FLAG => lan::check_mode(key, value)?,
                "group" => options.group = Some(value.parse().map_err(|_| bad("an address"))?),
                _ => {
                    return Err(ControlError::new(Code::Invalid, key, format!("option {key} is not supported"))
                        .hint(format!("there are {MTU}, {ICC}, {MASQUERADE}, {BINDING}, {IFNAME}, {NAMES}; for overlays {VNI}, learning, strict, port, ttl, group, encrypted, {KEY_FILE}, {REKEY}; for lans {}, {}, {}, {}; see also --mtu, --l2, --internal, --ageing of `weft network create`", lan::PARENT, lan::MACVLAN_MODE, lan::IPVLAN_MODE, lan::IPVLAN_FLAG)));
                }
            }
        }
        Ok(options)
    }

    /// Puts them into a request; what it says itself goes first.
    pub fn apply(self, request: &mut NetworkCreate) {
        request.mtu = request.mtu.or(self.mtu);
        request.masquerade = request.masquerade.or(self.masquerade);
        request.host_binding = request.host_binding.or(self.host_binding);
        request.names = request.names.or(self.names);
        request.ifname_prefix = request.ifname_prefix.take().or(self.ifname_prefix);
        request.isolated_default |= self.icc == Some(false);
        request.vni = request.vni.or(self.vni);
        request.learning = request.learning.or(self.learning);
        request.strict = request.strict.or(self.strict);
        request.vxlan_port = request.vxlan_port.or(self.vxlan_port);
        request.ttl = request.ttl.or(self.ttl);
        request.group = request.group.or(self.group);
        request.encrypted |= self.encrypted;
        request.key_file = request.key_file.take().or(self.key_file);
        request.parent = request.parent.take().or(self.parent);
        request.rekey_s = request.rekey_s.or(self.rekey_s);
    }
}

/// # Errors
/// When there is no driver of that name.
pub(crate) fn check_name(driver: &str) -> Result<()> {
    if driver == "bridge" || driver == overlay::DRIVER || lan::DRIVERS.contains(&driver) {
        return Ok(());
    }
    let [lan, names @ ..] = lan::DRIVERS;
    Err(ControlError::new(Code::NotFound, driver, format!("plugin {driver:?} not found")).hint(format!("there are `bridge`, `overlay`, `{lan}` (also as `{}`)", names.join("` and `"))))
}

/// Seconds of `12h`, `30m`, `90s`, `90`.
fn period(text: &str) -> Option<u32> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit = match unit {
        "h" => 3600,
        "m" => 60,
        "" | "s" => 1,
        _ => return None,
    };
    number.parse::<u32>().ok()?.checked_mul(unit)
}

/// Options that show what a field of [`NetworkCreate`] says: key, field, and what it is now.
fn shown(network: &Network) -> [(&'static str, &'static str, Option<String>); 7] {
    [
        (MTU, "mtu", Some(network.mtu.to_string())),
        (ICC, "isolated-default", Some((!network.isolated_default).to_string())),
        (MASQUERADE, "masquerade", Some(network.masquerade.to_string())),
        (BINDING, "host-binding", network.host_binding.map(|ip| ip.to_string())),
        (NAMES, "names", Some(network.names.to_string())),
        (IFNAME, "ifname-prefix", network.ifname_prefix.clone()),
        (lan::PARENT, lan::PARENT, network.lan.as_ref().and_then(|lan| lan.parent.clone())),
    ]
}

/// An option that would be shown as it was is refused, never ignored.
pub(crate) fn check_patch(network: &Network, options: &Map<String, Value>) -> Result<()> {
    let other = |(key, _, now): &(&str, _, Option<String>)| options.get(*key).is_some_and(|asked| !asked.is_null() && asked.as_str() != now.as_deref());
    match shown(network).into_iter().find(other) {
        Some((key, field, _)) => Err(ControlError::new(Code::Invalid, key, format!("network {}: option {key} shows what {field} is, and does not change it", network.name)).hint(format!("change {field} instead"))),
        None => Ok(()),
    }
}

/// Makes the options that a network was given show what it is now.
pub(crate) fn refresh(network: &mut Network) {
    for (key, _, value) in shown(network) {
        match (network.options.get_mut(key), value) {
            (Some(shown), Some(value)) => *shown = value,
            (Some(_), None) => drop(network.options.remove(key)),
            (None, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_driver_is_told_which_there_are() {
        for driver in ["bridge", "overlay", "lan", "macvlan", "ipvlan"] {
            check_name(driver).unwrap();
        }
        let error = check_name("macvlann").unwrap_err();
        assert_eq!((error.message.as_str(), error.hint.as_deref()), ("plugin \"macvlann\" not found", Some("there are `bridge`, `overlay`, `lan` (also as `macvlan` and `ipvlan`)")));
    }

    #[test]
    fn options_are_used_or_refused() {
        let parse = |key: &str, value: &str| DriverOptions::parse(&BTreeMap::from([(key.to_owned(), value.to_owned())]));
        assert_eq!(parse(MTU, "1400").unwrap().mtu, Some(1400));
        assert_eq!(parse(ICC, "false").unwrap().icc, Some(false));
        assert_eq!(parse(NAMES, "false").unwrap().names, Some(false));
        assert_eq!(parse(BINDING, "127.0.0.1").unwrap().host_binding, Some([127, 0, 0, 1].into()));
        assert_eq!(DriverOptions::parse(&BTreeMap::new()).unwrap(), DriverOptions::default());
        assert!(parse(MTU, "big").unwrap_err().message.contains("big"));
        assert!(parse(ICC, "perhaps").unwrap_err().message.contains("perhaps"));
        assert_eq!(parse(VNI, "4096").unwrap().vni, Some(4096));
        assert!(parse(VNI, "4096,4097").unwrap_err().message.contains("4096,4097"));
        assert_eq!((parse("ttl", "9").unwrap().ttl, parse("port", "8472").unwrap().vxlan_port, parse("strict", "true").unwrap().strict), (Some(9), Some(8472), Some(true)));
        assert_eq!([parse("encrypted", ""), parse("encrypted", "true"), parse("encrypted", "false")].map(|options| options.unwrap().encrypted), [true, true, false]);
        assert!(parse("encrypted", "aes").unwrap_err().message.contains("aes"));
        assert_eq!(parse(KEY_FILE, "/k").unwrap().key_file.as_deref(), Some("/k"));
        assert_eq!(["12h", "30m", "90s", "7", "0"].map(|text| parse(REKEY, text).unwrap().rekey_s), [43_200, 1800, 90, 7, 0].map(Some));
        for bad in ["", "h", "1d", "-1", "12 h", "2000000h"] {
            assert!(parse(REKEY, bad).unwrap_err().message.contains("12h"), "{bad}");
        }
        assert!(parse("com.docker.network.bridge.name", "br9").unwrap_err().message.contains("bridge.name"));
    }
}
