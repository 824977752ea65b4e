//! The poll loop: sole owner of the `Switch` and of every port's descriptor.
//!
//! A turn: wait (mio), read bursts, run each frame through the switch, hand the outbox to the ports,
//! submit. mio is edge-triggered, so a polled port stays in the ready set until its read says
//! would-block. After work the loop spins for a short, adaptive while before it sleeps: answers
//! that come back at once are then met without a wake-up, and an idle switch uses no CPU.

use std::{
    collections::VecDeque,
    io,
    os::fd::AsRawFd,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant as StdInstant},
};

use crossbeam_channel::{Receiver as Requests, Sender, bounded};
use dataplane::{
    CaptureConfig, CaptureScope, Command, CommandError, DropReason, Event, Outbox, PortConfig, Reply, Switch, SwitchConfig, Told,
};
use mio::{Events, Interest, Poll, Token, Waker, unix::SourceFd};
use nix::errno::Errno;
use packet::{CaptureId, Frame, Instant, Pool, PoolConfig, PortId};
use tokio::sync::mpsc;

use crate::{
    io::{CaptureBytes, CaptureWriter, PortDevice, PortIo, ReadMode},
    sys::{
        mmsg::Receiver,
        ring::{Completion, Ring, RingConfig, StrippedTag},
    },
    tunnel::{MtuChange, TunnelCommand, TunnelConfig, TunnelError, TunnelReply, Tunnels},
    uplink::{Uplink, UplinkCommand, UplinkReply},
};

const WAKER: Token = Token(usize::MAX);
const RING: Token = Token(usize::MAX - 1);
/// Frames read from one polled port before the next has its turn.
const READ_BUDGET: usize = 64;
/// Completions handled between two submissions, so that writes go out while reads come in.
const RING_BUDGET: usize = 64;
/// Frames of one turn at most: a burst flooded to a thousand ports.
const OUTBOX_FRAMES: usize = 65_536;
/// Requests that may wait for the loop.
const REQUESTS: usize = 256;
/// Longest spin before sleeping. A wake-up costs the peer about as much.
const SPIN_MAX: Duration = Duration::from_micros(60);
/// Turns between two looks at the polled descriptors while the ring keeps the loop busy.
const TURNS_BETWEEN_POLLS: u32 = 32;

/// How ports are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum IoBackend {
    /// io_uring where the kernel allows it.
    #[default]
    Auto,
    /// io_uring, or fail to start.
    Uring,
    /// read, write, recvmmsg, sendmmsg.
    Epoll,
}

/// What the loop needs to start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LoopConfig {
    /// How ports are read.
    pub io: IoBackend,
    /// Seeds the switch.
    pub seed: u64,
    /// Never spin before sleeping.
    pub no_spin: bool,
    /// Of what is translated.
    pub(crate) lifetimes: nat::Lifetimes,
}

/// What the loop tells control without being asked.
#[derive(Clone, Debug)]
pub(crate) enum LoopEvent {
    /// From the switch.
    Switch(Event),
    /// A flow began or ended, while somebody watches.
    Flow(nat::FlowEvent),
    /// The device behind a port is gone; the port is down until it is removed or gets another device.
    DeviceGone(PortId),
    /// The path of a tunnel carries less than was thought, or may carry more again.
    TunnelMtu(MtuChange),
}

/// Why a port was not added.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AddPortError {
    /// The switch refused it.
    #[error(transparent)]
    Refused(#[from] CommandError),
    /// The tunnel cannot be opened.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    /// The descriptor cannot be polled.
    #[error("cannot poll the port's descriptor: {0}")]
    Poll(#[from] io::Error),
    /// No loop to add it to.
    #[error("the data plane has stopped")]
    Stopped,
}

enum Request {
    Apply(Command, Sender<Result<Reply, CommandError>>),
    AddPort(PortConfig, PortDevice, Sender<Result<PortId, AddPortError>>),
    AddTunnel(PortConfig, Box<TunnelConfig>, Sender<Result<PortId, AddPortError>>),
    Tunnel(TunnelCommand, Sender<TunnelReply>),
    SetCarrier(PortId, bool, Sender<io::Result<()>>),
    Uplink(Box<UplinkCommand>, Sender<UplinkReply>),
    Explain(Option<PortId>, Vec<u8>, Sender<Vec<String>>),
    StartCapture(CaptureConfig, Sender<Result<(CaptureId, Requests<CaptureBytes>), CommandError>>),
    Shutdown,
}

/// Control's handle on the loop. Each call waits for the answer of one turn.
#[derive(Clone)]
pub(crate) struct DataPlane {
    requests: Sender<Request>,
    waker: Arc<Waker>,
    backend: &'static str,
}

impl std::fmt::Debug for DataPlane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DataPlane({})", self.backend)
    }
}

