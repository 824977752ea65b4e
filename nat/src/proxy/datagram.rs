//! UDP and ICMP echo: datagrams, each flow of which is a pair of ends seen lately.
//!
//! A socket of the host stands for one end inside (address and port, or address and echo identifier), to
//! wherever it sends: mapping is endpoint-independent (RFC 4787 REQ-1). Answers pass only from ends that
//! were sent to: filtering is address and port dependent (REQ-8's strict choice). What comes in by a
//! published port is answered from that port.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
};

use packet::{Duration, Instant, Mac};

use crate::watch::Watch;

use super::{
    Key, Output, Owner, Proxy, Transport, mtu_of, release,
    sockets::{NetworkError, Ready, SocketId, Sockets},
    write::{self, Path},
};

/// Sockets at most, and of one address inside: at the limit those of it that are idle for longest give
/// way, an eighth at a time, so that a flood of new ports costs little, and nobody else anything.
const MOST_BINDINGS: usize = 16_384;
const MOST_OF_ONE: usize = 4096;
/// Flows at most, and of one address inside; at the limit some give way, as sockets do.
const MOST_FLOWS: usize = 131_072;
const MOST_FLOWS_OF_ONE: usize = 32_768;
/// RFC 4787 REQ-5: at least two minutes; five are recommended.
const LIFETIME: Duration = Duration::from_secs(300);
/// One question, one answer (RFC 4787 REQ-5 a allows less for well-known ports).
const DNS_LIFETIME: Duration = Duration::from_secs(20);
/// RFC 5508 REQ-2: at least sixty seconds.
const ECHO_LIFETIME: Duration = Duration::from_secs(60);
const SWEEP: Duration = Duration::from_secs(5);
/// Datagrams read from one socket before another has its turn.
const BURST: usize = 32;
/// The longest payload of IPv6 (RFC 8200 without jumbograms); IPv4's is 20 bytes less.
const MOST_BYTES: usize = 65_527;

/// A socket that stands for an end inside.
#[derive(Debug)]
pub(super) struct Binding {
    network: packet::NetworkId,
    inside: SocketAddr,
    transport: Transport,
    pub(super) socket: SocketId,
    last: Instant,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    pub(super) mac: Mac,
    pub(super) transport: Transport,
    /// Where the host sends, where that is not what the sandbox sees.
    peer: SocketAddr,
    /// By which socket.
    pub(super) socket: SocketId,
    pub(super) last: Instant,
    pub(super) rx_bytes: u64,
    pub(super) tx_bytes: u64,
}

