//! A port at work: its configuration, what forwarding wants of it at hand, and its counters.

use packet::{ETHERNET_LEN, Frame, Instant, PortId};

use crate::{
    drop::DropReason,
    egress::Fit,
    fdb::PortSlot,
    guard::Checks,
    hint::unlikely,
    outbox::{Outbox, Sendable},
    port::{PortConfig, PortCounters},
    rate::Bucket,
    vlan::{Membership, TagEdit},
};

#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) id: PortId,
    /// Slot of its bridge, which stays as long as it has ports.
    pub(crate) bridge: u32,
    pub(crate) up: bool,
    pub(crate) learns: bool,
    pub(crate) separation: Separation,
    /// Looks at tags.
    vlan_aware: bool,
    fit: Fit,
    /// Longest frame that may leave unseen: none where connections are balanced.
    unseen: usize,
    pub(crate) counters: PortCounters,
    pub(crate) guard: Option<Checks>,
    pub(crate) storm: Option<Bucket>,
    pub(crate) guard_reported: Option<Instant>,
    pub(crate) storm_reported: Option<Instant>,
    config: PortConfig,
}

/// Who must not hear a port: the horizon group and one in the low bits (zero: in no group), [`ISOLATED`],
/// and [`ANYCAST`]. In one word, since most ports are zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Separation(u64);

const ISOLATED: u64 = 1 << 63;
/// A gateway, and ports behind which others are ([`PortConfig::foreign`]).
const ANYCAST: u64 = 1 << 62;
const FLAGS: u64 = ISOLATED | ANYCAST;

impl Separation {
    /// Of frames from a gateway.
    pub(crate) const GATEWAY: Self = Self(ANYCAST);

    fn of(config: &PortConfig) -> Self {
        let group = config.horizon.map_or(0, |group| u64::from(group) + 1);
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        Self(group | flag(config.isolated, ISOLATED) | flag(config.foreign, ANYCAST))
    }

    /// Isolated ports talk only to ports that are not; ports of one horizon group never to one another;
    /// gateways never through tunnels.
    #[inline]
    pub(crate) fn parts(self, other: Self) -> bool {
        self.0 != 0 && other.0 != 0 && (self.0 & other.0 & FLAGS != 0 || (self.0 & !FLAGS != 0 && (self.0 ^ other.0) & !FLAGS == 0))
    }
}

fn storm_bucket(config: &PortConfig, now: Instant) -> Option<Bucket> {
    config.storm.map(|limit| Bucket::new(limit.frames_per_second, limit.burst, now))
}

impl Attachment {
    pub(crate) fn new(id: PortId, bridge: u32, config: PortConfig, now: Instant) -> Self {
        Self {
            id,
            bridge,
            up: config.up,
            learns: config.learning,
            separation: Separation::of(&config),
            vlan_aware: config.vlan.looks_at_tags(),
            fit: Fit::new(config.mtu, config.capabilities),
            unseen: config.mtu as usize + ETHERNET_LEN,
            counters: PortCounters::default(),
            guard: config.guard.as_ref().map(Checks::new),
            storm: storm_bucket(&config, now),
            guard_reported: None,
            storm_reported: None,
            config,
        }
    }

    pub(crate) fn config(&self) -> &PortConfig {
        &self.config
    }

    /// Becomes what `config` says, and keeps what it counted; a storm bucket whose limit stays keeps
    /// its level.
    pub(crate) fn configure(&mut self, config: PortConfig, now: Instant) {
        let storm = if config.storm == self.config.storm { self.storm } else { storm_bucket(&config, now) };
        let is_balanced = self.is_balanced();
        *self = Self {
            counters: std::mem::take(&mut self.counters),
            storm,
            guard_reported: self.guard_reported,
            storm_reported: self.storm_reported,
            ..Self::new(self.id, self.bridge, config, now)
        };
        self.set_balanced(is_balanced);
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "made from a slot")]
    pub(crate) fn slot(&self) -> PortSlot {
        self.id.index() as u32
    }

    /// The VLAN of a frame that came in.
    #[inline]
    pub(crate) fn admit_vlan(&self, frame: &mut Frame) -> Result<Membership, DropReason> {
        if !unlikely(self.vlan_aware) {
            return Ok(Membership::NONE);
        }
        let membership = self.config.vlan.admit(frame.bytes())?;
        self.config.vlan.uncover(frame).map(|()| membership)
    }

    /// What happens to the tag of a frame that leaves; `None` when the port is no member.
    #[inline]
    pub(crate) fn egress_vlan(&self, membership: Membership) -> Option<TagEdit> {
        if unlikely(self.vlan_aware || membership.vlan() != 0) {
            return self.config.vlan.egress(membership);
        }
        Some(TagEdit::Keep)
    }

    #[inline]
    pub(crate) fn fit(&self) -> Fit {
        self.fit
    }

    /// Whether the frame may leave as it is.
    #[inline]
    pub(crate) fn fits(&self, frame: &Frame, edit: TagEdit) -> bool {
        edit == TagEdit::Keep && frame.len() <= self.unseen && frame.offload.is_none()
    }

    /// Whether what leaves may be of a balanced connection.
    pub(crate) fn is_balanced(&self) -> bool {
        self.unseen == 0
    }

    pub(crate) fn set_balanced(&mut self, is_balanced: bool) {
        self.unseen = if is_balanced { 0 } else { self.config.mtu as usize + ETHERNET_LEN };
    }

    /// Queues a fitted frame, if the outbox has room.
    #[inline]
    pub(crate) fn queue(&mut self, sendable: Sendable, out: &mut Outbox) -> Result<(), DropReason> {
        let length = sendable.frame().len() as u64;
        out.push(self.id, sendable)?;
        self.counters.tx_frames += 1;
        self.counters.tx_bytes += length;
        Ok(())
    }
}
