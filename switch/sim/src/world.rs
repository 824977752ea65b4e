//! The event queue: whatever happens next happens now.

use std::collections::BTreeMap;

use dataplane::{Command, CommandError, Outbox, PortConfig, PortView, Reply, Switch, SwitchConfig};
use packet::{Duration, Frame, Instant, Pool, PoolConfig, PortId, pcapng};

use crate::{
    check,
    host::{Host, pattern_hash},
    link::{LinkConfig, Wire},
    queue::Queue,
    random::Random,
};

/// A switch of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SwitchId(usize);

/// A host of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostId(usize);

/// Where a wire ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Port(SwitchId, PortId),
    Host(HostId),
}

enum Happening {
    Arrival(End, Frame),
    HostTimer(HostId),
    SwitchTimer(SwitchId),
}

/// See the module.
pub struct World {
    seed: u64,
    now: Instant,
    random: Random,
    pool: Pool,
    switches: Vec<Switch>,
    hosts: Vec<Host>,
    /// When each host's stack wants to work; timers of other times are stale.
    host_timers: Vec<Option<Instant>>,
    wires: BTreeMap<End, (End, Wire)>,
    queue: Queue<Happening>,
    outbox: Outbox,
    /// Frames that went through a switch.
    pub hops: u64,
    /// Whether every frame is checked; costs time in large worlds.
    pub checked: bool,
    capture: Option<Vec<u8>>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "World(seed {}, {} hops, at {:?})", self.seed, self.hops, self.now)
    }
}

