//! The one place that strings the stages of a frame's way together:
//!
//! ```text
//! ingress -> steer: admit (port up, source, guard, VLAN) -> learn -> decide
//!         -> follow: to the gateway, or fit -> outbox
//! ```
//!
//! Every frame that comes in ends in exactly one way: queued to at least one port, or counted once
//! as dropped under its ingress port. What else is lost (the copies of a flood, the rest of a
//! super-frame) is counted under the port it should have left by.

mod announce;
mod apply;
mod balance;
mod explain;
#[cfg(test)]
mod tests;
mod watch;

pub use explain::Told;
use std::cell::Cell;

use packet::{Frame, Instant, NetworkId, Parsed, Pool, PortId, VlanId};

use crate::{
    attachment::{Attachment, Separation},
    bridge::{Bridge, Forwarding},
    command::{CaptureConfig, Event, TimeoutReason},
    drop::DropReason,
    fdb::{Learned, PortSlot},
    gateway::{Heard, answer},
    header::{Header, mac_of, station_of},
    hint::{rarely, unlikely},
    limits::EVENT_INTERVAL,
    outbox::{Outbox, Sendable},
    port::PortCounters,
    residents::Claim,
    slots::Slots,
    vlan::{Membership, TagEdit},
};

/// Bounds and seed of a switch.
#[derive(Clone, Copy, Debug)]
pub struct SwitchConfig {
    /// Seeds the keyed hashes and every random choice.
    pub seed: u64,
    /// Ports at most.
    pub max_ports: usize,
    /// Bridges at most.
    pub max_bridges: usize,
}

impl Default for SwitchConfig {
    fn default() -> Self {
        Self { seed: 0, max_ports: 65_536, max_bridges: 16_384 }
    }
}

/// The data plane.
#[derive(Debug)]
pub struct Switch {
    config: SwitchConfig,
    pool: Pool,
    ports: Slots<Attachment>,
    bridges: Slots<Bridge>,
    captures: Slots<CaptureConfig>,
    /// What ports that were removed had counted, and what came too late for a port to count.
    retired: PortCounters,
    /// Targets of the flood in hand; kept so that flooding allocates nothing.
    targets: Vec<PortSlot>,
    secrets: u64,
    /// The next deadline, until something may have changed it: the loop asks each turn, and there may be
    /// thousands of bridges.
    deadline: Cell<Option<Deadline>>,
}

/// The next deadline, if there is one.
type Deadline = Option<(Instant, TimeoutReason)>;

/// Where a frame came from, as far as later stages care.
#[derive(Clone, Copy, Debug)]
struct Origin {
    port: PortSlot,
    bridge: u32,
    membership: Membership,
    separation: Separation,
}

/// Where a frame goes, as far as its port and its bridge know.
#[derive(Clone, Copy, Debug)]
struct Course {
    from: Origin,
    header: Header,
    next: Next,
}

#[derive(Clone, Copy, Debug)]
enum Next {
    Go(Forwarding),
    /// The gateway may want it.
    Hear,
    /// The gateway of that network hands it out as it is.
    HandOut(NetworkId),
}

/// Where frames from a gateway come from: no port.
const GATEWAY: PortSlot = PortSlot::MAX >> 1;

impl Origin {
    /// Of frames from the gateway of a network.
    #[expect(clippy::cast_possible_truncation, reason = "made from a slot")]
    const fn gateway(network: NetworkId) -> Self {
        Self { port: GATEWAY, bridge: network.index() as u32, membership: Membership::NONE, separation: Separation::GATEWAY }
    }
}

impl Switch {
    /// An empty switch whose frames come from `pool`.
    #[must_use]
    pub fn new(config: SwitchConfig, pool: Pool) -> Self {
        Self {
            config,
            pool,
            ports: Slots::new(),
            bridges: Slots::new(),
            captures: Slots::new(),
            retired: PortCounters::default(),
            targets: Vec::new(),
            secrets: config.seed,
            deadline: Cell::new(None),
        }
    }

    /// A frame came in on a port.
    pub fn ingress(&mut self, port: PortId, mut frame: Frame, now: Instant, out: &mut Outbox) {
        if !self.captures.is_empty() {
            return self.ingress_watched(port, frame, now, out);
        }
        // Its bytes are looked at first and the frame is moved last, once.
        let result = match self.steer(port, &mut frame, now, out) {
            Ok(course) => self.follow(course, frame, now, out),
            Err(reason) => Err(reason),
        };
        if let Err(reason) = result {
            self.ingress_error(port, reason);
        }
    }

