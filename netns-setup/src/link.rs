//! Links, addresses and routes of this thread's namespace (rtnetlink(7)).

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, BorrowedFd},
};

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    tc::{TcAttribute, TcHandle, TcMessage},
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage},
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, State},
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use serde::Serialize;

use crate::{
    error::{Context, Result, SetupError},
    names::check_ifname,
    netlink::Route,
};

/// A link as `ip addr` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LinkView {
    /// Interface index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Kind from the kernel (`tun`, `veth`), empty for lo.
    pub kind: String,
    /// `UP`, `DOWN`, `UNKNOWN`, `LOWERLAYERDOWN` ...
    pub state: String,
    /// IFF_ flags by name, with `NO-CARRIER` as iproute2 derives it.
    pub flags: Vec<String>,
    /// Largest packet, bytes.
    pub mtu: u32,
    /// Ethernet address, text.
    pub mac: String,
    /// Whether its frames are Ethernet's (ARPHRD_ETHER).
    #[serde(skip)]
    pub is_ethernet: bool,
    /// Addresses with prefix lengths.
    pub addresses: Vec<IpNetwork>,
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Received packets dropped by the device.
    pub rx_dropped: u64,
    /// Packets to send dropped by the device.
    pub tx_dropped: u64,
}

/// A route as `ip route` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteView {
    /// `default`, or the destination network.
    pub destination: String,
    /// Next hop.
    pub gateway: Option<IpAddr>,
    /// Interface name.
    pub device: String,
    /// Preferred source.
    pub source: Option<IpAddr>,
}

/// The links of the namespace where it was opened.
#[derive(Debug)]
pub struct Links {
    route: Route,
}