impl World {
    /// An empty world.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let pool = Pool::new(PoolConfig { small: 200_000, large: 4096 });
        Self {
            seed,
            now: Instant::ZERO,
            random: Random::new(seed),
            pool,
            switches: Vec::new(),
            hosts: Vec::new(),
            host_timers: Vec::new(),
            wires: BTreeMap::new(),
            queue: Queue::new(),
            outbox: Outbox::new(1 << 20),
            hops: 0,
            checked: true,
            capture: None,
        }
    }

    /// Virtual time since the start.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The buffers of all frames in this world.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Records every frame that arrives anywhere; [`capture`](Self::capture) gives it.
    pub fn record(&mut self) {
        let mut bytes = Vec::new();
        pcapng::section_header(&mut bytes);
        pcapng::interface(&mut bytes, "world");
        self.capture = Some(bytes);
    }

    /// The pcapng recorded so far.
    #[must_use]
    pub fn capture(&self) -> &[u8] {
        self.capture.as_deref().unwrap_or_default()
    }

    /// Adds a switch without bridges.
    pub fn add_switch(&mut self) -> SwitchId {
        let config = SwitchConfig { seed: self.random.next_u64(), ..SwitchConfig::default() };
        self.switches.push(Switch::new(config, self.pool.clone()));
        SwitchId(self.switches.len() - 1)
    }

    /// Gives a switch a command.
    ///
    /// # Errors
    /// As the switch answers.
    pub fn apply(&mut self, switch: SwitchId, command: Command) -> Result<Reply, CommandError> {
        let mut out = std::mem::take(&mut self.outbox);
        let reply = self.switches[switch.0].apply(command, self.now, &mut out);
        self.outbox = out;
        self.carry_out(switch);
        reply
    }

    /// Adds a port.
    ///
    /// # Panics
    /// When the switch refuses: scenarios add ports that can be.
    pub fn add_port(&mut self, switch: SwitchId, config: PortConfig) -> PortId {
        match self.apply(switch, Command::AddPort(config)) {
            Ok(Reply::Port(port)) => port,
            other => panic!("seed {}: no port: {other:?}", self.seed),
        }
    }

    /// Adds a host wired to a port.
    pub fn add_host(&mut self, host: Host, switch: SwitchId, port: PortId, link: LinkConfig) -> HostId {
        self.hosts.push(host);
        self.host_timers.push(None);
        let id = HostId(self.hosts.len() - 1);
        self.wire(End::Host(id), End::Port(switch, port), link);
        id
    }

    /// Wires two ports together.
    pub fn connect(&mut self, one: (SwitchId, PortId), other: (SwitchId, PortId), link: LinkConfig) {
        self.wire(End::Port(one.0, one.1), End::Port(other.0, other.1), link);
    }

    fn wire(&mut self, one: End, other: End, link: LinkConfig) {
        self.wires.insert(one, (other, Wire::new(link)));
        self.wires.insert(other, (one, Wire::new(link)));
    }

    /// A host, to look at.
    #[must_use]
    pub fn host(&self, host: HostId) -> &Host {
        &self.hosts[host.0]
    }

    /// Lets a host do something, and its stack send what follows.
    pub fn with_host(&mut self, host: HostId, act: impl FnOnce(&mut Host)) {
        act(&mut self.hosts[host.0]);
        self.poll_host(host);
    }

    /// What a receiver of `bytes` bytes must have hashed.
    #[must_use]
    pub fn expected_hash(bytes: u64) -> u64 {
        pattern_hash(bytes)
    }

    /// A frame comes in on a port now.
    pub fn inject(&mut self, switch: SwitchId, port: PortId, frame: Frame) {
        self.hops += 1;
        let before = self.checked.then(|| self.view(switch, port)).flatten();
        let mut out = std::mem::take(&mut self.outbox);
        self.switches[switch.0].ingress(port, frame, self.now, &mut out);
        self.outbox = out;
        if let Some(before) = before {
            self.check(switch, port, &before);
        }
        self.carry_out(switch);
    }

    fn check(&mut self, switch: SwitchId, port: PortId, before: &PortView) {
        let context = format!("seed {} at {} ns", self.seed, self.now.as_nanos());
        let Ok(Reply::Ports(all)) = self.switches[switch.0].apply(Command::ShowPorts(None), self.now, &mut Outbox::new(0)) else { return };
        if let Some(after) = all.iter().find(|view| view.id == port) {
            check::frame_went_one_way(&context, port, before, after, &all, &self.outbox);
        }
    }

    /// A port as it is.
    pub fn view(&mut self, switch: SwitchId, port: PortId) -> Option<PortView> {
        let Ok(Reply::Ports(all)) = self.switches[switch.0].apply(Command::ShowPorts(None), self.now, &mut Outbox::new(0)) else { return None };
        all.into_iter().find(|view| view.id == port)
    }

    /// Runs until virtual time `end`.
    pub fn run_until(&mut self, end: Instant) {
        while self.queue.next_at().is_some_and(|at| at <= end) {
            self.step();
        }
        self.now = self.now.max(end);
    }

    /// Runs for a while.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// Runs until nothing is on its way or `check` holds, at most `limit` steps; true when it held.
    pub fn run_while(&mut self, limit: u64, mut check: impl FnMut(&Self) -> bool) -> bool {
        for _ in 0..limit {
            if check(self) {
                return true;
            }
            if !self.step() {
                break;
            }
        }
        check(self)
    }

    fn step(&mut self) -> bool {
        let Some((at, happening)) = self.queue.pop() else { return false };
        self.now = self.now.max(at);
        match happening {
            Happening::Arrival(End::Port(switch, port), frame) => {
                self.note(&frame);
                self.inject(switch, port, frame);
            }
            Happening::Arrival(End::Host(host), frame) => {
                self.note(&frame);
                self.hosts[host.0].deliver(frame.bytes().to_vec());
                self.poll_host(host);
            }
            Happening::HostTimer(host) if self.host_timers[host.0].is_some_and(|due| due <= self.now) => {
                self.host_timers[host.0] = None;
                self.poll_host(host);
            }
            // Put off since.
            Happening::HostTimer(_) => {}
            Happening::SwitchTimer(switch) => {
                let mut out = std::mem::take(&mut self.outbox);
                self.switches[switch.0].handle_timeout(self.now, &mut out);
                self.outbox = out;
                self.carry_out(switch);
                self.arm_switch(switch);
            }
        }
        true
    }

    /// Has a switch age its tables in virtual time.
    pub fn arm_switch(&mut self, switch: SwitchId) {
        if let Some((at, _)) = self.switches[switch.0].poll_timeout() {
            self.queue.push(at.max(self.now), Happening::SwitchTimer(switch));
        }
    }

    fn note(&mut self, frame: &Frame) {
        if let Some(capture) = &mut self.capture {
            pcapng::packet(capture, 0, self.now.as_nanos(), true, None, frame.bytes());
        }
    }

    fn poll_host(&mut self, host: HostId) {
        for bytes in self.hosts[host.0].poll(self.now) {
            if let Some(frame) = self.pool.copy_of(&bytes) {
                self.send(End::Host(host), frame);
            }
        }
        if let Some(at) = self.hosts[host.0].poll_at(self.now) {
            // A stack that is due at once has just been polled: it is asked again a moment later.
            let at = at.max(self.now + Duration::from_micros(1));
            if self.host_timers[host.0].is_none_or(|due| at < due) {
                self.host_timers[host.0] = Some(at);
                self.queue.push(at, Happening::HostTimer(host));
            }
        }
    }

    fn carry_out(&mut self, switch: SwitchId) {
        let mut frames = std::mem::take(&mut self.outbox.frames);
        for (port, sendable) in frames.drain(..) {
            self.send(End::Port(switch, port), sendable.into_frame());
        }
        self.outbox.frames = frames;
        self.outbox.events.clear();
        self.outbox.captures.clear();
    }

    fn send(&mut self, from: End, frame: Frame) {
        let Some((to, wire)) = self.wires.get_mut(&from) else { return };
        let to = *to;
        let [first, second] = wire.arrivals(frame.len(), self.now, &mut self.random);
        if let Some(at) = second
            && let Some(copy) = frame.duplicate()
        {
            self.queue.push(at, Happening::Arrival(to, copy));
        }
        if let Some(at) = first {
            self.queue.push(at, Happening::Arrival(to, frame));
        }
    }
}
