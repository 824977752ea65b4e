//! A packet in words: `tcp 172.17.0.2:4000 > 1.1.1.1:80 ttl 64 len 100 df`.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use crate::error::{Code, ControlError, Result};

/// What the packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// A SYN.
    Tcp,
    /// A datagram.
    Udp,
    /// An echo request, of ICMP or ICMPv6.
    Icmp,
}

/// A packet to tell the way of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What it carries.
    pub kind: ProbeKind,
    /// From where; the port is 0 for ICMP.
    pub source: SocketAddr,
    /// Where to.
    pub destination: SocketAddr,
    /// Hops it may take.
    pub ttl: u8,
    /// Payload, bytes.
    pub length: u16,
    /// It must not be fragmented (IPv4).
    pub df: bool,
}

impl FromStr for Probe {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |part: &str, what: &str| {
            ControlError::new(Code::Invalid, text, format!("{text:?}: {what}: {part:?}")).hint("want e.g. 'tcp 172.17.0.2:4000 > 1.1.1.1:80' or 'icmp fd00::2 > fd00::3', and behind it ttl N, len N, df")
        };
        let mut words = text.split_whitespace();
        let kind = match words.next() {
            Some("tcp") => ProbeKind::Tcp,
            Some("udp") => ProbeKind::Udp,
            Some("icmp" | "icmp6" | "ping") => ProbeKind::Icmp,
            other => return Err(bad(other.unwrap_or(""), "not tcp, udp or icmp")),
        };
        let end = |word: Option<&str>, what: &str| -> Result<SocketAddr> {
            let word = word.unwrap_or("");
            match kind {
                ProbeKind::Icmp => word.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0)).map_err(|_| bad(word, &format!("the {what} is not an address"))),
                ProbeKind::Tcp | ProbeKind::Udp => match word.parse::<SocketAddr>() {
                    Ok(end) if end.port() == 0 => Err(bad(word, &format!("the {what} has port 0, which no packet has"))),
                    end => end.map_err(|_| bad(word, &format!("the {what} is not ADDRESS:PORT"))),
                },
            }
        };
        let source = end(words.next(), "source")?;
        let arrow = words.next().unwrap_or("");
        if arrow != ">" {
            return Err(bad(arrow, "no > between source and destination"));
        }
        let destination = end(words.next(), "destination")?;
        if source.is_ipv4() != destination.is_ipv4() {
            return Err(bad(&destination.ip().to_string(), "source and destination are of different families"));
        }
        let mut probe = Self { kind, source, destination, ttl: 64, length: 0, df: false };
        while let Some(word) = words.next() {
            match word {
                "df" => probe.df = true,
                "ttl" => probe.ttl = number(words.next()).filter(|ttl| *ttl > 0).ok_or_else(|| bad(word, "ttl wants a number from 1 to 255"))?,
                "len" => probe.length = number(words.next()).filter(|length| *length <= 60_000).ok_or_else(|| bad(word, "len wants a number to 60000"))?,
                other => return Err(bad(other, "not ttl, len or df")),
            }
        }
        Ok(probe)
    }
}

fn number<T: FromStr>(word: Option<&str>) -> Option<T> {
    word?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let probe: Probe = "tcp 172.17.0.2:4000 > 1.1.1.1:80 ttl 3 len 100 df".parse().unwrap();
        assert_eq!((probe.kind, probe.ttl, probe.length, probe.df, probe.destination.port()), (ProbeKind::Tcp, 3, 100, true, 80));
        assert!("udp [fd00::2]:1 > [fd00::3]:2".parse::<Probe>().is_ok() && "icmp 10.0.0.2 > 10.0.0.3".parse::<Probe>().is_ok());
    }

    #[test]
    fn each_error_names_its_part() {
        for (text, part) in [
            ("", "\"\""),
            ("sctp 1.1.1.1:1 > 2.2.2.2:2", "sctp"),
            ("tcp 1.1.1.1 > 2.2.2.2:2", "1.1.1.1"),
            ("tcp 1.1.1.1:1 2.2.2.2:2", "2.2.2.2:2"),
            ("icmp 1.1.1.1 > 2.2.2.2:2", "2.2.2.2:2"),
            ("icmp 1.1.1.1 > fd00::1", "families"),
            ("icmp 1.1.1.1 > 2.2.2.2 ttl 300", "ttl"),
            ("icmp 1.1.1.1 > 2.2.2.2 ttl 0", "ttl"),
            ("icmp 1.1.1.1 > 2.2.2.2 ttl", "ttl"),
            ("icmp 1.1.1.1 > 2.2.2.2 now", "now"),
            ("1.1.1.1 2.2.2.2", "1.1.1.1"),
            ("hello", "hello"),
            ("tcp", "source"),
            ("udp 1.1.1.1:0 > 2.2.2.2:2", "port 0"),
            ("udp 1.1.1.1:1 > 2.2.2.2:0", "port 0"),
        ] {
            let error = text.parse::<Probe>().unwrap_err();
            assert!(error.message.contains(part), "{text}: {}", error.message);
        }
    }
}
