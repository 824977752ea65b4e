//! What control asks for, carried out.

use std::io;

use crossbeam_channel::Receiver as Requests;
use dataplane::{CaptureConfig, CaptureScope, Command, CommandError, PortConfig, Reply, Told};
use mio::{Interest, Token, unix::SourceFd};
use packet::{CaptureId, Instant, PortId};

use super::{AddPortError, Loop, Request};
use crate::{
    io::{CaptureBytes, CaptureWriter, PortDevice, PortIo, ReadMode},
    tunnel::TunnelConfig,
};

impl Loop {
    pub(super) fn take_requests(&mut self, now: Instant) {
        while let Ok(request) = self.requests.try_recv() {
            match request {
                Request::Apply(command, reply) => drop(reply.send(self.apply(command, now))),
                Request::AddPort(config, device, reply) => drop(reply.send(self.add_port(config, device, now))),
                Request::AddTunnel(config, tunnel, reply) => drop(reply.send(self.add_tunnel(config, &tunnel, now))),
                Request::Tunnel(command, reply) => drop(reply.send(self.tunnels.apply(command, now))),
                Request::SetCarrier(port, on, reply) => drop(reply.send(self.set_carrier(port, on))),
                Request::Uplink(command, reply) => {
                    // What came before it is treated as before: no flow begins for who is gone.
                    for (network, frame) in self.outside.drain(..) {
                        self.uplink.take(network, frame, now);
                    }
                    drop(reply.send(self.uplink.apply(*command, now)));
                }
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

    pub(super) fn close(&mut self, port: PortId) {
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
}