impl Session {
    fn lifetime(&self) -> Duration {
        match self.transport {
            Transport::Echo => ECHO_LIFETIME,
            _ if self.peer.port() == 53 => DNS_LIFETIME,
            _ => LIFETIME,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Datagrams {
    bindings: Vec<Option<Binding>>,
    free: Vec<usize>,
    by_end: HashMap<(packet::NetworkId, SocketAddr, Transport), usize>,
    /// How many sockets an address inside has.
    counts: HashMap<(packet::NetworkId, IpAddr), usize>,
    pub(super) sessions: HashMap<(Key, Transport), Session>,
    /// What clients of published ports, and servers that were renamed, are called inside.
    names: HashMap<(SocketId, SocketAddr), Key>,
    /// How many flows an address inside has made since, or had at, the last sweep.
    flow_counts: HashMap<(packet::NetworkId, IpAddr), usize>,
    next: Option<Instant>,
}

impl Datagrams {
    /// Makes room for a flow of an address: those of it that were never answered, or else were idle for
    /// longest, give way; when all is full, those of whoever has most.
    fn make_room(&mut self, key: &Key) {
        let one = (key.network, key.inside.ip());
        if self.flow_counts.get(&one).is_some_and(|count| *count >= MOST_FLOWS_OF_ONE) {
            self.evict_flows(one);
        } else if self.sessions.len() >= MOST_FLOWS
            && let Some(most) = self.flow_counts.iter().max_by_key(|(one, count)| (**count, **one)).map(|(one, _)| *one)
        {
            self.evict_flows(most);
        }
    }

    /// Forgets an eighth of what an address may have.
    #[expect(clippy::iter_over_hash_type, reason = "sorted afterwards")]
    fn evict_flows(&mut self, one: (packet::NetworkId, IpAddr)) {
        let mut own = Vec::new();
        for (name, session) in &self.sessions {
            if (name.0.network, name.0.inside.ip()) == one {
                own.push((session.tx_bytes > 0, session.last, *name));
            }
        }
        own.sort_unstable_by_key(|(answered, last, (key, _))| (*answered, *last, key.inside, key.outside));
        for (_, _, name) in own.into_iter().take(MOST_FLOWS_OF_ONE / 8) {
            self.sessions.remove(&name);
        }
        let sessions = &self.sessions;
        self.names.retain(|_, key| sessions.contains_key(&(*key, Transport::Udp)));
        self.count_flows();
    }

    #[expect(clippy::iter_over_hash_type, reason = "counting has no order")]
    fn count_flows(&mut self) {
        self.flow_counts.clear();
        for (key, _) in self.sessions.keys() {
            *self.flow_counts.entry((key.network, key.inside.ip())).or_default() += 1;
        }
    }

    pub(super) fn is_taken(&self, key: &Key) -> bool {
        self.sessions.contains_key(&(*key, Transport::Udp))
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    /// Forgets clients of a published port: those whose ends inside are not `kept`.
    pub(super) fn forget_clients(&mut self, listener: SocketId, kept: impl Fn(&Key) -> bool) {
        self.sessions.retain(|(key, _), session| session.socket != listener || kept(key));
        self.names.retain(|(socket, _), key| *socket != listener || kept(key));
    }

    pub(super) fn end<S: Sockets>(&mut self, sockets: &mut S, owners: &mut HashMap<SocketId, Owner>, ends: impl Fn(&Key) -> bool) {
        self.sessions.retain(|(key, _), _| !ends(key));
        self.count_flows();
        self.names.retain(|_, key| !ends(key));
        for at in 0..self.bindings.len() {
            let gone = self.bindings[at].as_ref().is_some_and(|binding| ends(&Key { network: binding.network, inside: binding.inside, outside: binding.inside }));
            if gone {
                self.drop_binding(at, sockets, owners);
            }
        }
    }

    fn drop_binding<S: Sockets>(&mut self, at: usize, sockets: &mut S, owners: &mut HashMap<SocketId, Owner>) {
        if let Some(binding) = self.bindings[at].take() {
            self.by_end.remove(&(binding.network, binding.inside, binding.transport));
            if let Some(count) = self.counts.get_mut(&(binding.network, binding.inside.ip())) {
                *count -= 1;
            }
            release(&binding, sockets, owners);
            self.free.push(at);
        }
    }

    /// Forgets what was idle for its lifetime.
    pub(super) fn expire<S: Sockets>(&mut self, now: Instant, sockets: &mut S, owners: &mut HashMap<SocketId, Owner>, watch: &mut Watch) {
        if self.next.is_none_or(|next| next > now) {
            return;
        }
        self.sessions.retain(|(key, transport), session| {
            let lives = session.last + session.lifetime() > now;
            if !lives {
                watch.tell(|| key.event(transport.number(key.inside.is_ipv4()), false));
            }
            lives
        });
        let sessions = &self.sessions;
        self.names.retain(|_, key| sessions.contains_key(&(*key, Transport::Udp)));
        self.counts.retain(|_, count| *count > 0);
        self.count_flows();
        let mut used: Vec<SocketId> = self.sessions.values().map(|session| session.socket).collect();
        used.sort_unstable();
        for at in 0..self.bindings.len() {
            let idle = self.bindings[at].as_ref().is_some_and(|binding| used.binary_search(&binding.socket).is_err());
            if idle {
                self.drop_binding(at, sockets, owners);
            }
        }
        self.next = (!self.sessions.is_empty()).then(|| now + SWEEP);
    }

    /// Closes the eighth of an address's sockets that was idle for longest.
    fn evict<S: Sockets>(&mut self, one: (packet::NetworkId, IpAddr), sockets: &mut S, owners: &mut HashMap<SocketId, Owner>) {
        let own = |binding: &Binding| (binding.network, binding.inside.ip()) == one;
        let mut idle: Vec<_> = self.bindings.iter().enumerate().filter_map(|(at, binding)| binding.as_ref().filter(|binding| own(binding)).map(|binding| (binding.last, at))).collect();
        idle.sort_unstable();
        idle.truncate(MOST_OF_ONE / 8);
        let mut gone: Vec<SocketId> = idle.iter().filter_map(|(_, at)| self.bindings[*at].as_ref().map(|binding| binding.socket)).collect();
        gone.sort_unstable();
        for (_, at) in idle {
            self.drop_binding(at, sockets, owners);
        }
        self.sessions.retain(|_, session| gone.binary_search(&session.socket).is_err());
        self.names.retain(|(socket, _), _| gone.binary_search(socket).is_err());
    }

    /// The socket of an end inside, opened if need be.
    fn bind<S: Sockets>(&mut self, key: &Key, transport: Transport, now: Instant, sockets: &mut S, owners: &mut HashMap<SocketId, Owner>) -> io::Result<SocketId> {
        let end = (key.network, key.inside, transport);
        if let Some(binding) = self.by_end.get(&end).and_then(|&at| self.bindings[at].as_mut()) {
            binding.last = now;
            return Ok(binding.socket);
        }
        let one = (key.network, key.inside.ip());
        if self.counts.get(&one).is_some_and(|count| *count >= MOST_OF_ONE) {
            self.evict(one, sockets, owners);
        }
        if self.by_end.len() >= MOST_BINDINGS {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let ipv6 = key.inside.is_ipv6();
        let socket = if transport == Transport::Echo { sockets.ping_open(ipv6)? } else { sockets.udp_open(ipv6)? };
        let at = self.free.pop().unwrap_or_else(|| {
            self.bindings.push(None);
            self.bindings.len() - 1
        });
        self.bindings[at] = Some(Binding { network: key.network, inside: key.inside, transport, socket, last: now });
        self.by_end.insert(end, at);
        *self.counts.entry(one).or_default() += 1;
        owners.insert(socket, Owner::Binding(at));
        Ok(socket)
    }
}

impl Proxy {
    /// A datagram from a sandbox; of a super-frame, datagrams of `size` bytes.
    #[expect(clippy::too_many_arguments, reason = "the facts of one datagram")]
    pub(super) fn datagram<S: Sockets>(&mut self, key: Key, mac: Mac, transport: Transport, hops: u8, payload: &[u8], size: usize, now: Instant, sockets: &mut S, out: &mut Output) {
        let known = self.datagrams.sessions.get(&(key, transport)).map(|session| (session.socket, session.peer));
        let (socket, peer) = match known {
            Some(known) => known,
            None => match self.new_session(key, mac, transport, now, sockets) {
                Ok(Some(made)) => made,
                Ok(None) => {
                    self.unreachable(&key, mac, transport.number(key.inside.is_ipv4()), 3, 0, &quote(&key, transport, payload), out);
                    return;
                }
                Err(error) => {
                    // 13: administratively prohibited, for what the host forbids us; else no route.
                    let code = if error.kind() == io::ErrorKind::PermissionDenied { 13 } else { 0 };
                    self.unreachable(&key, mac, transport.number(key.inside.is_ipv4()), code, 0, &quote(&key, transport, payload), out);
                    return;
                }
            },
        };
        // The first of a flow goes alone, so that an error can be told; later ones go many at once.
        let hops = hops.saturating_sub(1).max(1);
        let sent = if known.is_some() && transport == Transport::Udp && !payload.is_empty() {
            sockets.datagram_queue(socket, peer, hops, payload, size.min(payload.len()));
            Ok(())
        } else {
            payload.chunks(size.max(1)).chain(payload.is_empty().then_some(&[][..])).map(|part| sockets.datagram_send(socket, peer, hops, part)).fold(Ok(()), Result::and)
        };
        if let Some(session) = self.datagrams.sessions.get_mut(&(key, transport)) {
            session.last = now;
            session.mac = mac;
            session.rx_bytes += payload.len() as u64;
        }
        if let Err(error) = sent {
            let code = match error.kind() {
                io::ErrorKind::NetworkUnreachable => 0,
                io::ErrorKind::HostUnreachable => 1,
                io::ErrorKind::PermissionDenied => 13,
                _ => return,
            };
            self.unreachable(&key, mac, transport.number(key.inside.is_ipv4()), code, 0, &quote(&key, transport, payload), out);
        }
    }

    fn new_session<S: Sockets>(&mut self, key: Key, mac: Mac, transport: Transport, now: Instant, sockets: &mut S) -> io::Result<Option<(SocketId, SocketAddr)>> {
        let Some(peer) = self.route(&key, transport) else { return Ok(None) };
        self.datagrams.make_room(&key);
        let socket = self.datagrams.bind(&key, transport, now, sockets, &mut self.owners)?;
        self.count_opened(&key, peer);
        self.remember(key, Session { mac, transport, peer, socket, last: now, rx_bytes: 0, tx_bytes: 0 }, now);
        Ok(Some((socket, peer)))
    }

    fn remember(&mut self, key: Key, session: Session, now: Instant) {
        if session.peer != key.outside {
            // As answers are read: a mapped address is the IPv4 one.
            let peer = SocketAddr::new(session.peer.ip().to_canonical(), session.peer.port());
            self.datagrams.names.insert((session.socket, peer), key);
        }
        self.watch.tell(|| key.event(session.transport.number(key.inside.is_ipv4()), true));
        self.datagrams.sessions.insert((key, session.transport), session);
        *self.datagrams.flow_counts.entry((key.network, key.inside.ip())).or_default() += 1;
        self.datagrams.next.get_or_insert(now + SWEEP);
    }

    pub(super) fn binding_ready<S: Sockets>(&mut self, at: usize, ready: Ready, now: Instant, sockets: &mut S, out: &mut Output) {
        let Some(binding) = self.datagrams.bindings[at].as_ref() else { return };
        let (network, inside, transport, socket) = (binding.network, binding.inside, binding.transport, binding.socket);
        let name = |this: &Self, from: SocketAddr| {
            let plain = SocketAddr::new(from.ip().to_canonical(), if transport == Transport::Echo { 0 } else { from.port() });
            this.datagrams.names.get(&(socket, plain)).copied().unwrap_or(Key { network, inside, outside: plain })
        };
        if ready.error {
            for _ in 0..BURST {
                let Some(error) = sockets.datagram_error(socket) else { break };
                let key = name(self, error.to);
                self.pass_error(&key, transport, &error, out);
            }
        }
        self.receive(socket, now, sockets, out, |this, from| {
            let key = name(this, from);
            this.datagrams.sessions.contains_key(&(key, transport)).then_some((key, transport))
        });
    }

    /// Clients of a published port.
    pub(super) fn published_datagrams<S: Sockets>(&mut self, listener: SocketId, now: Instant, sockets: &mut S, out: &mut Output) {
        self.receive(listener, now, sockets, out, |this, client| {
            if let Some(&key) = this.datagrams.names.get(&(listener, client)) {
                return Some((key, Transport::Udp));
            }
            let (network, target) = this.next_target(listener)?;
            this.datagrams.make_room(&Key { network, inside: target.inside, outside: client });
            let key = this.key_of(network, target.inside, client)?;
            let session = Session { mac: target.mac, transport: Transport::Udp, peer: client, socket: listener, last: now, rx_bytes: 0, tx_bytes: 0 };
            this.datagrams.names.insert((listener, client), key);
            this.remember(key, session, now);
            Some((key, Transport::Udp))
        });
    }

    /// Reads a burst, and passes on what `whose` knows.
    fn receive<S: Sockets>(&mut self, socket: SocketId, now: Instant, sockets: &mut S, out: &mut Output, mut whose: impl FnMut(&mut Self, SocketAddr) -> Option<(Key, Transport)>) {
        for _ in 0..BURST {
            let mut from = None;
            let read = write::with_payload(&self.pool, MOST_BYTES, |into| {
                let (length, who) = sockets.datagram_receive(socket, into)?;
                from = Some(who);
                Ok::<_, io::Error>(length)
            });
            let (mut frame, length, from) = match (read, from) {
                (Ok(Some((frame, length))), Some(from)) => (frame, length, from),
                (Err(error), _) if error.kind() == io::ErrorKind::Interrupted => continue,
                // Without a buffer now, there will be one when frames have left.
                (Ok(None), _) => break,
                _ => return,
            };
            let Some((key, transport)) = whose(self, from) else {
                self.stats.filtered += 1;
                continue;
            };
            let Some(network) = self.networks.get(&key.network) else { return };
            let (gateway_mac, mtu) = (network.gateway_mac, usize::from(mtu_of(&self.mtus, network, &key)));
            let Some(session) = self.datagrams.sessions.get_mut(&(key, transport)) else { continue };
            session.last = now;
            session.tx_bytes += length as u64;
            let path = Path { from_mac: gateway_mac, to_mac: session.mac, from: key.outside, to: key.inside };
            if transport == Transport::Echo {
                if frame.len() < 8 {
                    continue;
                }
                frame.bytes_mut()[4..6].copy_from_slice(&key.inside.port().to_be_bytes());
                write::icmp(&mut frame, &path);
            } else {
                write::udp(&mut frame, &path);
            }
            if let Some(published) = self.publishes.get_mut(&socket) {
                published.hits += 1;
            }
            if frame.len() <= mtu + 14 {
                out.push((key.network, frame));
            } else {
                write::fragment(&self.pool, &frame, mtu, |part| out.push((key.network, part)));
            }
        }
        self.again.push(socket);
    }

    fn pass_error(&mut self, key: &Key, transport: Transport, error: &NetworkError, out: &mut Output) {
        let Some(session) = self.datagrams.sessions.get(&(*key, transport)) else { return };
        let mac = session.mac;
        self.send_error(key, mac, error.from, transport.number(key.inside.is_ipv4()), (error.kind, error.code), error.mtu, &quote(key, transport, &[]), out);
    }

    /// Destination unreachable, with a code of ICMP's (RFC 792); ICMPv6's are found for it (RFC 7915 4.2).
    #[expect(clippy::too_many_arguments, reason = "the facts of one message")]
    pub(super) fn unreachable(&mut self, key: &Key, mac: Mac, number: u8, code: u8, mtu: u32, quoted: &[u8; 8], out: &mut Output) {
        let kind = if key.inside.is_ipv4() {
            (3, code)
        } else {
            (1, match code {
                0 => 0,
                3 => 4,
                13 => 1,
                _ => 3,
            })
        };
        self.send_error(key, mac, None, number, kind, mtu, quoted, out);
    }

    /// An ICMP error about a packet from inside: its header made anew, and eight bytes.
    #[expect(clippy::too_many_arguments, reason = "the facts of one message")]
    fn send_error(&mut self, key: &Key, mac: Mac, from: Option<IpAddr>, number: u8, (kind, code): (u8, u8), mtu: u32, quoted: &[u8; 8], out: &mut Output) {
        let Some(network) = self.networks.get(&key.network) else { return };
        let Some(gateway) = network.gateway(key.inside.is_ipv4()) else { return };
        let path = Path { from_mac: network.gateway_mac, to_mac: mac, from: SocketAddr::new(from.filter(|from| from.is_ipv4() == gateway.is_ipv4()).unwrap_or(gateway), 0), to: key.inside };
        let mut message = vec![kind, code, 0, 0];
        message.extend(mtu.to_be_bytes());
        match (key.inside.ip(), key.outside.ip()) {
            (IpAddr::V4(inside), IpAddr::V4(outside)) => {
                message.extend([0x45, 0, 0, 28, 0, 0, 0x40, 0, 63, number, 0, 0]);
                message.extend(inside.octets().into_iter().chain(outside.octets()));
                let sum = !packet::checksum::fold(packet::checksum::sum(&message[8..28]));
                message[18..20].copy_from_slice(&sum.to_be_bytes());
            }
            (IpAddr::V6(inside), IpAddr::V6(outside)) => {
                message.extend([0x60, 0, 0, 0, 0, 8, number, 63]);
                message.extend(inside.octets().into_iter().chain(outside.octets()));
            }
            _ => return,
        }
        message.extend(quoted);
        let made = write::with_payload(&self.pool, message.len(), |into| {
            into.copy_from_slice(&message);
            Ok::<_, ()>(message.len())
        });
        if let Ok(Some((mut frame, _))) = made {
            write::icmp(&mut frame, &path);
            out.push((key.network, frame));
        }
    }
}

/// The first eight bytes above IP, which tell a host which of its sockets is meant.
fn quote(key: &Key, transport: Transport, payload: &[u8]) -> [u8; 8] {
    let mut quoted = [0; 8];
    if transport == Transport::Echo {
        let (kind, sequence) = (if key.inside.is_ipv4() { 8 } else { 128 }, payload.get(6..8).unwrap_or(&[0, 0]));
        quoted[0] = kind;
        quoted[4..6].copy_from_slice(&key.inside.port().to_be_bytes());
        quoted[6..].copy_from_slice(sequence);
    } else {
        quoted[..2].copy_from_slice(&key.inside.port().to_be_bytes());
        quoted[2..4].copy_from_slice(&key.outside.port().to_be_bytes());
        quoted[4..6].copy_from_slice(&u16::try_from(payload.len() + 8).unwrap_or(u16::MAX).to_be_bytes());
    }
    quoted
}
