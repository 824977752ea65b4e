//! `weft ip addr|link|route`: what iproute2 shows, from inside a sandbox.

use netns_setup::{
    Netns, SetupError,
    link::{LinkView, Links, RouteView},
};
use serde_json::json;

use super::{
    End, Place, args::IpArguments, invalid,
    netns::{Target, find},
    print, print_json, unavailable,
};

pub(super) fn run(arguments: &IpArguments, place: &Place) -> End {
    let target = match &arguments.namespace {
        Some(name) => find(name, place)?,
        None => Target { netns: Netns::current().map_err(unavailable)?, host: None },
    };
    if let Some(pid) = target.host {
        netns_setup::user::join_user_namespace(pid).map_err(unavailable)?;
    }
    let object = arguments.object.as_str();
    let is = |word: &str| !object.is_empty() && word.starts_with(object);
    if is("route") {
        let routes = target.netns.run(|| Links::open()?.routes()).map_err(unavailable)?;
        if arguments.json { print_json(&json!(routes)) } else { routes.iter().for_each(show_route) }
        return Ok(0);
    }
    if !is("address") && !is("link") {
        return Err(invalid(object, format!("{object:?} is none of addr, link, route")));
    }
    let links = target.netns.run(|| -> Result<_, SetupError> { Links::open()?.list() }).map_err(unavailable)?;
    if arguments.json {
        print_json(&json!(links));
    } else {
        links.iter().for_each(|link| show_link(link, is("address")));
    }
    Ok(0)
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
