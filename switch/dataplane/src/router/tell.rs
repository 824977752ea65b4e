//! What the router itself has to say: questions for neighbours, and errors to senders.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use nat::{NatDrop, Translated};
use packet::{Frame, Instant, NetworkId, ethertype, ip_source};

use super::{
    Router, RouterOutput,
    speech::{self, Problem},
};

impl Router {
    #[cold]
    pub(super) fn refused(&mut self, from: NetworkId, reason: NatDrop, frame: &Frame, now: Instant, out: &mut RouterOutput) {
        if let Some(code) = reason.unreachable_code() {
            self.tell(from, frame, Problem::unreachable(code), now, out);
        }
    }

    pub(super) fn ask(&mut self, network: NetworkId, ip: IpAddr, out: &mut RouterOutput) {
        let Some(link) = self.link(network) else { return };
        let own = link.addresses.iter().find(|address| address.contains(ip)).map(IpNetwork::ip).or_else(|| link.own(ip.is_ipv4()));
        let Some(own) = own else { return };
        match speech::ask_neighbour(&self.pool, link.mac, own, ip) {
            Some(frame) => out.push((network, frame)),
            None => self.stats.no_buffer += 1,
        }
    }

    pub(super) fn hear_neighbour(&mut self, network: NetworkId, frame: &Frame, now: Instant, out: &mut RouterOutput) {
        let own = self.link(network).map(|link| link.mac.get());
        match speech::neighbour(frame.bytes()).filter(|(_, mac)| Some(*mac) != own) {
            // Only what was asked for is believed.
            Some((ip, mac)) if self.neighbours.wants(&(network, ip)) => {
                self.forget_ways();
                let waiting = self.neighbours.learn((network, ip), mac, now);
                self.send_all(network, mac, waiting, out);
            }
            _ => self.stats.unasked += 1,
        }
    }

    /// Tells the sender of a packet that came from `network`, and was not translated, of a problem.
    #[cold]
    pub(super) fn tell(&mut self, network: NetworkId, about: &Frame, problem: Problem, now: Instant, out: &mut RouterOutput) {
        if !self.errors.may_tell(now) {
            return;
        }
        let Some(link) = self.link(network) else { return };
        let Some(own) = ip_source(about.bytes()).and_then(|source| link.own(source.is_ipv4())) else { return };
        if let Some(error) = speech::problem(about, link.mac.get(), own, problem, &self.pool) {
            out.push((network, error));
        }
    }

    /// The same for a packet that was on its way into `network`: the error goes back through translation.
    #[cold]
    pub(super) fn tell_back(&mut self, network: NetworkId, about: &Frame, problem: Problem, now: Instant, out: &mut RouterOutput) {
        if !self.errors.may_tell(now) {
            return;
        }
        let Some(source) = ip_source(about.bytes()) else { return };
        let Some(link) = self.link(network) else { return };
        let Some(own) = link.own(source.is_ipv4()) else { return };
        let Some(error) = speech::problem(about, link.mac.get(), own, problem, &self.pool) else { return };
        let is_uplink = self.uplink.as_ref().is_some_and(|uplink| uplink.network == network);
        if let Some(home) = self.links.iter().find(|(_, link)| !is_uplink && link.reaches(source)).map(|(id, _)| *id) {
            return self.send(home, error, now, out);
        }
        let result = if is_uplink { self.nat.inbound(error, now, &mut self.translated) } else { self.nat.outbound(network, error, now, &mut self.translated) };
        drop(result);
        let mut translated = std::mem::take(&mut self.translated);
        for Translated { to, frame } in translated.drain(..) {
            let Some(to) = to.or(self.uplink.as_ref().map(|uplink| uplink.network)) else { continue };
            self.send(to, frame, now, out);
        }
        self.translated = translated;
    }

    /// RFC 5382 REQ-4: port unreachable, to whom knocked.
    pub(super) fn tell_unwanted(&mut self, quote: &[u8], now: Instant, out: &mut RouterOutput) {
        let Some(uplink) = &self.uplink else { return };
        let (network, mac) = (uplink.network, uplink.link.mac.get());
        let kind = if quote.first().is_some_and(|byte| byte >> 4 == 4) { ethertype::IPV4 } else { ethertype::IPV6 };
        let about = [&[0; 12][..], &kind.to_be_bytes(), quote].concat();
        if let Some(error) = speech::unwanted(&about, mac, &self.pool)
            && self.errors.may_tell(now)
        {
            self.send(network, error, now, out);
        }
    }
}
