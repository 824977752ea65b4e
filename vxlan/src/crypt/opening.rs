//! The receiver's side.

use std::{collections::BTreeMap, net::IpAddr, ops::Range};

use packet::{Instant, Vni};

use super::{
    BACK, FRONT, Keys, LANE_SHIFT, Label, SESSIONS_MOST, Secret,
    key::{Key, Source},
    window::Window,
};
use crate::{drop::DropReason, flow::LANES};

/// Epoch and session of a sender, and the address of ours it sends to.
type Id = (u32, u64, IpAddr);

/// The epochs that are accepted, and the sessions heard in them.
#[derive(Debug)]
pub(crate) struct Opening {
    vni: Vni,
    epochs: BTreeMap<u32, (Secret, Source)>,
    sessions: BTreeMap<Id, Session>,
}

#[derive(Debug)]
struct Session {
    key: Key,
    /// By lane.
    windows: Box<[Window; LANES as usize]>,
    heard: Instant,
}

impl Opening {
    pub(super) fn new(vni: Vni, keys: &Keys, before: Option<Self>) -> Self {
        let epochs: BTreeMap<_, _> = keys.epochs.iter().map(|(epoch, secret)| (*epoch, (secret.clone(), Source::new(secret)))).collect();
        let (secrets, mut sessions) = before.map(|before| (before.epochs, before.sessions)).unwrap_or_default();
        let is_same = |epoch: u32| secrets.get(&epoch).zip(epochs.get(&epoch)).is_some_and(|(before, after)| before.0 == after.0);
        sessions.retain(|(epoch, _, _), _| is_same(*epoch));
        Self { vni, epochs, sessions }
    }

    pub(super) fn epochs(&self) -> impl Iterator<Item = u32> + '_ {
        self.epochs.keys().copied()
    }

    pub(super) fn sessions_len(&self) -> usize {
        self.sessions.len()
    }

    /// Opens a datagram that was sent to `to`; where in it the inner frame is.
    ///
    /// # Errors
    /// `short`, `no_key`, `replayed`, `bad_tag`. Nothing is remembered then.
    pub(crate) fn open(&mut self, to: IpAddr, datagram: &mut [u8], now: Instant) -> Result<Range<usize>, DropReason> {
        let (label, front) = Label::parse(datagram)?;
        let (front, inner) = (*front, FRONT..datagram.len() - BACK);
        // A lane that nobody uses has no window.
        let (lane, count) = ((label.counter >> LANE_SHIFT) as usize, label.counter & ((1 << LANE_SHIFT) - 1));
        let id = (label.epoch, label.session, to);
        if let Some(session) = self.sessions.get_mut(&id) {
            let window = session.windows.get_mut(lane).ok_or(DropReason::BadTag)?;
            if !window.is_new(count) {
                return Err(DropReason::Replayed);
            }
            if !session.key.open(label.counter, &front, datagram) {
                return Err(DropReason::BadTag);
            }
            window.mark(count);
            session.heard = now;
            return Ok(inner);
        }
        let (_, source) = self.epochs.get(&label.epoch).ok_or(DropReason::NoKey)?;
        let key = source.key(self.vni, label.epoch, label.session, to).ok_or(DropReason::NoKey)?;
        let mut windows = Box::new(std::array::from_fn(|_| Window::default()));
        let window: &mut Window = windows.get_mut(lane).ok_or(DropReason::BadTag)?;
        if !window.is_new(count) {
            return Err(DropReason::Replayed);
        }
        if !key.open(label.counter, &front, datagram) {
            return Err(DropReason::BadTag);
        }
        window.mark(count);
        self.remember(id, Session { key, windows, heard: now });
        Ok(inner)
    }

    /// A session of which a datagram was opened, in place of the idlest when there are too many.
    fn remember(&mut self, id: Id, session: Session) {
        if self.sessions.len() >= SESSIONS_MOST
            && let Some(idlest) = self.sessions.iter().min_by_key(|(_, session)| session.heard).map(|(id, _)| *id)
        {
            self.sessions.remove(&idlest);
        }
        self.sessions.insert(id, session);
    }
}
