//! Control's handle on the loop: what it may ask, and what it is told.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
};

use crossbeam_channel::{Receiver as Requests, Sender, bounded};
use dataplane::{CaptureConfig, Command, CommandError, Event, PortConfig, Reply};
use mio::Waker;
use packet::{CaptureId, PortId};
use tokio::sync::mpsc;

use super::{Loop, REQUESTS};
use crate::{
    io::{CaptureBytes, PortDevice},
    tunnel::{MtuChange, TunnelCommand, TunnelConfig, TunnelError, TunnelReply},
    uplink::{UplinkCommand, UplinkReply},
};

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

pub(super) enum Request {
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