impl Links {
    /// Opens a netlink socket in this thread's namespace.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open() -> Result<Self> {
        Ok(Self { route: Route::open().context(|| "open a netlink socket".into())? })
    }

    /// The index of a link.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn index_of(&mut self, name: &str) -> Result<u32> {
        check_ifname(name)?;
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.into()));
        let answers = self.route.exchange(RouteNetlinkMessage::GetLink(message), 0).context(|| format!("find device {name}"))?;
        match answers.first() {
            Some(RouteNetlinkMessage::NewLink(link)) => Ok(link.header.index),
            _ => Err(SetupError::new(format!("find device {name}"), nix::errno::Errno::ENODEV)),
        }
    }

    fn change(&mut self, name: &str, what: &str, fill: impl FnOnce(&mut LinkMessage)) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = self.index_of(name)?;
        fill(&mut message);
        self.route.request(RouteNetlinkMessage::SetLink(message), 0).context(|| format!("{what} of {name}"))
    }

    /// Sets a link up or down.
    ///
    /// # Errors
    /// When there is no such link or the kernel refuses.
    pub fn set_up(&mut self, name: &str, up: bool) -> Result<()> {
        self.change(name, if up { "set the state (up)" } else { "set the state (down)" }, |message| {
            message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
            message.header.change_mask = LinkFlags::Up;
        })
    }

    /// Sets the largest packet, bytes.
    ///
    /// # Errors
    /// As above.
    pub fn set_mtu(&mut self, name: &str, mtu: u32) -> Result<()> {
        self.change(name, &format!("set the MTU ({mtu})"), |message| message.attributes.push(LinkAttribute::Mtu(mtu)))
    }

    /// Sets the longest super-frame that the stack hands to the device, bytes (ip-link(8), `gso_max_size`).
    ///
    /// # Errors
    /// As above; when the device takes less.
    pub fn set_gso_most(&mut self, name: &str, bytes: u32) -> Result<()> {
        self.change(name, &format!("set gso_max_size ({bytes})"), |message| message.attributes.push(LinkAttribute::GsoMaxSize(bytes)))
    }

    /// Sets the Ethernet address.
    ///
    /// # Errors
    /// As above.
    pub fn set_mac(&mut self, name: &str, mac: [u8; 6]) -> Result<()> {
        self.change(name, "set the MAC address", |message| message.attributes.push(LinkAttribute::Address(mac.to_vec())))
    }

    /// Renames a link (which must be down on older kernels).
    ///
    /// # Errors
    /// As above, or when the name is taken.
    pub fn rename(&mut self, name: &str, new: &str) -> Result<()> {
        check_ifname(new)?;
        self.change(name, &format!("change the name (to {new})"), |message| message.attributes.push(LinkAttribute::IfName(new.into())))
    }

    /// Moves a link into another namespace, under another name if given.
    ///
    /// # Errors
    /// As above, or when the name is taken there.
    pub fn move_to(&mut self, name: &str, namespace: BorrowedFd<'_>, new: Option<&str>) -> Result<()> {
        self.change(name, "change the namespace", |message| {
            message.attributes.push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
            if let Some(new) = new {
                message.attributes.push(LinkAttribute::IfName(new.into()));
            }
        })
    }

    /// Deletes a link.
    ///
    /// # Errors
    /// When there is no such link or the kernel refuses.
    pub fn delete(&mut self, name: &str) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = self.index_of(name)?;
        self.route.request(RouteNetlinkMessage::DelLink(message), 0).context(|| format!("delete {name}"))
    }

    /// Makes a veth pair: `name` here, `peer` in another namespace.
    ///
    /// # Errors
    /// When a name is taken or the kernel refuses.
    pub fn add_veth(&mut self, name: &str, peer: &str, peer_namespace: BorrowedFd<'_>) -> Result<()> {
        check_ifname(name)?;
        check_ifname(peer)?;
        let mut other = LinkMessage::default();
        other.attributes.push(LinkAttribute::IfName(peer.into()));
        other.attributes.push(LinkAttribute::NetNsFd(peer_namespace.as_raw_fd()));
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.into()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other)))]));
        self.route
            .request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
            .context(|| format!("create veth pair {name} - {peer}"))
    }

    /// Takes the queueing discipline away, as virtual links usually have none (tc(8), `noqueue`): the
    /// device's own ring is the queue. Nothing else of the link changes.
    ///
    /// # Errors
    /// When there is no such link or the kernel refuses.
    pub fn set_no_queue(&mut self, name: &str) -> Result<()> {
        let index = self.index_of(name)?;
        let mut message = TcMessage::with_index(i32::try_from(index).unwrap_or(i32::MAX));
        message.header.parent = TcHandle::ROOT;
        message.attributes.push(TcAttribute::Kind("noqueue".into()));
        self.route
            .request(RouteNetlinkMessage::NewQueueDiscipline(message), NLM_F_CREATE | NLM_F_REPLACE)
            .context(|| format!("take the queueing discipline off {name}"))
    }

    /// Adds an address; IPv6 ones are usable at once (no duplicate address detection).
    ///
    /// # Errors
    /// When it is there already or the kernel refuses.
    pub fn add_address(&mut self, name: &str, address: IpNetwork) -> Result<()> {
        let message = self.address_message(name, address)?;
        self.route.request(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL).context(|| format!("add {address} to {name}"))
    }

    /// Removes an address.
    ///
    /// # Errors
    /// When it is not there.
    pub fn delete_address(&mut self, name: &str, address: IpNetwork) -> Result<()> {
        let message = self.address_message(name, address)?;
        self.route.request(RouteNetlinkMessage::DelAddress(message), 0).context(|| format!("remove {address} from {name}"))
    }

    fn address_message(&mut self, name: &str, address: IpNetwork) -> Result<AddressMessage> {
        let mut message = AddressMessage::default();
        message.header.index = self.index_of(name)?;
        message.header.prefix_len = address.prefix();
        message.header.family = family(address.ip());
        message.attributes.push(AddressAttribute::Local(address.ip()));
        message.attributes.push(AddressAttribute::Address(address.ip()));
        if let IpNetwork::V4(v4) = address {
            if v4.prefix() < 31 {
                message.attributes.push(AddressAttribute::Broadcast(v4.broadcast()));
            }
        } else {
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        Ok(message)
    }

    /// Adds a route by a gateway on the link (`0.0.0.0/0` and `::/0` are the default routes).
    ///
    /// # Errors
    /// When the gateway is not reachable or the kernel refuses.
    pub fn add_route(&mut self, name: &str, destination: IpNetwork, gateway: IpAddr) -> Result<()> {
        let message = self.route_message(name, destination, RouteScope::Universe, RouteAttribute::Gateway(gateway.into()))?;
        self.put_route(message, || format!("add route {destination} via {gateway} on {name}"))
    }

    /// Says that a host is on the link. Each interface may have a way of its own to the same one; the first made goes first.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add_neighbour_route(&mut self, name: &str, host: IpAddr) -> Result<()> {
        let metric = RouteAttribute::Priority(self.index_of(name)?);
        let message = self.route_message(name, host.into(), RouteScope::Link, metric)?;
        self.put_route(message, || format!("add route {host} on {name}"))
    }

    fn route_message(&mut self, name: &str, destination: IpNetwork, scope: RouteScope, attribute: RouteAttribute) -> Result<RouteMessage> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(destination.ip());
        message.header.destination_prefix_length = destination.prefix();
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Boot;
        message.header.scope = scope;
        message.header.kind = RouteType::Unicast;
        if destination.prefix() > 0 {
            message.attributes.push(RouteAttribute::Destination(destination.network().into()));
        }
        message.attributes.push(attribute);
        message.attributes.push(RouteAttribute::Oif(self.index_of(name)?));
        Ok(message)
    }

    fn put_route(&mut self, message: RouteMessage, what: impl FnOnce() -> String) -> Result<()> {
        self.route.request(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE).context(what)
    }

    /// All links with their addresses, by index.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn list(&mut self) -> Result<Vec<LinkView>> {
        let links = self.route.exchange(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP).context(|| "list links".into())?;
        let addresses =
            self.route.exchange(RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP).context(|| "list addresses".into())?;
        let mut views: Vec<LinkView> = Vec::new();
        for message in &links {
            if let RouteNetlinkMessage::NewLink(link) = message {
                views.push(link_view(link));
            }
        }
        for message in &addresses {
            if let RouteNetlinkMessage::NewAddress(address) = message
                && let Some(view) = views.iter_mut().find(|view| view.index == address.header.index)
            {
                view.addresses.extend(address_of(address));
            }
        }
        views.sort_by_key(|view| view.index);
        Ok(views)
    }

    /// Unicast routes of the main table, both families.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn routes(&mut self) -> Result<Vec<RouteView>> {
        let links = self.list()?;
        let mut views = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut query = RouteMessage::default();
            query.header.address_family = family;
            let answers = self.route.exchange(RouteNetlinkMessage::GetRoute(query), NLM_F_DUMP).context(|| "list routes".into())?;
            for answer in &answers {
                if let RouteNetlinkMessage::NewRoute(route) = answer
                    && route.header.table == RouteHeader::RT_TABLE_MAIN
                    && route.header.kind == RouteType::Unicast
                {
                    views.push(route_view(route, &links));
                }
            }
        }
        Ok(views)
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn link_view(link: &LinkMessage) -> LinkView {
    let is_ethernet = link.header.link_layer_type == LinkLayerType::Ether;
    let mut view = LinkView { index: link.header.index, state: "UNKNOWN".into(), is_ethernet, ..LinkView::default() };
    let mut carrier = true;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => view.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => view.mtu = *mtu,
            LinkAttribute::Address(octets) => view.mac = octets.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(":"),
            LinkAttribute::Carrier(on) => carrier = *on != 0,
            LinkAttribute::OperState(state) => {
                view.state = match state {
                    State::LowerLayerDown => "LOWERLAYERDOWN".into(),
                    other => format!("{other:?}").to_uppercase(),
                }
            }
            LinkAttribute::Stats64(stats) => {
                (view.rx_packets, view.rx_bytes) = (stats.rx_packets, stats.rx_bytes);
                (view.tx_packets, view.tx_bytes) = (stats.tx_packets, stats.tx_bytes);
                (view.rx_dropped, view.tx_dropped) = (stats.rx_dropped, stats.tx_dropped);
            }
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Kind(kind) = info {
                        view.kind = kind.to_string();
                    }
                }
            }
            _ => {}
        }
    }
    if link.header.flags.contains(LinkFlags::Up) && !carrier {
        view.flags.push("NO-CARRIER".into());
    }
    view.flags.extend(link.header.flags.iter_names().map(|(name, _)| iproute_flag(name)));
    view
}

