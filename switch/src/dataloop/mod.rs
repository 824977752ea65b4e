//! The poll loop: sole owner of the `Switch` and of every port's descriptor.
//!
//! A turn: wait (mio), read bursts, run each frame through the switch, hand the outbox to the ports,
//! submit. mio is edge-triggered, so a polled port stays in the ready set until its read says
//! would-block. After work the loop spins for a short, adaptive while before it sleeps: answers
//! that come back at once are then met without a wake-up, and an idle switch uses no CPU.

mod handle;
mod read;
mod requests;
mod wait;
mod write;

use std::{
    collections::VecDeque,
    io,
    os::fd::AsRawFd,
    sync::Arc,
    time::{Duration, Instant as StdInstant},
};

use crossbeam_channel::Receiver as Requests;
use dataplane::{Outbox, Switch, SwitchConfig};
use mio::{Events, Interest, Poll, Token, Waker, unix::SourceFd};
use packet::{Frame, Instant, NetworkId, Pool, PoolConfig, PortId};
use tokio::sync::mpsc;

use self::handle::Request;
pub(crate) use self::handle::{AddPortError, DataPlane, IoBackend, LoopConfig, LoopEvent};
use crate::{
    io::{CaptureWriter, PortIo},
    sys::{
        mmsg::Receiver,
        ring::{Ring, RingConfig},
    },
    tunnel::Tunnels,
    uplink::Uplink,
};

const WAKER: Token = Token(usize::MAX);
const RING: Token = Token(usize::MAX - 1);
/// Frames read from one polled port before the next has its turn.
const READ_BUDGET: usize = 64;
/// Completions handled between two submissions, so that writes go out while reads come in.
const RING_BUDGET: usize = 64;
/// Of a turn, for the uplink to take frames; looked at after so many; and frames that may wait for the next one.
const OUTSIDE_TIME: packet::Duration = packet::Duration::from_micros(50);
const OUTSIDE_AT_ONCE: usize = 4;
const OUTSIDE_BACKLOG: usize = 256;
/// Frames of one turn at most: a burst flooded to a thousand ports.
const OUTBOX_FRAMES: usize = 65_536;
/// Requests that may wait for the loop.
const REQUESTS: usize = 256;
/// Longest spin before sleeping. A wake-up costs the peer about as much.
const SPIN_MAX: Duration = Duration::from_micros(60);
/// The same with tunnels: an answer from another node passes two switches. At 60 us each hop of some answers was a wake-up.
const SPIN_MAX_TUNNELS: Duration = Duration::from_micros(150);
/// Turns between two looks at the polled descriptors while the ring keeps the loop busy.
const TURNS_BETWEEN_POLLS: u32 = 32;

struct Loop {
    poll: Poll,
    events: Events,
    switch: Switch,
    outbox: Outbox,
    pool: Pool,
    /// What the uplink is to take.
    outside: VecDeque<(NetworkId, Frame)>,
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
    may_spin: bool,
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
            outside: VecDeque::with_capacity(2 * OUTSIDE_BACKLOG),
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
            may_spin: !config.no_spin,
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
            self.hand_out(now);
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

    /// Losses must reach control: those that its queue has no room for are told again later.
    fn report(&mut self) {
        let control = &self.control;
        self.lost.retain(|&port| matches!(control.try_send(LoopEvent::DeviceGone(port)), Err(mpsc::error::TrySendError::Full(_))));
        self.tunnels.changes.retain(|&change| matches!(control.try_send(LoopEvent::TunnelMtu(change)), Err(mpsc::error::TrySendError::Full(_))));
    }
}