    /// Where a frame goes.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "on every frame's way; counted")]
    fn steer(&mut self, port: PortId, frame: &mut Frame, now: Instant, out: &mut Outbox) -> Result<Course, DropReason> {
        let Some(state) = self.ports.get_mut(port.index(), port.generation()) else { return Err(rarely(DropReason::PortDown)) };
        let header = admit(state, frame, now, out)?;
        let membership = state.admit_vlan(frame)?;
        let from = Origin { port: state.slot(), bridge: state.bridge, membership, separation: state.separation };
        let learns = state.learns;
        let Some(bridge) = self.bridges.at_mut(from.bridge) else { return Err(rarely(DropReason::PortDown)) };
        let learned = if unlikely(!learns) { Learned::Known } else { bridge.learn(membership.vlan(), header, from.port, now) };
        // A frame of the reserved group is learned from, though not forwarded (as the kernel's bridge).
        let is_heard = bridge.may_be_for_gateway(header) && membership.vlan() == 0;
        let next = if !is_heard {
            Next::Go(bridge.decide(membership.vlan(), header, from.port, now))
        } else if !from.separation.parts(Separation::GATEWAY) && bridge.is_plainly_outside(header, frame.bytes()) {
            Next::HandOut(bridge.id)
        } else {
            Next::Hear
        };
        if learned != Learned::Known {
            self.report(learned, from, header, now, out);
        }
        Ok(Course { from, header, next })
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "on every frame's way; counted")]
    fn follow(&mut self, course: Course, frame: Frame, now: Instant, out: &mut Outbox) -> Result<(), DropReason> {
        match course.next {
            Next::Go(decision) => self.go(decision, course.from, frame, now, out),
            Next::Hear => self.hear(course.from, course.header, frame, now, out),
            Next::HandOut(network) => out.push_outside(network, frame),
        }
    }

    /// A frame that the gateway may want: answered, handed out, or the bridge's after all.
    #[inline(never)]
    fn hear(&mut self, from: Origin, header: Header, frame: Frame, now: Instant, out: &mut Outbox) -> Result<(), DropReason> {
        // What comes through a tunnel, or from a LAN, met or meets the gateway on its own side.
        if from.separation.parts(Separation::GATEWAY) {
            let Some(bridge) = self.bridges.at(from.bridge).filter(|_| header.is_to_group()) else { return Err(DropReason::Isolated) };
            let decision = bridge.decide(0, header, from.port, now);
            return self.go_on(decision, from, frame, now, out);
        }
        let bridge = self.bridges.at(from.bridge).ok_or(DropReason::GatewayNothing)?;
        if bridge.is_to_gateway(header) && bridge.services.balancer.is_some() {
            return self.hear_balanced(from, header, frame, now, out);
        }
        self.hear_out(from, header, frame, now, out)
    }

    /// The gateway listens, and says what it has to say.
    fn hear_out(&mut self, from: Origin, header: Header, frame: Frame, now: Instant, out: &mut Outbox) -> Result<(), DropReason> {
        let bridge = self.bridges.at_mut(from.bridge).ok_or(DropReason::GatewayNothing)?;
        let decision = bridge.decide(0, header, from.port, now);
        let (network, gateway) = (bridge.id, bridge.config.gateway.as_ref().ok_or(DropReason::GatewayNothing)?);
        if bridge.services.advertiser.is_some() {
            self.deadline.set(None);
        }
        match gateway.hear(&mut bridge.services, header, frame, now, &self.pool)? {
            Heard::NotMine(frame) => self.go_on(decision, from, frame, now, out),
            Heard::Outside(frame) => out.push_outside(network, frame),
            Heard::Answer(frame) => {
                self.inject(network, frame, now, out);
                Ok(())
            }
            Heard::AnswerBeside(frame, None) => self.go_on(decision, from, frame, now, out),
            Heard::AnswerBeside(frame, Some(answer)) => {
                let result = self.go_on(decision, from, frame, now, out);
                self.inject(network, answer, now, out);
                // It was heard, though nobody else is there.
                if result == Err(DropReason::NoOtherPort) { Ok(()) } else { result }
            }
        }
    }

    /// A frame from the gateway, or from an uplink behind it, goes into a network.
    pub fn inject(&mut self, network: NetworkId, frame: Frame, now: Instant, out: &mut Outbox) {
        let (Some(header), Some(bridge)) = (Header::new(frame.bytes()), self.bridges.get(network.index(), network.generation())) else { return };
        let from = Origin::gateway(network);
        if bridge.services.balancer.is_some() && bridge.is_to_gateway(header) {
            return self.enter_balanced(from, frame, now, out);
        }
        let decision = bridge.decide(0, header, GATEWAY, now);
        if let Err(reason) = self.go(decision, from, frame, now, out) {
            self.inject_error(decision, reason);
        }
    }

    /// What cannot be delivered is counted under the port it should have left by; without one it is
    /// lost as on a wire without a listener.
    #[cold]
    fn inject_error(&mut self, decision: Forwarding, reason: DropReason) {
        if let Forwarding::Unicast(target) = decision
            && let Some(state) = self.ports.at_mut(target)
        {
            state.counters.drops.count(reason);
        }
    }

    /// [`go`](Self::go) for those whose way is longer anyhow: inlined in one place only.
    #[inline(never)]
    fn go_on(&mut self, decision: Forwarding, from: Origin, frame: Frame, now: Instant, out: &mut Outbox) -> Result<(), DropReason> {
        self.go(decision, from, frame, now, out)
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "on every frame's way; counted")]
    fn go(&mut self, decision: Forwarding, from: Origin, frame: Frame, now: Instant, out: &mut Outbox) -> Result<(), DropReason> {
        match decision {
            Forwarding::Drop(reason) => Err(reason),
            Forwarding::Unicast(target) => self.emit(from, target, frame, now, out),
            Forwarding::Flood => self.flood(from, frame, now, out),
        }
    }

    /// To every port of the bridge that is up, not separated and a member of the VLAN. One buffer
    /// is shared by all, and the last has it to itself if the others are done with it.
    #[inline(never)]
    fn flood(&mut self, from: Origin, frame: Frame, now: Instant, out: &mut Outbox) -> Result<(), DropReason> {
        self.take_storm_token(from.port, now, out)?;
        let mut targets = std::mem::take(&mut self.targets);
        targets.clear();
        targets.extend(self.flood_set(from));
        let mut queued = false;
        if let Some((&last, others)) = targets.split_last() {
            for &target in others {
                queued |= self.emit_copy(from, target, frame.share(), now, out);
            }
            queued |= self.emit_copy(from, last, frame, now, out);
        }
        self.targets = targets;
        if queued { Ok(()) } else { Err(DropReason::NoOtherPort) }
    }

    fn flood_set(&self, from: Origin) -> impl Iterator<Item = PortSlot> {
        let ports = self.bridges.at(from.bridge).map_or(&[][..], |bridge| &bridge.ports);
        ports.iter().filter_map(move |&port| {
            let target = self.ports.get(port.index(), port.generation())?;
            let hears = target.slot() != from.port && target.up && !from.separation.parts(target.separation) && target.egress_vlan(from.membership).is_some();
            hears.then_some(target.slot())
        })
    }

    /// True when queued; a copy that was not is counted under its port.
    #[inline(never)]
    fn emit_copy(&mut self, from: Origin, target: PortSlot, frame: Frame, now: Instant, out: &mut Outbox) -> bool {
        let result = self.emit(from, target, frame, now, out);
        if let (Err(reason), Some(state)) = (result, self.ports.at_mut(target)) {
            state.counters.drops.count(reason);
        }
        result.is_ok()
    }

    /// Fits a frame to a port and queues it. An error means that nothing of it was queued.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "on every frame's way; counted")]
    fn emit(&mut self, from: Origin, target: PortSlot, frame: Frame, now: Instant, out: &mut Outbox) -> Result<(), DropReason> {
        let Some(state) = self.ports.at_mut(target).filter(|state| state.up) else { return Err(rarely(DropReason::EgressDown)) };
        if unlikely(from.separation.parts(state.separation)) {
            return Err(rarely(DropReason::Isolated));
        }
        let Some(edit) = state.egress_vlan(from.membership) else { return Err(rarely(DropReason::VlanNotAllowed)) };
        if unlikely(!self.captures.is_empty()) || unlikely(!state.fits(&frame, edit)) {
            return self.emit_fitted(from, target, frame, edit, now, out);
        }
        state.queue(Sendable::new(frame), out)
    }

    /// A frame that does not just leave as it is: it is watched, may be of a balanced connection, or is fitted.
    #[inline(never)]
    fn emit_fitted(&mut self, from: Origin, target: PortSlot, frame: Frame, edit: TagEdit, now: Instant, out: &mut Outbox) -> Result<(), DropReason> {
        let Some(state) = self.ports.at_mut(target) else { return Err(DropReason::EgressDown) };
        if state.config().foreign && state.fit().check_length(&frame) == Err(DropReason::TooBig) {
            self.tell_too_big(from, target, &frame, now, out);
        }
        if !self.captures.is_empty() {
            return self.emit_watched(from, target, frame, edit, now, out);
        }
        let Some(frame) = self.back_from_vip(from, target, frame, now)? else { return Ok(()) };
        let Some(state) = self.ports.at_mut(target) else { return Err(DropReason::EgressDown) };
        fit(state, from, frame, edit, &self.pool, |state, sendable| state.queue(sendable, out).is_ok())
    }

    /// Tells the sender of a packet for another node that the path there carries less than its link (RFC 1191 section 4,
    /// RFC 4443 section 3.2). Between neighbours no router stands that could: the gateway does, or, in a network without
    /// one, the destination seems to.
    #[cold]
    fn tell_too_big(&mut self, from: Origin, target: PortSlot, frame: &Frame, now: Instant, out: &mut Outbox) {
        let Some(mtu) = self.ports.at(target).map(|port| port.config().mtu) else { return };
        let Some(bridge) = self.bridges.at_mut(from.bridge) else { return };
        let (network, bytes, parsed) = (bridge.id, frame.bytes(), Parsed::new(frame.bytes()));
        let Some((parsed, ip)) = parsed.and_then(|parsed| Some((parsed, parsed.ip?))).filter(|(parsed, _)| parsed.tags == 0 && !parsed.ethernet.destination.is_group()) else { return };
        let speaker = bridge.config.gateway.as_ref().and_then(|gateway| gateway.speaker_to(ip.source));
        let (mac, own) = speaker.unwrap_or((parsed.ethernet.destination, ip.destination));
        let what = if ip.source.is_ipv4() { (3, 4, mtu) } else { (2, 0, mtu) };
        if from.membership.vlan() == 0
            && bridge.services.errors.may_tell(now)
            && let Ok(error) = answer::error(&ip, bytes, mac, own, what, &self.pool)
        {
            self.inject(network, error, now, out);
        }
    }

    /// What a frame that came from another node by the tunnel `port` claims to be, though only this node may say it.
    #[must_use]
    pub fn claim_of(&self, port: PortId, parsed: &Parsed, bytes: &[u8]) -> Option<Claim> {
        let state = self.ports.get(port.index(), port.generation())?;
        self.bridges.at(state.bridge)?.claim_of(parsed, bytes)
    }

    #[cold]
    fn take_storm_token(&mut self, port: PortSlot, now: Instant, out: &mut Outbox) -> Result<(), DropReason> {
        // The gateway has no limit of its own: what it floods, somebody asked for.
        let Some(state) = self.ports.at_mut(port) else { return Ok(()) };
        if state.storm.as_mut().is_none_or(|bucket| bucket.take(now)) {
            return Ok(());
        }
        if due(&mut state.storm_reported, now) {
            out.tell(Event::Storm { port: state.id });
        }
        Err(DropReason::Storm)
    }

    /// Tells control what learning did.
    #[cold]
    fn report(&mut self, learned: Learned, from: Origin, header: Header, now: Instant, out: &mut Outbox) {
        self.deadline.set(None);
        let Some(port) = self.ports.at(from.port) else { return };
        let (network, port) = (port.config().network, port.id);
        let Some(mac) = station_of(header.source) else { return };
        match learned {
            Learned::Known => {}
            Learned::New => out.tell(Event::Learned { network, port, mac, vlan: VlanId::new(from.membership.vlan()) }),
            Learned::Moved(before) => {
                let before = self.ports.at(before).map_or(port, |before| before.id);
                out.tell(Event::Moved { network, from: before, to: port, mac });
            }
            Learned::Evicted | Learned::Full => {
                if self.bridges.at_mut(from.bridge).is_some_and(|bridge| due(&mut bridge.full_reported, now)) {
                    out.tell(Event::FdbFull { network, port });
                }
            }
        }
    }

    /// A frame was dropped under its ingress port: by the stages above, or because the device
    /// reported one that cannot be used.
    #[cold]
    pub fn ingress_error(&mut self, port: PortId, reason: DropReason) {
        self.counters_of(port).drops.count(reason);
    }

    /// Frames were dropped under the port they should have left by, by the shell.
    #[cold]
    pub fn egress_error(&mut self, port: PortId, reason: DropReason, count: u64) {
        self.counters_of(port).drops.count_many(reason, count);
    }

    /// Those of the switch for a port that is gone.
    fn counters_of(&mut self, port: PortId) -> &mut PortCounters {
        match self.ports.get_mut(port.index(), port.generation()) {
            Some(state) => &mut state.counters,
            None => &mut self.retired,
        }
    }

    /// Deadlines up to `now` are due.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Outbox) {
        self.deadline.set(None);
        let mut advertisements = Vec::new();
        for (index, generation, bridge) in self.bridges.iter_mut() {
            let network = NetworkId::new(index, generation);
            bridge.fdb.sweep(now, |key| {
                if let Some(mac) = station_of(key) {
                    out.tell(Event::Aged { network, mac });
                }
            });
            if let Some(balancer) = bridge.services.balancer.as_mut().filter(|balancer| balancer.poll_timeout().is_some_and(|at| at <= now)) {
                balancer.handle_timeout(now);
            }
            let due = bridge.services.advertiser.as_mut().and_then(|advertiser| advertiser.handle_timeout(now, &self.pool));
            advertisements.extend(due.map(|frame| (network, frame)));
        }
        for (network, frame) in advertisements {
            self.inject(network, frame, now, out);
        }
    }

    /// The next deadline, with its reason.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, TimeoutReason)> {
        let deadline = self.deadline.get().unwrap_or_else(|| self.find_deadline());
        self.deadline.set(Some(deadline));
        deadline
    }

    fn find_deadline(&self) -> Deadline {
        let deadlines = self.bridges.iter().flat_map(|(index, generation, bridge)| {
            let network = NetworkId::new(index, generation);
            let ageing = bridge.fdb.poll_timeout().map(|at| (at, TimeoutReason::FdbAgeing(network)));
            let advertising = bridge.services.advertiser.as_ref().map(|advertiser| (advertiser.poll_timeout(), TimeoutReason::Advertise(network)));
            let balanced = bridge.services.balancer.as_ref().and_then(|balancer| Some((balancer.poll_timeout()?, TimeoutReason::Balancer(network))));
            ageing.into_iter().chain(advertising).chain(balanced)
        });
        deadlines.min_by_key(|(at, _)| *at)
    }

    /// The buffers that frames come from.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }
}

