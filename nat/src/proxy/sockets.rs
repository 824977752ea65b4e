//! What the proxy asks of the host.

use std::{io, net::{IpAddr, SocketAddr}};

/// A host socket; the number is the implementation's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub u32);

/// What a socket is ready for. Edge-triggered: told once, then asked until it would block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Something to read, or the end of the stream.
    pub read: bool,
    /// Room to write, or the connection was made.
    pub write: bool,
    /// An error to fetch.
    pub error: bool,
}

/// An error that the network sent about a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkError {
    /// Where the datagram was sent.
    pub to: SocketAddr,
    /// Who said so, where that is known.
    pub from: Option<IpAddr>,
    /// ICMP or ICMPv6 type.
    pub kind: u8,
    /// ICMP or ICMPv6 code.
    pub code: u8,
    /// Next-hop MTU, where the error carries one.
    pub mtu: u32,
}

/// Sockets of the host, none of which ever blocks.
pub trait Sockets {
    /// Starts a TCP connection; readiness to write tells how it went.
    ///
    /// # Errors
    /// When it fails at once.
    fn tcp_connect(&mut self, to: SocketAddr) -> io::Result<SocketId>;

    /// The outcome of a connection that was started: `None` while it is under way.
    fn tcp_outcome(&mut self, socket: SocketId) -> Option<io::Result<()>>;

    /// The next connection that came in on a listener, and who made it.
    fn tcp_accept(&mut self, listener: SocketId) -> Option<(SocketId, SocketAddr)>;

    /// Gives bytes to the host; how many it took.
    ///
    /// # Errors
    /// Would-block counts as zero; any other error ends the connection.
    fn tcp_send(&mut self, socket: SocketId, bytes: &[u8]) -> io::Result<usize>;

    /// Bytes that the host would take now, about.
    fn tcp_room(&mut self, socket: SocketId) -> usize;

    /// Copies what came in, from `offset` bytes behind the first that was not taken off; zero is the end of the stream.
    /// Nothing is taken off. Going on where the peek before ended is cheapest.
    ///
    /// # Errors
    /// Would-block when there is nothing more; any other error ends the connection.
    fn tcp_peek(&mut self, socket: SocketId, offset: usize, into: &mut [u8]) -> io::Result<usize>;

    /// Takes bytes off that were peeked at.
    fn tcp_discard(&mut self, socket: SocketId, count: usize);

    /// No more bytes will be sent.
    fn tcp_shutdown(&mut self, socket: SocketId);

    /// A socket to send datagrams to anywhere, and hear the answers.
    ///
    /// # Errors
    /// When the host refuses.
    fn udp_open(&mut self, ipv6: bool) -> io::Result<SocketId>;

    /// A socket for echo requests.
    ///
    /// # Errors
    /// When the host refuses: neither ping nor raw sockets are allowed.
    fn ping_open(&mut self, ipv6: bool) -> io::Result<SocketId>;

    /// Sends a datagram, or an echo message from its type on.
    ///
    /// # Errors
    /// As the host says.
    fn datagram_send(&mut self, socket: SocketId, to: SocketAddr, hops: u8, bytes: &[u8]) -> io::Result<()>;

    /// Sends UDP datagrams of `size` bytes each (the last may be shorter), by
    /// [`datagram_flush`](Self::datagram_flush) at the latest. Errors are not told.
    fn datagram_queue(&mut self, socket: SocketId, to: SocketAddr, hops: u8, bytes: &[u8], size: usize) {
        for part in bytes.chunks(size.max(1)) {
            drop(self.datagram_send(socket, to, hops, part));
        }
    }

    /// What was queued is sent.
    fn datagram_flush(&mut self) {}

    /// The next datagram, and who sent it.
    ///
    /// # Errors
    /// Would-block when there is none.
    fn datagram_receive(&mut self, socket: SocketId, into: &mut [u8]) -> io::Result<(usize, SocketAddr)>;

    /// The next error that the network sent about a datagram of this socket.
    fn datagram_error(&mut self, socket: SocketId) -> Option<NetworkError>;

    /// Closes; with `reset` a TCP peer is told that the connection broke.
    fn close(&mut self, socket: SocketId, reset: bool);
}
