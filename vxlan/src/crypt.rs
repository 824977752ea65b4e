//! Encryption between nodes. A datagram of an encrypted VNI, behind the outer UDP header:
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |0|E|0|0|0|0|0|0|                  zero                         |   a VXLAN header without the I flag:
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+   whoever knows only RFC 7348 drops it
//! |                      VNI                      |     zero      |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                             epoch                             |   which secret
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                        session (64 bits)                      |   of the sender
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |      lane     |              counter (56 bits)                |
//! +-+-+-+-+-+-+-+-+                                               +
//! |                                                               |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                     inner frame, encrypted                    |   as long as it was
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                         tag (128 bits)                        |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! AES-256-GCM; the 28 bytes before the inner frame are its associated data; the nonce is 32 zero bits, lane and counter.
//! All numbers are big-endian. Equal frames make datagrams of equal length, so trains of them stay trains.
//!
//! **Keys.** A network has a secret of 32 bytes for each epoch, the same on all its nodes. The key of a datagram is
//! HKDF-SHA256 of it (salt [`SALT`]), for VNI, epoch, session and the address that the datagram is sent to: one for each
//! pair of nodes and direction. The receiver knows the latter from its IP header. So a datagram neither opens in another
//! VNI, nor at another node, nor back at its sender.
//!
//! **Nonces never repeat.** A sender draws a session of 64 random bits each time it is given keys, hence at each start,
//! and counts the datagrams of each lane to each destination from 1. The same key again would take the same session drawn twice by senders
//! of one network in one epoch (one in 2^33 after 2^16 starts). So nodes that share a secret need not agree on anything, and one that was
//! killed goes on in the same epoch with other keys. At [`COUNTER_MOST`] it stops.
//!
//! **Sender's address.** It is not part of the key, since a sender does not know it before the kernel chose, and it is
//! believed only of a datagram that opened (as WireGuard does): who can hold datagrams back can make one that nobody has
//! seen come from another peer's address, and so lead a station's traffic astray, as it could by dropping it. Read it he cannot.
//!
//! **Replay.** The receiver keeps a window of 2048 counters (RFC 6479) for each lane of each session that it has opened a
//! datagram of, and forgets the idlest of more than [`SESSIONS_MOST`]. It forgets all when it restarts: what was recorded before may then
//! be played to it once, until the session's own traffic has moved the window on, or the epoch ends. Rotate secrets.
//!
//! **Lanes.** Flows leave by several ports, so that the network may carry them by several ways: they overtake each other by
//! more than a window, even before they have left. Within a lane ([`LANES`](crate::LANES), by source port) order is kept.
//!
//! **Rotation.** At most [`EPOCHS_MOST`] epochs are accepted at once, one is used for sending. First all nodes are given the
//! new one to accept, then to send with; then the old one is taken away, and its sessions with it. Nodes of a cluster do so by
//! themselves (`switch/control/src/cluster/secrets.rs`).
//!
//! **Fails closed.** An encrypted VNI neither sends nor takes a clear frame, with or without keys (cf. CVE-2023-28840 to
//! -28842); one that is not encrypted takes no sealed one. No forward secrecy: who learns a secret can read what was
//! recorded in its epoch.

mod key;
mod opening;
mod sealing;
#[cfg(test)]
mod tests;
mod window;

use std::{collections::BTreeSet, fmt};

use packet::Vni;

pub(crate) use self::{opening::Opening, sealing::Sealing};
use crate::{drop::DropReason, header::HEADER_LEN, refused::Refused};

/// Bytes before the inner frame.
pub(crate) const FRONT: usize = HEADER_LEN + 4 + 8 + 8;
/// Bytes behind it: the tag.
pub(crate) const BACK: usize = 16;
/// What encryption adds to a datagram, bytes.
pub const OVERHEAD: usize = FRONT - HEADER_LEN + BACK;
/// Epochs that are accepted at once.
pub const EPOCHS_MOST: usize = 2;
/// Sessions of other nodes that a VNI remembers.
const SESSIONS_MOST: usize = 2048;
/// Datagrams of one lane of a session to one destination.
const COUNTER_MOST: u64 = 1 << 48;
/// Where in the counter field the lane is.
const LANE_SHIFT: u32 = 56;
const SALT: &[u8] = b"weft vxlan sealed 1";

/// 32 bytes that nobody else may know; not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub [u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What a VNI encrypts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Epochs to accept, with their secrets: one or two.
    pub epochs: Vec<(u32, Secret)>,
    /// The one of them to send with.
    pub current: u32,
    /// 64 random bits, never used before with these secrets.
    pub session: u64,
}

impl Keys {
    /// # Errors
    /// `BadKeys`.
    pub(crate) fn check(&self) -> Result<(), Refused> {
        let numbers: BTreeSet<u32> = self.epochs.iter().map(|(epoch, _)| *epoch).collect();
        let sound = numbers.len() == self.epochs.len() && numbers.len() <= EPOCHS_MOST && numbers.contains(&self.current);
        if sound { Ok(()) } else { Err(Refused::BadKeys) }
    }
}

/// What there is to see of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CryptView {
    /// The epoch that is sent with; none without keys.
    pub current: Option<u32>,
    /// Epochs that are accepted.
    pub epochs: Vec<u32>,
    /// Sessions of other nodes that are remembered.
    pub sessions: usize,
}

/// Both directions of one VNI.
#[derive(Debug)]
pub(crate) struct Crypt {
    pub(crate) sealing: Sealing,
    pub(crate) opening: Opening,
}

impl Crypt {
    /// With new keys, in place of `before`, whose windows go on for the secrets that stay. `None` when there is no key to
    /// send with.
    pub(crate) fn new(vni: Vni, keys: &Keys, before: Option<Self>) -> Option<Self> {
        let sealing = Sealing::new(vni, keys)?;
        Some(Self { sealing, opening: Opening::new(vni, keys, before.map(|before| before.opening)) })
    }

    pub(crate) fn view(&self) -> CryptView {
        CryptView { current: Some(self.sealing.epoch()), epochs: self.opening.epochs().collect(), sessions: self.opening.sessions_len() }
    }
}

/// What a datagram says of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Label {
    epoch: u32,
    session: u64,
    counter: u64,
}

impl Label {
    /// The bytes before the inner frame.
    fn emit(self, vni: Vni) -> [u8; FRONT] {
        let mut front = [0; FRONT];
        front[..8].copy_from_slice(&crate::header::emit_sealed(vni));
        front[8..12].copy_from_slice(&self.epoch.to_be_bytes());
        front[12..20].copy_from_slice(&self.session.to_be_bytes());
        front[20..].copy_from_slice(&self.counter.to_be_bytes());
        front
    }

    fn parse(datagram: &[u8]) -> Result<(Self, &[u8; FRONT]), DropReason> {
        let front = datagram.first_chunk::<FRONT>().filter(|_| datagram.len() >= FRONT + BACK).ok_or(DropReason::Short)?;
        let word = |at: usize| u64::from(u32::from_be_bytes([front[at], front[at + 1], front[at + 2], front[at + 3]]));
        let epoch = u32::from_be_bytes([front[8], front[9], front[10], front[11]]);
        Ok((Self { epoch, session: word(12) << 32 | word(16), counter: word(20) << 32 | word(24) }, front))
    }
}
