//! Every timeout of translation, with its clause. Defaults are what the RFCs recommend; none may be set
//! below what they demand.

use packet::{Duration, checksum::protocol};

use crate::tcp_state::TcpState;

/// How long things live without being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// UDP (RFC 4787 REQ-5: at least two minutes, five recommended).
    pub udp: Duration,
    /// TCP with both SYNs seen (RFC 5382 REQ-5: at least 2 h 4 min).
    pub tcp_established: Duration,
    /// TCP opening or closing (RFC 5382 REQ-5: at least four minutes), or reset (RFC 7857 section 2.2).
    pub tcp_transitory: Duration,
    /// A SYN from outside that nobody inside answered yet (RFC 6146 section 4).
    pub tcp_incoming_syn: Duration,
    /// ICMP queries (RFC 5508 REQ-2: at least 60 s).
    pub icmp: Duration,
    /// Other protocols, which show no state.
    pub other: Duration,
    /// Fragments wait for their first, and are remembered after it (RFC 4787 REQ-14).
    pub fragment: Duration,
}

/// RFC 5382 REQ-4: how long an unsolicited SYN waits for one from inside before its sender is told.
pub const UNSOLICITED_SYN: Duration = Duration::from_secs(6);

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            udp: Duration::from_secs(300),
            tcp_established: Duration::from_secs(2 * 3600 + 4 * 60),
            tcp_transitory: Duration::from_secs(240),
            tcp_incoming_syn: Duration::from_secs(6),
            icmp: Duration::from_secs(60),
            other: Duration::from_secs(600),
            fragment: Duration::from_secs(2),
        }
    }
}

impl Lifetimes {
    /// The first value below what its RFC demands: name and least.
    #[must_use]
    pub fn below_minimum(&self) -> Option<(&'static str, Duration)> {
        let least = [
            ("udp", self.udp, Duration::from_secs(120)),
            ("tcp_established", self.tcp_established, Duration::from_secs(7440)),
            ("tcp_transitory", self.tcp_transitory, Duration::from_secs(240)),
            ("tcp_incoming_syn", self.tcp_incoming_syn, Duration::from_secs(6)),
            ("icmp", self.icmp, Duration::from_secs(60)),
        ];
        least.into_iter().find(|(_, value, least)| value < least).map(|(name, _, least)| (name, least))
    }

    /// Of a connection.
    #[inline]
    pub(crate) fn of(&self, number: u8, tcp: TcpState) -> Duration {
        match number {
            protocol::TCP => tcp.lifetime(self),
            protocol::UDP => self.udp,
            protocol::ICMP | protocol::ICMPV6 => self.icmp,
            _ => self.other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_meet_the_rfcs() {
        assert_eq!(Lifetimes::default().below_minimum(), None);
        let short = Lifetimes { udp: Duration::from_secs(119), ..Lifetimes::default() };
        assert_eq!(short.below_minimum(), Some(("udp", Duration::from_secs(120))));
    }
}
