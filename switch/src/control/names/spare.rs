//! Answers for who asks too much: given by a thread that runs only while nobody else wants the processor, so that a
//! flood of questions takes no time from the switch, nor from control.

use std::{io, net::SocketAddr, sync::Arc, thread};

use crossbeam_channel::{Sender, bounded};
use tokio::net::UdpSocket;

use super::server::Resolver;
use crate::sys::priority;

/// Questions that may wait for it, of all views; further ones are lost, as in a full socket.
const MOST_WAITING: usize = 256;

/// A datagram that has not been answered.
pub(super) struct Question {
    pub(super) resolver: Arc<Resolver>,
    pub(super) socket: Arc<UdpSocket>,
    pub(super) message: Vec<u8>,
    pub(super) from: SocketAddr,
}

/// The way to the thread, which ends with the last of these.
#[derive(Clone)]
pub(super) struct Spare(Sender<Question>);

impl Spare {
    pub(super) fn start() -> io::Result<Self> {
        let (sender, questions) = bounded::<Question>(MOST_WAITING);
        thread::Builder::new().name("names".into()).spawn(move || {
            priority::lower();
            for Question { resolver, socket, message, from } in questions {
                // To look at the model is not for a thread that may be stopped for long while it holds the lock.
                resolver.answer(&resolver.last_zone(), &socket, &message, from);
            }
        })?;
        Ok(Self(sender))
    }

    /// False when it cannot keep up.
    pub(super) fn give(&self, question: Question) -> bool {
        self.0.try_send(question).is_ok()
    }
}
