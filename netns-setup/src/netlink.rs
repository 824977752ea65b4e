//! One request, its answers: rtnetlink(7) over a blocking socket of this thread's namespace.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// An rtnetlink socket in the namespace where it was opened.
#[derive(Debug)]
pub(crate) struct Route {
    socket: Socket,
    sequence: u32,
}

impl Route {
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends a request and waits for its acknowledgement.
    pub(crate) fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.exchange(message, flags | NLM_F_ACK).map(drop)
    }

    /// Sends a request and gives all messages that answer it.
    pub(crate) fn exchange(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut answers = Vec::new();
        loop {
            let (received, _) = self.socket.recv_from_full()?;
            if self.take(&received, flags, &mut answers)? {
                return Ok(answers);
            }
        }
    }

    /// Reads the messages of one datagram; true when the answer is complete.
    fn take(&self, mut bytes: &[u8], flags: u16, answers: &mut Vec<RouteNetlinkMessage>) -> io::Result<bool> {
        while !bytes.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes).map_err(io::Error::other)?;
            let length = usize::try_from(message.header.length).map_err(io::Error::other)?.next_multiple_of(4);
            if message.header.sequence_number == self.sequence {
                match message.payload {
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(true),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::Done(_) => return Ok(true),
                    NetlinkPayload::InnerMessage(inner) => {
                        answers.push(inner);
                        // A single answer without acknowledgement and without dump.
                        if flags == 0 {
                            return Ok(true);
                        }
                    }
                    _ => {}
                }
            }
            bytes = bytes.get(length.max(16)..).unwrap_or_default();
        }
        Ok(false)
    }
}