impl DataPlane {
    /// Starts the loop on a thread of its own. Events go to `events`.
    ///
    /// # Errors
    /// When the kernel refuses epoll, or io_uring where it was demanded.
    pub(crate) fn start(config: LoopConfig, events: mpsc::Sender<LoopEvent>) -> io::Result<(Self, JoinHandle<()>)> {
        let (sender, requests) = bounded(REQUESTS);
        let (ready, started) = bounded(1);
        let thread = thread::Builder::new().name("dataplane".into()).spawn(move || {
            match Loop::new(config, requests, events) {
                Ok((mut data_loop, waker)) => {
                    let backend = if data_loop.ring.is_some() { "io_uring" } else { "epoll" };
                    if ready.send(Ok((waker, backend))).is_ok() {
                        let _end = EndWithUs;
                        data_loop.run();
                    }
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        })?;
        let (waker, backend) = started.recv().map_err(|_| io::Error::other("the data plane died while starting"))??;
        Ok((Self { requests: sender, waker, backend }, thread))
    }

    /// `io_uring` or `epoll`.
    #[must_use]
    pub(crate) fn backend(&self) -> &'static str {
        self.backend
    }

    /// Carries out a command.
    ///
    /// # Errors
    /// As the switch answers.
    pub(crate) fn apply(&self, command: Command) -> Result<Reply, CommandError> {
        self.ask(|reply| Request::Apply(command, reply)).unwrap_or(Err(CommandError::TooMany("requests: the data plane has stopped")))
    }

    /// Makes a port on `device`.
    ///
    /// # Errors
    /// When the switch or the kernel refuses; the device is then closed.
    pub(crate) fn add_port(&self, config: PortConfig, device: PortDevice) -> Result<PortId, AddPortError> {
        self.ask(|reply| Request::AddPort(config, device, reply)).unwrap_or(Err(AddPortError::Stopped))
    }

    /// Makes a port that leads to other nodes.
    ///
    /// # Errors
    /// When the switch or the kernel refuses.
    pub(crate) fn add_tunnel(&self, config: PortConfig, tunnel: TunnelConfig) -> Result<PortId, AddPortError> {
        self.ask(|reply| Request::AddTunnel(config, Box::new(tunnel), reply)).unwrap_or(Err(AddPortError::Stopped))
    }

    /// Asks the tunnels.
    ///
    /// # Errors
    /// When the data plane has stopped.
    pub(crate) fn tunnel(&self, command: TunnelCommand) -> io::Result<TunnelReply> {
        self.ask(|reply| Request::Tunnel(command, reply)).ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    /// Gives the TAP behind a port carrier, or takes it.
    ///
    /// # Errors
    /// When there is no such TAP.
    pub(crate) fn set_carrier(&self, port: PortId, on: bool) -> io::Result<()> {
        self.ask(|reply| Request::SetCarrier(port, on, reply)).unwrap_or(Err(io::ErrorKind::BrokenPipe.into()))
    }

    /// Asks the uplink.
    ///
    /// # Errors
    /// When the data plane has stopped.
    pub(crate) fn uplink(&self, command: UplinkCommand) -> io::Result<UplinkReply> {
        self.ask(|reply| Request::Uplink(Box::new(command), reply)).ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    /// The way of a frame that came in on `port`, or reached the host: a step a line.
    ///
    /// # Errors
    /// When the data plane has stopped.
    pub(crate) fn explain(&self, port: Option<PortId>, bytes: Vec<u8>) -> io::Result<Vec<String>> {
        self.ask(|reply| Request::Explain(port, bytes, reply)).ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    /// Removes a port and closes its device.
    ///
    /// # Errors
    /// When there is no such port.
    pub(crate) fn remove_port(&self, port: PortId) -> Result<(), CommandError> {
        self.apply(Command::RemovePort(port)).map(drop)
    }

    /// Starts a capture; the receiver yields pcapng blocks, and the capture ends when it is dropped.
    ///
    /// # Errors
    /// As the switch answers.
    pub(crate) fn start_capture(&self, config: CaptureConfig) -> Result<(CaptureId, Requests<CaptureBytes>), CommandError> {
        self.ask(|reply| Request::StartCapture(config, reply)).unwrap_or(Err(CommandError::TooMany("requests: the data plane has stopped")))
    }

    /// Ends the loop; all devices are closed.
    pub(crate) fn shutdown(&self) {
        if self.requests.send(Request::Shutdown).is_ok() {
            drop(self.waker.wake());
        }
    }

    fn ask<T>(&self, request: impl FnOnce(Sender<T>) -> Request) -> Option<T> {
        let (reply, answer) = bounded(1);
        self.requests.send(request(reply)).ok()?;
        self.waker.wake().ok()?;
        answer.recv().ok()
    }
}

/// A daemon whose data plane panicked would wait for it for ever; it ends instead, and its successor
/// takes over what the state file says.
struct EndWithUs;

impl Drop for EndWithUs {
    fn drop(&mut self) {
        if thread::panicking() {
            std::process::exit(70);
        }
    }
}

struct Loop {
    poll: Poll,
    events: Events,
    switch: Switch,
    outbox: Outbox,
    pool: Pool,
    uplink: Uplink,
    tunnels: Tunnels,
    ring: Option<Ring>,
    receiver: Receiver,
    ports: Vec<Option<(PortId, PortIo)>>,
    /// Labels by slot, for captures.
    names: Vec<String>,
    /// Polled ports that may have more to read.
    ready: VecDeque<usize>,
    /// Ring-read ports to arm again once buffers are back.
    rearm: Vec<usize>,
    /// Ports with a batch to flush.
    dirty: Vec<usize>,
    polled_ports: usize,
    turns_unpolled: u32,
    captures: Vec<CaptureWriter>,
    requests: Requests<Request>,
    control: mpsc::Sender<LoopEvent>,
    /// Losses that control has not been told of yet.
    lost: Vec<PortId>,
    start: StdInstant,
    /// Wall clock at `start`, nanoseconds since 1970: captures only.
    epoch_ns: u64,
    spin: Duration,
    spin_max: Duration,
    stopping: bool,
}

impl Loop {
    fn new(config: LoopConfig, requests: Requests<Request>, control: mpsc::Sender<LoopEvent>) -> io::Result<(Self, Arc<Waker>)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let pool = Pool::new(PoolConfig::default());
        let uplink = Uplink::new(pool.clone(), poll.registry().try_clone()?, nat::NatConfig { seed: config.seed, lifetimes: config.lifetimes, ..nat::NatConfig::default() });
        let tunnels = Tunnels::new(pool.clone(), poll.registry().try_clone()?, config.seed);
        let ring = match config.io {
            IoBackend::Epoll => None,
            IoBackend::Uring => Some(Ring::new(&pool, RingConfig::default())?),
            IoBackend::Auto => Ring::new(&pool, RingConfig::default())
                .inspect_err(|error| tracing::info!(%error, "io_uring is not available; using epoll"))
                .ok(),
        };
        if let Some(ring) = &ring {
            poll.registry().register(&mut SourceFd(&ring.as_raw_fd()), RING, Interest::READABLE)?;
        }
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let this = Self {
            poll,
            events: Events::with_capacity(256),
            switch: Switch::new(SwitchConfig { seed: config.seed, ..SwitchConfig::default() }, pool.clone()),
            outbox: Outbox::new(OUTBOX_FRAMES),
            pool,
            uplink,
            tunnels,
            ring,
            receiver: Receiver::new(),
            ports: Vec::new(),
            names: Vec::new(),
            ready: VecDeque::new(),
            rearm: Vec::new(),
            dirty: Vec::new(),
            polled_ports: 0,
            turns_unpolled: 0,
            captures: Vec::new(),
            requests,
            control,
            lost: Vec::new(),
            start: StdInstant::now(),
            epoch_ns: u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX),
            spin: Duration::ZERO,
            spin_max: if config.no_spin { Duration::ZERO } else { SPIN_MAX },
            stopping: false,
        };
        Ok((this, waker))
    }

    fn run(&mut self) {
        crate::sys::priority::raise();
        while !self.stopping {
            self.wait();
            let now = self.now();
            self.take_requests(now);
            self.read_ring(now);
            self.read_polled(now);
            if self.switch.poll_timeout().is_some_and(|(at, _)| at <= now) {
                self.switch.handle_timeout(now, &mut self.outbox);
            }
            self.uplink.turn(&mut self.switch, &mut self.outbox, now);
            let control = &self.control;
            self.uplink.take_events(|event| drop(control.try_send(LoopEvent::Flow(event))));
            self.tunnels.turn(&mut self.switch, &mut self.outbox, now);
            self.drain();
            self.flush();
            self.report();
        }
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    // ---- waiting ----

    fn wait(&mut self) {
        if self.has_work() || self.spin_until_work() {
            self.look_at_polled();
            return;
        }
        self.turns_unpolled = 0;
        let deadlines = [self.switch.poll_timeout().map(|(at, _)| at), self.uplink.poll_timeout(), self.tunnels.poll_timeout()];
        let timeout = deadlines.into_iter().flatten().min().map(|at| at.since(self.now()));
        if let Some(ring) = &mut self.ring {
            ring.ring_the_bell(true);
            if ring.has_work() {
                ring.ring_the_bell(false);
                return;
            }
        }
        let retry = (!self.rearm.is_empty() || !self.lost.is_empty()).then_some(Duration::from_millis(1));
        self.poll_now([timeout, retry].into_iter().flatten().min());
        if let Some(ring) = &mut self.ring {
            ring.ring_the_bell(false);
        }
    }

    /// Descriptors that the ring does not read: polled ports, and ports that are blocked. A busy ring
    /// must not make them wait for ever, nor pay for them in each turn.
    fn look_at_polled(&mut self) {
        self.turns_unpolled += 1;
        if self.ring.is_none() || self.has_sockets() || self.turns_unpolled >= TURNS_BETWEEN_POLLS {
            self.turns_unpolled = 0;
            self.poll_now(Some(Duration::ZERO));
        }
    }

    fn has_sockets(&self) -> bool {
        !self.uplink.is_idle() || !self.tunnels.is_idle()
    }

    fn has_work(&mut self) -> bool {
        !self.ready.is_empty() || self.uplink.has_work() || self.tunnels.has_work() || !self.requests.is_empty() || self.ring.as_mut().is_some_and(Ring::has_work)
    }

    /// Spins for the adaptive while. A success doubles the next spin, a failure halves it; each
    /// wake-up from sleep starts it anew at a small value. The CPU is offered once to those whom this
    /// turn's frames woke, who may be waiting for it.
    fn spin_until_work(&mut self) -> bool {
        if self.spin.is_zero() {
            self.spin = (self.spin_max / 8).max(Duration::ZERO);
            return false;
        }
        thread::yield_now();
        let began = StdInstant::now();
        loop {
            for _ in 0..16 {
                if self.has_work() {
                    self.spin = (self.spin * 2).min(self.spin_max);
                    return true;
                }
                std::hint::spin_loop();
            }
            if self.polled_ports > 0 || self.has_sockets() {
                self.poll_now(Some(Duration::ZERO));
            }
            if began.elapsed() >= self.spin {
                self.spin = if self.spin < Duration::from_micros(2) { Duration::ZERO } else { self.spin / 2 };
                return self.has_work();
            }
        }
    }

    fn poll_now(&mut self, timeout: Option<Duration>) {
        if let Err(error) = self.poll.poll(&mut self.events, timeout)
            && error.kind() != io::ErrorKind::Interrupted
        {
            tracing::error!(%error, "epoll failed");
            thread::sleep(Duration::from_millis(10));
        }
        let mut unblocked = Vec::new();
        for event in &self.events {
            match event.token() {
                WAKER | RING => {}
                _ if self.tunnels.note(event) || self.uplink.note(event) => {}
                Token(slot) => {
                    if event.is_writable() {
                        unblocked.push(slot);
                    }
                    let polled = self.ports.get(slot).and_then(Option::as_ref).is_some_and(|(_, io)| io.mode == ReadMode::Poll);
                    if polled && (event.is_readable() || event.is_error()) && !self.ready.contains(&slot) {
                        self.ready.push_back(slot);
                    }
                }
            }
        }
        for slot in unblocked {
            self.unblock(slot);
        }
    }

    // ---- requests ----

    fn take_requests(&mut self, now: Instant) {
        while let Ok(request) = self.requests.try_recv() {
            match request {
                Request::Apply(command, reply) => drop(reply.send(self.apply(command, now))),
                Request::AddPort(config, device, reply) => drop(reply.send(self.add_port(config, device, now))),
                Request::AddTunnel(config, tunnel, reply) => drop(reply.send(self.add_tunnel(config, &tunnel, now))),
                Request::Tunnel(command, reply) => drop(reply.send(self.tunnels.apply(command, now))),
                Request::SetCarrier(port, on, reply) => drop(reply.send(self.set_carrier(port, on))),
                Request::Uplink(command, reply) => drop(reply.send(self.uplink.apply(*command, now))),
                Request::Explain(port, bytes, reply) => drop(reply.send(self.explain(port, &bytes, now))),
                Request::StartCapture(config, reply) => drop(reply.send(self.start_capture(config, now))),
                Request::Shutdown => self.stopping = true,
            }
        }
        self.drain();
    }

    fn explain(&mut self, port: Option<PortId>, bytes: &[u8], now: Instant) -> Vec<String> {
        let mut steps = Vec::new();
        let Some(frame) = self.pool.copy_of(bytes) else { return vec!["drop: no buffer".into()] };
        match port {
            None => self.uplink.explain_arrival(&self.switch, &frame, now, &mut steps),
            Some(port) => {
                if let Told::Outside(network, frame) = self.switch.explain(port, frame, now, &mut steps) {
                    self.uplink.explain(&self.switch, network, frame, now, &mut steps);
                }
            }
        }
        steps
    }

    fn apply(&mut self, command: Command, now: Instant) -> Result<Reply, CommandError> {
        let removed = match &command {
            Command::RemovePort(port) => Some(*port),
            _ => None,
        };
        // Of a port without a device: a capture knows its name too.
        let reply = match command {
            Command::AddPort(config) => Reply::Port(self.add_switch_port(config, now)?),
            command => self.switch.apply(command, now, &mut self.outbox)?,
        };
        self.drain();
        if let Some(port) = removed {
            self.close(port);
        }
        Ok(reply)
    }

    fn add_port(&mut self, config: PortConfig, device: PortDevice, now: Instant) -> Result<PortId, AddPortError> {
        let port = self.add_switch_port(config, now)?;
        if let Err(error) = self.open(port, device) {
            drop(self.switch.apply(Command::RemovePort(port), now, &mut self.outbox));
            return Err(error.into());
        }
        Ok(port)
    }

    fn add_tunnel(&mut self, config: PortConfig, tunnel: &TunnelConfig, now: Instant) -> Result<PortId, AddPortError> {
        let port = self.add_switch_port(config, now)?;
        if let Err(error) = self.tunnels.open(port, tunnel, now) {
            drop(self.switch.apply(Command::RemovePort(port), now, &mut self.outbox));
            return Err(error.into());
        }
        Ok(port)
    }

    fn add_switch_port(&mut self, config: PortConfig, now: Instant) -> Result<PortId, CommandError> {
        let name = config.name.clone();
        let Reply::Port(port) = self.switch.apply(Command::AddPort(config), now, &mut self.outbox)? else {
            return Err(CommandError::TooMany("ports"));
        };
        if self.names.len() <= port.index() {
            self.names.resize_with(port.index() + 1, String::new);
        }
        self.names[port.index()] = name;
        Ok(port)
    }

    fn open(&mut self, port: PortId, device: PortDevice) -> io::Result<()> {
        let slot = port.index();
        if self.ports.len() <= slot {
            self.ports.resize_with(slot + 1, || None);
        }
        let mode = if self.ring.is_some() { ReadMode::Ring } else { ReadMode::Poll };
        let token = u32::try_from(slot).map_err(io::Error::other)?;
        let io = PortIo::new(device, token, mode);
        match &mut self.ring {
            Some(ring) => io.arm(ring),
            None => {
                self.poll.registry().register(&mut SourceFd(&io.fd()), Token(slot), Interest::READABLE)?;
                self.polled_ports += 1;
                self.ready.push_back(slot);
            }
        }
        self.ports[slot] = Some((port, io));
        Ok(())
    }

    fn close(&mut self, port: PortId) {
        self.tunnels.close(port);
        let slot = port.index();
        if self.slot_of(port).is_none() {
            return;
        }
        if let Some((_, io)) = self.ports[slot].take() {
            match (io.mode, &mut self.ring) {
                (ReadMode::Ring, Some(ring)) => {
                    io.disarm(ring);
                    // The read must end before the descriptor is closed, or the device would live on.
                    drop(ring.enter());
                }
                _ => {
                    self.polled_ports = self.polled_ports.saturating_sub(1);
                }
            }
            if io.mode == ReadMode::Poll || io.blocked {
                drop(self.poll.registry().deregister(&mut SourceFd(&io.fd())));
            }
        }
        self.ready.retain(|&ready| ready != slot);
        self.rearm.retain(|&rearm| rearm != slot);
        self.dirty.retain(|&dirty| dirty != slot);
    }

    fn slot_of(&self, port: PortId) -> Option<usize> {
        let (owner, _) = self.ports.get(port.index())?.as_ref()?;
        (*owner == port).then_some(port.index())
    }

    fn set_carrier(&self, port: PortId, on: bool) -> io::Result<()> {
        let slot = self.slot_of(port).ok_or(io::ErrorKind::NotFound)?;
        let Some((_, io)) = self.ports[slot].as_ref() else { return Err(io::ErrorKind::NotFound.into()) };
        netns_setup::set_carrier(io.as_fd(), on).map_err(|error| io::Error::other(error.to_string()))
    }

    fn start_capture(&mut self, config: CaptureConfig, now: Instant) -> Result<(CaptureId, Requests<CaptureBytes>), CommandError> {
        let seen = config.scope;
        let Reply::Capture(id) = self.switch.apply(Command::StartCapture(config), now, &mut self.outbox)? else {
            return Err(CommandError::TooMany("captures"));
        };
        let scope = match seen {
            CaptureScope::Network(network) => Some(network),
            CaptureScope::All | CaptureScope::Port(_) => None,
        };
        let Reply::Ports(ports) = self.switch.apply(Command::ShowPorts(scope), now, &mut self.outbox)? else {
            return Err(CommandError::TooMany("captures"));
        };
        let (mut writer, receiver) = CaptureWriter::start(id, self.epoch_ns);
        for view in ports {
            if !matches!(seen, CaptureScope::Port(port) if port != view.id) {
                writer.add_interface(view.id, &view.config.name);
            }
        }
        self.captures.push(writer);
        Ok((id, receiver))
    }

    // ---- reading ----

    fn read_ring(&mut self, now: Instant) {
        if self.ring.is_none() {
            return;
        }
        let mut handled = 0;
        // Reaps what is there; new arrivals wait for the next turn, when writes have gone out.
        if self.ring.as_mut().is_some_and(Ring::must_enter) {
            self.enter_ring();
        }
        while handled < RING_BUDGET * 4 {
            let Some(completion) = self.ring.as_mut().and_then(Ring::next) else { break };
            handled += 1;
            match completion {
                Completion::Read { token, frame, tag, armed } => {
                    let slot = token as usize;
                    if !armed {
                        self.rearm.push(slot);
                    }
                    self.ingress(slot, frame, tag, now);
                }
                Completion::ReadEnded { token, errno } => self.read_ended(token as usize, errno),
                Completion::Refused { token, frame, errno } => self.refused(token as usize, frame, errno),
            }
            if handled % RING_BUDGET == 0 {
                self.drain();
                self.enter_ring();
            }
        }
        self.drain();
        self.arm_again();
    }

    fn enter_ring(&mut self) {
        if let Some(ring) = &mut self.ring
            && let Err(error) = ring.enter()
        {
            tracing::error!(%error, "io_uring_enter failed");
        }
    }

    fn read_ended(&mut self, slot: usize, errno: i32) {
        let Some((port, io)) = self.ports.get(slot).and_then(Option::as_ref) else { return };
        match Errno::from_raw(errno) {
            // Cancelled because the port was closed; a new port in this slot has a read of its own.
            Errno::ECANCELED => {}
            Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR | Errno::ENOMEM => self.rearm.push(slot),
            _ if io.is_lost() => {
                let port = *port;
                self.device_gone(port);
            }
            // The device went down (ENETDOWN); it may come up again.
            _ => self.rearm.push(slot),
        }
    }

    fn arm_again(&mut self) {
        if self.rearm.is_empty() {
            return;
        }
        let Some(ring) = &mut self.ring else { return };
        ring.refill();
        self.rearm.sort_unstable();
        self.rearm.dedup();
        for slot in self.rearm.drain(..) {
            if let Some((_, io)) = self.ports.get(slot).and_then(Option::as_ref) {
                io.arm(ring);
            }
        }
    }

    fn read_polled(&mut self, now: Instant) {
        for _ in 0..self.ready.len() {
            let Some(slot) = self.ready.pop_front() else { break };
            let Some((port, io)) = self.ports.get(slot).and_then(Option::as_ref) else { continue };
            let port = *port;
            let (switch, outbox) = (&mut self.switch, &mut self.outbox);
            let result = io.read(READ_BUDGET, &self.pool, &mut self.receiver, |frame, tag| match io.admit(frame, tag) {
                Ok(frame) => switch.ingress(port, frame, now, outbox),
                Err(reason) => switch.ingress_error(port, reason),
            });
            match result {
                Ok(true) => self.ready.push_back(slot),
                Ok(false) => {}
                Err(_) => self.device_gone(port),
            }
            self.drain();
        }
    }

    fn ingress(&mut self, slot: usize, frame: Frame, tag: Option<StrippedTag>, now: Instant) {
        let Some((port, io)) = self.ports.get(slot).and_then(Option::as_ref) else { return };
        match io.admit(frame, tag) {
            Ok(frame) => self.switch.ingress(*port, frame, now, &mut self.outbox),
            Err(reason) => self.switch.ingress_error(*port, reason),
        }
    }

    fn device_gone(&mut self, port: PortId) {
        tracing::debug!(%port, "device gone");
        self.close(port);
        self.lost.push(port);
    }

    // ---- writing ----

    /// Hands what the switch produced to the ports, captures and control.
    fn drain(&mut self) {
        let mut frames = std::mem::take(&mut self.outbox.frames);
        for (port, sendable) in frames.drain(..) {
            self.transmit(port, sendable.into_frame());
        }
        self.outbox.frames = frames;
        if !self.tunnels.is_idle() {
            let now = self.now();
            self.tunnels.flush(&mut self.switch, &mut self.outbox, now);
        }
        if !self.outbox.outside.is_empty() {
            let now = self.now();
            for (network, frame) in self.outbox.outside.drain(..) {
                self.uplink.take(network, frame, now);
            }
        }
        if !self.outbox.captures.is_empty() {
            self.write_captures();
        }
        for event in self.outbox.events.drain(..) {
            // Control may be slow; the data plane never waits for it.
            drop(self.control.try_send(LoopEvent::Switch(event)));
        }
    }

    fn transmit(&mut self, port: PortId, frame: Frame) {
        let slot = port.index();
        let Some(Some((owner, io))) = self.ports.get_mut(slot) else {
            let now = self.now();
            let Some(frame) = self.uplink.take_meshed(port, frame, now) else { return };
            if !self.tunnels.take(port, frame, now) {
                self.switch.egress_error(port, DropReason::WriteFailed, 1);
            }
            return;
        };
        if *owner != port {
            return;
        }
        let was_blocked = io.blocked;
        let batched = io.mode == ReadMode::Poll;
        let result = io.send(frame, self.ring.as_mut(), &self.pool);
        let newly_blocked = io.blocked && !was_blocked;
        if let Err(refused) = result {
            self.switch.egress_error(port, refused.0, 1);
        }
        if batched && self.dirty.last() != Some(&slot) {
            self.dirty.push(slot);
        }
        if newly_blocked {
            self.watch_writable(slot);
        }
    }

    fn refused(&mut self, slot: usize, frame: Frame, errno: i32) {
        let Some((port, io)) = self.ports.get_mut(slot).and_then(Option::as_mut) else { return };
        let (port, was_blocked) = (*port, io.blocked);
        let result = io.handle_refusal(frame, Errno::from_raw(errno), &self.pool);
        let newly_blocked = io.blocked && !was_blocked;
        if let Err(refused) = result {
            self.switch.egress_error(port, refused.0, 1);
        }
        if newly_blocked {
            self.watch_writable(slot);
        }
    }

    /// mio tells when the descriptor takes frames again. Not asked for before, since a packet socket
    /// reports it with every frame sent.
    fn watch_writable(&mut self, slot: usize) {
        let Some((port, io)) = self.ports.get(slot).and_then(Option::as_ref) else { return };
        let (registry, fd, token) = (self.poll.registry(), io.fd(), Token(slot));
        let result = match io.mode {
            ReadMode::Ring => registry.register(&mut SourceFd(&fd), token, Interest::WRITABLE),
            ReadMode::Poll => registry.reregister(&mut SourceFd(&fd), token, Interest::READABLE | Interest::WRITABLE),
        };
        if let Err(error) = result {
            tracing::warn!(%port, %error, "cannot watch a blocked port");
        }
    }

    fn unblock(&mut self, slot: usize) {
        let Some((port, io)) = self.ports.get_mut(slot).and_then(Option::as_mut) else { return };
        if !io.blocked {
            return;
        }
        let failed = io.unblock();
        if failed > 0 {
            self.switch.egress_error(*port, DropReason::WriteFailed, failed);
        }
        if !io.blocked {
            let (registry, fd) = (self.poll.registry(), io.fd());
            drop(match io.mode {
                ReadMode::Ring => registry.deregister(&mut SourceFd(&fd)),
                ReadMode::Poll => registry.reregister(&mut SourceFd(&fd), Token(slot), Interest::READABLE),
            });
        }
    }

    fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for slot in dirty.drain(..) {
            let Some((port, io)) = self.ports.get_mut(slot).and_then(Option::as_mut) else { continue };
            let (port, was_blocked) = (*port, io.blocked);
            let result = io.flush_batch(&self.pool);
            let newly_blocked = io.blocked && !was_blocked;
            if let Err(refused) = result {
                self.switch.egress_error(port, refused.0, 1);
            }
            if newly_blocked {
                self.watch_writable(slot);
            }
        }
        self.dirty = dirty;
        if self.ring.as_ref().is_some_and(Ring::has_queued) {
            self.enter_ring();
        }
    }

    // ---- telling ----

    fn write_captures(&mut self) {
        let now = self.now();
        let mut ended = Vec::new();
        for record in self.outbox.captures.drain(..) {
            let Some(writer) = self.captures.iter_mut().find(|writer| writer.id() == record.capture) else { continue };
            if !writer.has_interface(record.port) {
                let name = self.names.get(record.port.index()).map_or("?", String::as_str);
                writer.add_interface(record.port, name);
            }
            let comment = self.uplink.comment(&record.frame, now);
            if !writer.write(&record, comment) && !ended.contains(&record.capture) {
                ended.push(record.capture);
            }
        }
        for capture in ended {
            self.captures.retain(|writer| writer.id() != capture);
            drop(self.switch.apply(Command::StopCapture(capture), now, &mut self.outbox));
        }
    }

    /// Losses must reach control: those that its queue has no room for are told again later.
    fn report(&mut self) {
        let control = &self.control;
        self.lost.retain(|&port| matches!(control.try_send(LoopEvent::DeviceGone(port)), Err(mpsc::error::TrySendError::Full(_))));
        self.tunnels.changes.retain(|&change| matches!(control.try_send(LoopEvent::TunnelMtu(change)), Err(mpsc::error::TrySendError::Full(_))));
    }
}
