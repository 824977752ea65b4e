//! The sender's side.

use std::{collections::BTreeMap, net::IpAddr};

use packet::Vni;

use super::{
    COUNTER_MOST, Keys, LANE_SHIFT, Label,
    key::{Key, Source},
};
use crate::{drop::DropReason, flow::LANES};

/// One session: a key for each node that was sent to, and a counter for each lane.
#[derive(Debug)]
pub(crate) struct Sealing {
    vni: Vni,
    epoch: u32,
    session: u64,
    source: Source,
    to: BTreeMap<IpAddr, (Key, [u64; LANES as usize])>,
}

impl Sealing {
    /// `None` when the current epoch is not among the keys.
    pub(super) fn new(vni: Vni, keys: &Keys) -> Option<Self> {
        let (epoch, secret) = keys.epochs.iter().find(|(epoch, _)| *epoch == keys.current)?;
        Some(Self { vni, epoch: *epoch, session: keys.session, source: Source::new(secret), to: BTreeMap::new() })
    }

    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Seals a datagram to `to` in a lane, whose inner frame lies between room for what is before and behind it.
    ///
    /// # Errors
    /// `key_spent`.
    pub(crate) fn seal(&mut self, to: IpAddr, lane: usize, datagram: &mut [u8]) -> Result<(), DropReason> {
        if !self.to.contains_key(&to) {
            let key = self.source.key(self.vni, self.epoch, self.session, to).ok_or(DropReason::NoKey)?;
            self.to.insert(to, (key, [0; LANES as usize]));
        }
        let (key, used) = self.to.get_mut(&to).ok_or(DropReason::NoKey)?;
        let used = used.get_mut(lane).filter(|used| **used < COUNTER_MOST).ok_or(DropReason::KeySpent)?;
        *used += 1;
        let counter = (lane as u64) << LANE_SHIFT | *used;
        let front = Label { epoch: self.epoch, session: self.session, counter }.emit(self.vni);
        if key.seal(counter, &front, datagram) { Ok(()) } else { Err(DropReason::TooBig) }
    }

    #[cfg(test)]
    pub(super) fn spend(&mut self) {
        self.to.values_mut().for_each(|(_, used)| used.fill(COUNTER_MOST - 1));
    }
}