/// The checks of the ingress port.
#[inline(always)]
#[expect(clippy::inline_always, reason = "on every frame's way; counted")]
fn admit(state: &mut Attachment, frame: &Frame, now: Instant, out: &mut Outbox) -> Result<Header, DropReason> {
    state.counters.rx_frames += 1;
    state.counters.rx_bytes += frame.len() as u64;
    if !state.up {
        return Err(rarely(DropReason::PortDown));
    }
    let Some(header) = Header::new(frame.bytes()) else { return Err(rarely(DropReason::Runt)) };
    if !header.is_from_station() {
        return Err(rarely(DropReason::BadSource));
    }
    if let Some(guard) = &state.guard
        && let Err(reason) = guard.check(header, frame.bytes())
    {
        report_guarded(state, reason, header, now, out);
        return Err(reason);
    }
    Ok(header)
}

#[cold]
fn report_guarded(state: &mut Attachment, reason: DropReason, header: Header, now: Instant, out: &mut Outbox) {
    if due(&mut state.guard_reported, now) {
        out.tell(Event::Guarded { port: state.id, reason, source: mac_of(header.source) });
    }
}

/// Fits a frame to a port and gives what comes out to `queue`. An error means that nothing of it was
/// queued; what of a super-frame was lost beside parts that were queued is counted under the port.
#[inline(never)]
fn fit(
    state: &mut Attachment,
    from: Origin,
    frame: Frame,
    edit: TagEdit,
    pool: &Pool,
    mut queue: impl FnMut(&mut Attachment, Sendable) -> bool,
) -> Result<(), DropReason> {
    let (mut queued, mut refused) = (0_u64, 0_u64);
    let result = state.fit().fit(frame, from.membership, edit, pool, |sendable| {
        if queue(state, sendable) { queued += 1 } else { refused += 1 }
    });
    if queued == 0 {
        return result.and(Err(DropReason::EgressFull));
    }
    state.counters.drops.count_many(DropReason::EgressFull, refused);
    if let Err(reason) = result {
        state.counters.drops.count(reason);
    }
    Ok(())
}

/// True at most once per interval; remembers when.
fn due(last: &mut Option<Instant>, now: Instant) -> bool {
    let due = last.is_none_or(|at| now.since(at) >= EVENT_INTERVAL);
    if due {
        *last = Some(now);
    }
    due
}
