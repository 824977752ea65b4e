//! What there is to see, and what would be.

use packet::{Frame, Instant, NetworkId};

use super::{Nat, NatDrops, Refused, Rehearsed, Translated};
use crate::{
    conntrack::ConnectionView,
    rule::ForwardView,
    traffic::TrafficView,
};

impl Nat {
    /// Connections that live, sorted.
    #[must_use]
    pub fn connections(&self, now: Instant) -> Vec<ConnectionView> {
        let live = self.conntrack.iter().filter(|connection| connection.expires > now);
        let mut all: Vec<_> = live.map(|connection| ConnectionView::of(connection, now)).collect();
        all.sort_by_key(|view| (view.protocol, view.inside, view.outside, view.network));
        all
    }

    /// How many connections and mappings there are.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        (self.conntrack.len(), self.mappings.len())
    }

    /// Port forwards with their counters, those of connections that live included.
    #[must_use]
    pub fn forwards(&self) -> Vec<ForwardView> {
        let mut views = self.forwards.views().to_vec();
        for connection in self.conntrack.iter() {
            if let Some(forward) = connection.forward
                && let Ok(at) = views.binary_search_by_key(&forward, |view| view.id)
            {
                views[at].packets += connection.packets.iter().sum::<u64>();
                views[at].bytes += connection.bytes.iter().sum::<u64>();
            }
        }
        views
    }

    /// What each network did by masquerade or SNAT, connections that live included.
    #[must_use]
    pub fn traffic(&self) -> Vec<TrafficView> {
        let mut traffic = self.traffic.clone();
        self.conntrack.iter().filter(|connection| connection.forward.is_none()).for_each(|connection| traffic.add(connection));
        traffic.into_views()
    }

    /// What was not translated, by reason.
    #[must_use]
    pub const fn drops(&self) -> &NatDrops {
        &self.drops
    }

    /// What would become of a packet of `network`, or of one from outside without a network: the same path,
    /// after which all is as it was. (A full table gives way, as it would.)
    ///
    /// # Errors
    /// When it would not go on.
    pub fn rehearse(&mut self, network: Option<NetworkId>, frame: Frame, now: Instant, out: &mut Vec<Translated>) -> Result<Rehearsed, Refused> {
        let (drops, forwards, traffic, unsolicited) = (self.drops, self.forwards.clone(), self.traffic.clone(), self.unsolicited.len());
        self.journal = Some(Vec::new());
        let watch = std::mem::take(&mut self.watch);
        let result = match network {
            Some(network) => self.outbound(network, frame, now, out),
            None => self.inbound(frame, now, out),
        };
        let made = if self.made_connection() { Rehearsed::NewConnection } else { Rehearsed::KnownConnection };
        self.undo();
        for (at, before) in self.journal.take().unwrap_or_default().into_iter().rev() {
            if let Some(connection) = self.conntrack.get_mut(at) {
                *connection = before;
            }
        }
        (self.drops, self.forwards, self.traffic, self.watch) = (drops, forwards, traffic, watch);
        self.unsolicited.truncate(unsolicited);
        result.map(|()| made)
    }

    pub(super) fn note(&mut self, at: u32) {
        if let Some(journal) = &mut self.journal
            && let Some(connection) = self.conntrack.get(at)
        {
            journal.push((at, *connection));
        }
    }
}
