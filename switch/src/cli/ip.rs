//! `weft ip addr|link|route`: what iproute2 shows, from inside a sandbox.

use netns_setup::{
    Netns, SetupError,
    link::{LinkView, Links, RouteView},
};
use serde_json::json;
use weft_control::{Code, ControlError};

use super::{
    End, Place, args::IpArguments, invalid,
    netns::{Target, find},
    print, print_json, unavailable,
};

pub(super) fn run(arguments: &IpArguments, place: &Place) -> End {
    let target = match &arguments.namespace {
        Some(name) => find(name, place)?,
        None => Target { netns: Netns::current().map_err(unavailable)?, host: None, is_here: true, etc: None, hostname: None },
    };
    if let Some(pid) = target.host {
        netns_setup::user::join_user_namespace(pid).map_err(unavailable)?;
    }
    let object = arguments.object.as_str();
    let wanted = interface(&arguments.words)?;
    let family = |is_v4: bool| !(arguments.four && !is_v4 || arguments.six && is_v4);
    let is = |word: &str| !object.is_empty() && word.starts_with(object);
    if is("route") {
        let mut routes = target.netns.run(|| Links::open()?.routes()).map_err(unavailable)?;
        routes.retain(|route| family(!route.destination.contains(':') && route.gateway.is_none_or(|gateway| gateway.is_ipv4())) && wanted.is_none_or(|name| route.device == name));
        if arguments.json { print_json(&json!(routes)) } else { routes.iter().for_each(show_route) }
        return Ok(0);
    }
    if !is("address") && !is("link") {
        return Err(invalid(object, format!("{object:?} is none of addr, link, route")));
    }
    let mut links = target.netns.run(|| -> Result<_, SetupError> { Links::open()?.list() }).map_err(unavailable)?;
    if let Some(name) = wanted {
        links.retain(|link| link.name == name);
        if links.is_empty() {
            return Err(ControlError::new(Code::NotFound, name, format!("device {name:?} does not exist")));
        }
    }
    links.iter_mut().for_each(|link| link.addresses.retain(|address| family(address.is_ipv4())));
    if arguments.json {
        print_json(&json!(links));
    } else {
        links.iter().for_each(|link| show_link(link, is("address")));
    }
    Ok(0)
}

/// `[show] [[dev] INTERFACE]`.
fn interface(words: &[String]) -> Result<Option<&str>, ControlError> {
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let rest = match words.as_slice() {
        ["show" | "list" | "ls" | "sh", rest @ ..] => rest,
        all => all,
    };
    match rest {
        [] => Ok(None),
        [name] | ["dev", name] => Ok(Some(name)),
        other => Err(invalid(&other.join(" "), format!("{:?}: want [show] [[dev] INTERFACE]; changes are made with iproute2 itself", other.join(" ")))),
    }
}

fn show_link(link: &LinkView, addresses: bool) {
    print(&format!("{}: {}: <{}> mtu {} state {}", link.index, link.name, link.flags.join(","), link.mtu, link.state));
    let kind = if link.name == "lo" { "loopback" } else { "ether" };
    print(&format!("    link/{kind} {}", link.mac));
    if addresses {
        for address in &link.addresses {
            print(&format!("    {} {address}", if address.is_ipv4() { "inet" } else { "inet6" }));
        }
    }
    print(&format!("    RX: {} packets, {} bytes, {} dropped", link.rx_packets, link.rx_bytes, link.rx_dropped));
    print(&format!("    TX: {} packets, {} bytes, {} dropped", link.tx_packets, link.tx_bytes, link.tx_dropped));
}

fn show_route(route: &RouteView) {
    let via = route.gateway.map_or_else(String::new, |gateway| format!(" via {gateway}"));
    let source = route.source.map_or_else(String::new, |source| format!(" src {source}"));
    print(&format!("{}{via} dev {}{source}", route.destination, route.device));
}
