//! An endpoint in a namespace: device, addresses, routes; made whole or not at all.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd,
};

use ipnetwork::IpNetwork;

use crate::{
    device::{self, PortFd},
    error::{Context, Result},
    link::Links,
    netns::Netns,
    undo::Undo,
};

/// What carries the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A TAP device inside the namespace.
    Tap,
    /// A veth pair: one end inside, a packet socket on the other.
    Veth,
}

/// An endpoint to make.
#[derive(Clone, Debug)]
pub struct EndpointSpec {
    /// What carries the frames.
    pub kind: Kind,
    /// Name inside the namespace.
    pub ifname: String,
    /// Ethernet address; the kernel's choice when `None`.
    pub mac: Option<[u8; 6]>,
    /// Largest packet, bytes.
    pub mtu: u32,
    /// Longest super-frame that the sandbox's TCP makes, bytes; the kernel's choice when `None`.
    pub gso_most: Option<u32>,
    /// Addresses with prefix lengths.
    pub addresses: Vec<IpNetwork>,
    /// Default gateways, one per family.
    pub gateways: Vec<IpAddr>,
    /// Hosts on the link whose addresses are in no subnet of it.
    pub neighbours: Vec<IpAddr>,
    /// The device outlives our descriptor.
    pub persistent: bool,
    /// Name in the switch's namespace: of a veth's other end; of a TAP before it is moved.
    pub peer_name: String,
    /// Files under /proc/sys/net, and what to write to them.
    pub sysctls: Vec<(String, String)>,
}

/// Makes the endpoint in `target`; the other end of a veth goes to `switch_side`.
///
/// # Errors
/// As the step that failed; nothing is left then.
pub fn attach(target: &Netns, switch_side: &Netns, spec: &EndpointSpec) -> Result<PortFd> {
    let mut undo = Undo::default();
    let port = match spec.kind {
        Kind::Tap => {
            // Made on our side and moved: a TAP's descriptor keeps the namespace where it was opened
            // alive, and the target must be free to end.
            let (fd, features) = switch_side.run(|| device::open_tap(&spec.peer_name, spec.persistent))?;
            undo.push(|| drop(delete(switch_side, &spec.peer_name)));
            switch_side.run(|| Links::open()?.move_to(&spec.peer_name, target.as_fd(), Some(&spec.ifname)))?;
            PortFd::Tap(fd, features)
        }
        Kind::Veth => {
            target.run(|| Links::open()?.add_veth(&spec.ifname, &spec.peer_name, switch_side.as_fd()))?;
            undo.push(|| drop(delete(target, &spec.ifname)));
            open_peer(switch_side, &spec.peer_name)?
        }
    };
    if spec.kind == Kind::Tap {
        undo.push(|| drop(delete(target, &spec.ifname)));
    }
    target.run(|| configure(spec))?;
    undo.keep();
    Ok(port)
}

fn open_peer(switch_side: &Netns, peer: &str) -> Result<PortFd> {
    switch_side.run(|| {
        let mut links = Links::open()?;
        // Nothing of ours speaks on this end: no addresses, no neighbour discovery.
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{peer}/disable_ipv6"), "1").ok();
        links.set_mtu(peer, MAX_VETH_MTU).ok();
        links.set_up(peer, true)?;
        let (fd, features) = device::open_packet(peer, true)?;
        Ok(PortFd::Packet(fd, features))
    })
}

/// The switch's end takes whatever the sandbox's end may send.
const MAX_VETH_MTU: u32 = 65_535;

fn configure(spec: &EndpointSpec) -> Result<()> {
    let name = &spec.ifname;
    let mut links = Links::open()?;
    if let Some(mac) = spec.mac {
        links.set_mac(name, mac)?;
    }
    links.set_mtu(name, spec.mtu)?;
    // Only matters of speed: kernels without them keep their default.
    links.set_no_queue(name).ok();
    if let Some(bytes) = spec.gso_most {
        links.set_gso_most(name, bytes).ok();
    }
    links.set_up(name, true)?;
    for (file, value) in &spec.sysctls {
        std::fs::write(file, value).context(|| format!("write {value} to {file}"))?;
    }
    for &address in &spec.addresses {
        links.add_address(name, address)?;
    }
    add_routes(&mut links, name, &spec.neighbours, &spec.gateways)
}