fn iproute_flag(name: &str) -> String {
    if name == "LowerUp" { "LOWER_UP".into() } else { name.to_uppercase() }
}

fn address_of(message: &AddressMessage) -> Option<IpNetwork> {
    let of = |wanted_local| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) if wanted_local => Some(*address),
            AddressAttribute::Address(address) if !wanted_local => Some(*address),
            _ => None,
        })
    };
    IpNetwork::new(of(true).or_else(|| of(false))?, message.header.prefix_len).ok()
}

fn route_view(route: &RouteMessage, links: &[LinkView]) -> RouteView {
    let to_ip = |address: &RouteAddress| match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    };
    let unspecified = if route.header.address_family == AddressFamily::Inet { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let mut view = RouteView { destination: "default".into(), gateway: None, device: String::new(), source: None };
    let mut destination = unspecified;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = to_ip(address).unwrap_or(unspecified),
            RouteAttribute::Gateway(address) => view.gateway = to_ip(address),
            RouteAttribute::PrefSource(address) => view.source = to_ip(address),
            RouteAttribute::Oif(index) => view.device = links.iter().find(|link| link.index == *index).map_or_else(String::new, |link| link.name.clone()),
            _ => {}
        }
    }
    if route.header.destination_prefix_length > 0 {
        view.destination = format!("{destination}/{}", route.header.destination_prefix_length);
    }
    view
}
