//! Just enough TCP to choose a lifetime (RFC 6146 section 3.5.2, RFC 7857 section 2).
//!
//! ```text
//! SYN one way -> opening (transitory; 6 s when it came from outside)
//! SYN both ways -> established -> FIN both ways -> closing (transitory)
//! RST in any -> reset (transitory), taken back by whatever is not a RST
//! ```

use packet::Duration;

use crate::{lifetime::Lifetimes, tuple::Direction};

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// What was seen of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TcpState {
    syn: [bool; 2],
    fin: [bool; 2],
    reset: bool,
}

impl TcpState {
    /// A segment with `flags` passed.
    pub(crate) fn segment(&mut self, direction: Direction, flags: u8) {
        let way = direction as usize;
        if flags & RST != 0 {
            self.reset = true;
            return;
        }
        // A closed connection's ends may be used again.
        if flags & (SYN | ACK) == SYN && self.is_over() {
            *self = Self::default();
        }
        self.reset = false;
        self.syn[way] |= flags & SYN != 0;
        self.fin[way] |= flags & FIN != 0;
    }

    pub(crate) fn is_established(self) -> bool {
        self.syn == [true; 2] && !self.reset && !self.is_closing()
    }

    pub(crate) fn is_closing(self) -> bool {
        self.fin == [true; 2]
    }

    /// Closed or reset: its ends may be used again.
    pub(crate) fn is_over(self) -> bool {
        self.reset || self.is_closing()
    }

    pub(crate) fn lifetime(self, lifetimes: &Lifetimes) -> Duration {
        if self.is_established() {
            lifetimes.tcp_established
        } else if self.syn == [false, true] && !self.reset {
            lifetimes.tcp_incoming_syn
        } else {
            lifetimes.tcp_transitory
        }
    }

    /// As `conntrack -L` names states.
    pub(crate) fn name(self) -> &'static str {
        match (self.reset, self.syn, self.fin) {
            (true, _, _) => "CLOSE",
            (_, _, [true, true]) => "TIME_WAIT",
            (_, [true, true], [false, false]) => "ESTABLISHED",
            (_, [true, true], _) => "FIN_WAIT",
            (_, [true, false], _) => "SYN_SENT",
            (_, _, _) => "SYN_RECV",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tuple::Direction::{In, Out};

    fn after(segments: &[(Direction, u8)]) -> TcpState {
        let mut state = TcpState::default();
        segments.iter().for_each(|&(direction, flags)| state.segment(direction, flags));
        state
    }

    #[test]
    fn opens_and_closes() {
        let open = [(Out, SYN), (In, SYN | ACK), (Out, ACK)];
        assert_eq!(after(&open[..1]).name(), "SYN_SENT");
        assert_eq!(after(&open).name(), "ESTABLISHED");
        assert_eq!(after(&[&open[..], &[(Out, FIN | ACK)]].concat()).name(), "FIN_WAIT");
        assert!(after(&[&open[..], &[(Out, FIN | ACK)]].concat()).is_established());
        assert_eq!(after(&[&open[..], &[(Out, FIN), (In, FIN)]].concat()).name(), "TIME_WAIT");
    }

    #[test]
    fn a_reset_may_be_forged() {
        let open = [(Out, SYN), (In, SYN | ACK), (In, RST)];
        assert_eq!(after(&open).name(), "CLOSE");
        assert_eq!(after(&[&open[..], &[(Out, ACK)]].concat()).name(), "ESTABLISHED");
    }

    #[test]
    fn closed_ends_open_again() {
        assert_eq!(after(&[(Out, SYN), (In, SYN), (Out, FIN), (In, FIN), (Out, SYN)]).name(), "SYN_SENT");
    }
}