fn add_routes(links: &mut Links, name: &str, neighbours: &[IpAddr], gateways: &[IpAddr]) -> Result<()> {
    neighbours.iter().try_for_each(|host| links.add_neighbour_route(name, *host))?;
    add_gateways(links, name, gateways)
}

fn add_gateways(links: &mut Links, name: &str, gateways: &[IpAddr]) -> Result<()> {
    gateways.iter().try_for_each(|gateway| links.add_route(name, default_route(*gateway), *gateway))
}

/// Leads the default routes over an interface, instead of where they went before.
///
/// # Errors
/// When the kernel refuses.
pub fn set_gateways(target: &Netns, ifname: &str, gateways: &[IpAddr]) -> Result<()> {
    target.run(|| add_gateways(&mut Links::open()?, ifname, gateways))
}

/// `0.0.0.0/0` or `::/0`, whichever leads by that gateway.
#[must_use]
pub fn default_route(gateway: IpAddr) -> IpNetwork {
    let unspecified = match gateway {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    IpNetwork::new(unspecified, 0).unwrap_or_else(|_| IpNetwork::from(unspecified))
}

/// Opens the switch's end of an endpoint that another process made: a persistent TAP, or the
/// remembered end of a veth pair. Addresses and routes inside are as they were.
///
/// # Errors
/// When the device is gone.
pub fn reattach(target: &Netns, switch_side: &Netns, kind: Kind, ifname: &str, peer_name: &str) -> Result<PortFd> {
    match kind {
        Kind::Tap => target.run(|| {
            // Without this a TAP of that name would be made anew.
            Links::open()?.index_of(ifname)?;
            let (fd, features) = retry_while_busy(|| device::open_tap(ifname, true))?;
            Ok(PortFd::Tap(fd, features))
        }),
        Kind::Veth => open_peer(switch_side, peer_name),
    }
}

/// The kernel tears an io_uring down after its process has ended, and with it the last descriptor of
/// a TAP: for a moment the device is still taken.
fn retry_while_busy<T>(mut open: impl FnMut() -> Result<T>) -> Result<T> {
    const TRIES: u32 = 250;
    for _ in 1..TRIES {
        match open() {
            Err(error) if error.errno() == Some(nix::libc::EBUSY) => std::thread::sleep(std::time::Duration::from_millis(20)),
            other => return other,
        }
    }
    open()
}

/// Opens a port on a device that is not ours. It is left as it is, but for promiscuous mode while the port is open.
///
/// # Errors
/// When there is no such device.
pub fn open_device(namespace: &Netns, name: &str) -> Result<PortFd> {
    namespace.run(|| {
        let (fd, features) = device::open_packet(name, true)?;
        Ok(PortFd::Packet(fd, features))
    })
}

/// Removes the device inside the namespace (and with it the other end of a veth).
///
/// # Errors
/// When it is gone already.
pub fn delete(target: &Netns, ifname: &str) -> Result<()> {
    target.run(|| Links::open()?.delete(ifname))
}

/// Moves a device to another namespace, with its addresses, and sets it up there.
///
/// # Errors
/// When the name is taken there; the device is then where it was.
pub fn move_endpoint(from: &Netns, to: &Netns, ifname: &str, new_name: &str, neighbours: &[IpAddr], gateways: &[IpAddr]) -> Result<()> {
    // Moving takes addresses away, so they are read before.
    let addresses: Vec<IpNetwork> = from.run(|| Links::open()?.list())?.into_iter().find(|link| link.name == ifname).map_or_else(Vec::new, |link| {
        link.addresses.into_iter().filter(|address| !matches!(address.ip(), IpAddr::V6(v6) if v6.is_unicast_link_local())).collect()
    });
    from.run(|| Links::open()?.move_to(ifname, to.as_fd(), Some(new_name)))?;
    to.run(|| {
        let mut links = Links::open()?;
        links.set_up(new_name, true)?;
        for &address in &addresses {
            links.add_address(new_name, address)?;
        }
        add_routes(&mut links, new_name, neighbours, gateways)
    })
}
