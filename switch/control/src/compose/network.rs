//! Top-level networks.

use std::{collections::BTreeMap, net::IpAddr};

use ipnetwork::IpNetwork;

use super::{Result, read::Node};
use crate::{api::NetworkCreate, driver::DriverOptions};

/// Key of the network of those who name none.
pub(super) const DEFAULT: &str = "default";

/// A network of the file.
pub(super) struct Declared {
    pub(super) key: String,
    /// It must be there already.
    pub(super) external: bool,
    pub(super) request: NetworkCreate,
}

/// The network that Compose makes without being asked.
pub(super) fn implicit(project: &str) -> Declared {
    Declared { key: DEFAULT.into(), external: false, request: NetworkCreate { name: format!("{project}_{DEFAULT}"), ..NetworkCreate::default() } }
}

pub(super) fn read(project: &str, key: &str, node: &Node<'_>) -> Result<Declared> {
    node.only(&["driver", "driver_opts", "ipam", "internal", "attachable", "enable_ipv4", "enable_ipv6", "labels", "external", "name"])?;
    let mut request = implicit(project).request;
    let external = node.flag("external")?;
    request.name = node.text("name")?.unwrap_or_else(|| if external { key.to_owned() } else { format!("{project}_{key}") });
    if external {
        node.only(&["external", "name"]).map_err(|error| format!("{error} (it is external: made by others)"))?;
        return Ok(Declared { key: key.into(), external, request });
    }
    request.driver = node.text("driver")?.filter(|driver| driver != "default");
    request.internal = node.flag("internal")?;
    request.attachable = node.flag("attachable")?;
    request.ipv6 = node.flag("enable_ipv6")?;
    request.labels = node.pairs("labels", &['='])?.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect();
    ipam(&mut request, &node.get("ipam"))?;
    request.no_ipv4 = node.parsed("enable_ipv4", "true or false")? == Some(false);
    if !request.no_ipam {
        request.check_families().map_err(|error| node.get("enable_ipv4").wrong(&error.to_string()))?;
    }
    let options: BTreeMap<_, _> = node.pairs("driver_opts", &['='])?.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect();
    DriverOptions::parse(&options).map_err(|error| node.get("driver_opts").wrong(&error.to_string()))?.apply(&mut request);
    request.options = options;
    Ok(Declared { key: key.into(), external, request })
}

fn ipam(request: &mut NetworkCreate, node: &Node<'_>) -> Result<()> {
    node.only(&["driver", "config", "options"])?;
    match node.text("driver")?.as_deref() {
        None | Some("default") => {}
        Some("null") => request.no_ipam = true,
        Some(other) => return Err(node.get("driver").wrong(&format!("{other:?} not found: there are default and null"))),
    }
    node.get("options").only(&[])?;
    for pool in node.items("config")? {
        pool.only(&["subnet", "ip_range", "gateway", "aux_addresses"])?;
        let Some(subnet) = pool.parsed::<IpNetwork>("subnet", "a subnet such as 10.9.0.0/24")? else { return Err(pool.wrong("a pool needs its subnet")) };
        request.subnets.push(subnet);
        request.gateways.extend(pool.parsed::<IpAddr>("gateway", "an address")?);
        let range = pool.parsed("ip_range", "a part of a subnet such as 10.9.0.0/25")?;
        if request.ip_range.is_some() && range.is_some() {
            return Err(pool.get("ip_range").wrong("one range per network"));
        }
        request.ip_range = request.ip_range.or(range);
        for (label, address) in pool.map("aux_addresses")? {
            let text = address.scalar()?.unwrap_or_default();
            request.aux_addresses.insert(label, text.parse().map_err(|_| address.wrong(&format!("{text:?} is not an address")))?);
        }
    }
    Ok(())
}
