//! Frames of networks with virtual addresses: on their way to the gateway, and at the port they leave by.

use packet::{Frame, Instant, ip_source};

use super::{Origin, Switch};
use crate::{
    drop::DropReason,
    fdb::PortSlot,
    gateway::balancer::Balanced,
    header::Header,
    outbox::Outbox,
};

impl Switch {
    /// A frame to the gateway's address: to a virtual address, or as any.
    #[inline(never)]
    pub(super) fn hear_balanced(&mut self, from: Origin, header: Header, frame: Frame, now: Instant, out: &mut Outbox) -> Result<(), DropReason> {
        match self.balance(from, frame, true, now, out)? {
            Some(frame) => self.hear_out(from, header, frame, now, out),
            None => Ok(()),
        }
    }

    /// The same for one that the router put into the network: what is not for a virtual address was said to
    /// somebody behind the router.
    #[inline(never)]
    pub(super) fn enter_balanced(&mut self, from: Origin, frame: Frame, now: Instant, out: &mut Outbox) {
        let network = self.bridges.at(from.bridge).and_then(|bridge| bridge.services.balancer.as_ref()).map(|balancer| balancer.network);
        let result = self.balance(from, frame, false, now, out).and_then(|frame| match (frame, network) {
            (Some(frame), Some(network)) => out.push_outside(network, frame),
            _ => Ok(()),
        });
        if let Err(reason) = result {
            self.retired.drops.count(reason);
        }
    }

    /// Gives the frame back if it is not for a virtual address.
    fn balance(&mut self, from: Origin, frame: Frame, is_inside: bool, now: Instant, out: &mut Outbox) -> Result<Option<Frame>, DropReason> {
        let bridge = self.bridges.at_mut(from.bridge).ok_or(DropReason::GatewayNothing)?;
        let (Some(gateway), Some(balancer)) = (&bridge.config.gateway, &mut bridge.services.balancer) else { return Ok(Some(frame)) };
        let (network, own) = (bridge.id, gateway.mac.get());
        let mut next = Some(balancer.hear(gateway, is_inside, frame, now, &self.pool)?);
        let mut result = Ok(());
        while let Some(balanced) = next {
            match balanced {
                Balanced::NotMine(frame) => return Ok(Some(frame)),
                Balanced::Kept => {}
                Balanced::Spoken(frame) => self.inject(network, frame, now, out),
                Balanced::ToEndpoint(frame) => result = self.send_on(from, frame, now, out),
            }
            next = self.bridges.at_mut(from.bridge).and_then(|bridge| bridge.services.balancer.as_mut()).and_then(|balancer| balancer.more(own));
        }
        result.map(|()| None)
    }

    /// As if the client had sent it there.
    fn send_on(&mut self, from: Origin, frame: Frame, now: Instant, out: &mut Outbox) -> Result<(), DropReason> {
        let (Some(header), Some(bridge)) = (Header::new(frame.bytes()), self.bridges.at(from.bridge)) else { return Err(DropReason::Runt) };
        self.go_on(bridge.decide(0, header, from.port, now), from, frame, now, out)
    }

    /// The way back of a balanced connection, at the client's port. Nothing when the client need not hear.
    pub(super) fn back_from_vip(&mut self, from: Origin, target: PortSlot, frame: Frame, now: Instant) -> Result<Option<Frame>, DropReason> {
        let is_to_group = frame.bytes().first().is_none_or(|byte| byte & 1 != 0);
        if is_to_group || !self.ports.at(target).is_some_and(crate::attachment::Attachment::is_balanced) {
            return Ok(Some(frame));
        }
        let balancer = self.bridges.at_mut(from.bridge).and_then(|bridge| bridge.services.balancer.as_mut());
        match (balancer, ip_source(frame.bytes())) {
            (Some(balancer), Some(source)) => balancer.leave(frame, source, now),
            _ => Ok(Some(frame)),
        }
    }
}
