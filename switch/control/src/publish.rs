//! Published ports: the grammar of `docker run -p` and what it means.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::error::{Code, ControlError, Result};

/// TCP or UDP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// One port of the host that leads to one port of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Where the host listens; everywhere, over both families, when missing.
    pub host_ip: Option<IpAddr>,
    /// The host's port.
    pub host_port: u16,
    /// The sandbox's port.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// What was asked for: like [`Published`], but the host's port is one of several, or any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishRequest {
    /// Where the host listens.
    pub host_ip: Option<IpAddr>,
    /// First and last of the ports to choose from; `None` means any.
    pub host_ports: Option<(u16, u16)>,
    /// The sandbox's port.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

impl fmt::Display for PublishRequest {
    /// As [`parse`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            Some(ip @ IpAddr::V6(_)) => write!(f, "[{ip}]:")?,
            Some(ip) => write!(f, "{ip}:")?,
            None => {}
        }
        match self.host_ports {
            Some((first, last)) if first == last => write!(f, "{first}:")?,
            Some((first, last)) => write!(f, "{first}-{last}:")?,
            None if self.host_ip.is_some() => f.write_str(":")?,
            None => {}
        }
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

impl PublishRequest {
    /// Whether that is what was asked for, as far as it was said.
    #[must_use]
    pub fn is_met_by(&self, published: &Published) -> bool {
        published.port == self.port
            && published.protocol == self.protocol
            && self.host_ip.is_none_or(|ip| published.host_ip == Some(ip))
            && self.host_ports.is_none_or(|(first, last)| (first..=last).contains(&published.host_port))
    }
}

/// Reads `[ip:][host[-end]]:ctr[-end][/proto]` or `ctr[-end][/proto]`; IPv6 addresses in brackets.
///
/// # Errors
/// Naming the part that is wrong.
pub fn parse(spec: &str) -> Result<Vec<PublishRequest>> {
    let bad = |part: &str, what: &str| ControlError::new(Code::Invalid, spec, format!("-p {spec}: {what}: {part:?}")).hint("want [IP:][HOST[-END]]:PORT[-END][/tcp|udp]");
    let (rest, protocol) = match spec.rsplit_once('/') {
        None => (spec, Protocol::Tcp),
        Some((rest, word)) if word.eq_ignore_ascii_case("tcp") => (rest, Protocol::Tcp),
        Some((rest, word)) if word.eq_ignore_ascii_case("udp") => (rest, Protocol::Udp),
        Some((_, word)) if word.eq_ignore_ascii_case("sctp") => return Err(bad("sctp", "SCTP cannot be published: host sockets carry TCP and UDP")),
        Some((_, other)) => return Err(bad(other, "unknown protocol")),
    };
    let (head, inside) = rest.rsplit_once(':').map_or((None, rest), |(head, inside)| (Some(head), inside));
    let (host_ip, host) = match head {
        None => (None, ""),
        Some(head) => match head.strip_prefix('[') {
            Some(bracketed) => {
                let (ip, host) = bracketed.split_once(']').ok_or_else(|| bad(head, "no closing bracket"))?;
                let host = if host.is_empty() { "" } else { host.strip_prefix(':').ok_or_else(|| bad(host, "want a colon behind the address"))? };
                (Some(ip), host)
            }
            None => match head.rsplit_once(':') {
                Some((ip, host)) => (Some(ip), host),
                // `127.0.0.1::80` has two colons; one word is a port unless it looks like an address.
                None if head.contains('.') => return Err(bad(head, "an address needs a host port, or an empty one (IP::PORT)")),
                None => (None, head),
            },
        },
    };
    let host_ip = host_ip.map(|ip| ip.parse::<IpAddr>().map_err(|_| bad(ip, "invalid IP address"))).transpose()?;
    let range = |word: &str, what: &str| -> Result<(u16, u16)> {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let number = |digits: &str| digits.parse::<u16>().ok().filter(|port| *port > 0 && !digits.starts_with('+')).ok_or_else(|| bad(digits, what));
        let (first, last) = (number(first)?, number(last)?);
        if first <= last { Ok((first, last)) } else { Err(bad(word, "the range ends before it begins")) }
    };
    let (first, last) = range(inside, "invalid containerPort")?;
    let host = if host.is_empty() { None } else { Some(range(host, "invalid hostPort")?) };
    let count = last - first;
    match host {
        Some((from, to)) if count > 0 && to - from != count => Err(bad(spec, "the ranges differ in length")),
        Some((from, _)) if count > 0 => Ok((0..=count).map(|at| PublishRequest { host_ip, host_ports: Some((from + at, from + at)), port: first + at, protocol }).collect()),
        host_ports => Ok((first..=last).map(|port| PublishRequest { host_ip, host_ports, port, protocol }).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(spec: &str) -> (Option<String>, Option<(u16, u16)>, u16, Protocol) {
        let all = parse(spec).unwrap();
        assert_eq!(all.len(), 1, "{spec}");
        (all[0].host_ip.map(|ip| ip.to_string()), all[0].host_ports, all[0].port, all[0].protocol)
    }

    #[test]
    fn the_grammar_of_docker() {
        assert_eq!(one("80"), (None, None, 80, Protocol::Tcp));
        assert_eq!(one("8080:80"), (None, Some((8080, 8080)), 80, Protocol::Tcp));
        assert_eq!(one("53:53/udp"), (None, Some((53, 53)), 53, Protocol::Udp));
        assert_eq!(one("192.168.64.100:5555:80"), (Some("192.168.64.100".into()), Some((5555, 5555)), 80, Protocol::Tcp));
        assert_eq!(one("127.0.0.1::80"), (Some("127.0.0.1".into()), None, 80, Protocol::Tcp));
        assert_eq!(one("[::1]:8080:80"), (Some("::1".into()), Some((8080, 8080)), 80, Protocol::Tcp));
        assert_eq!(one("[::1]::80"), (Some("::1".into()), None, 80, Protocol::Tcp));
        assert_eq!(one("8000-8010:80"), (None, Some((8000, 8010)), 80, Protocol::Tcp));
        let range = parse("9000-9010:7000-7010/udp").unwrap();
        assert_eq!((range.len(), range[10].host_ports, range[10].port), (11, Some((9010, 9010)), 7010));
        assert_eq!(parse("7000-7002").unwrap().len(), 3);
    }

    #[test]
    fn each_error_names_the_part() {
        for (spec, part) in [
            ("", "\"\""),
            ("x:80", "hostPort: \"x\""),
            ("80:x", "containerPort: \"x\""),
            ("70000:80", "70000"),
            ("80:0", "containerPort: \"0\""),
            ("80:80/icmp", "icmp"),
            ("80:80/sctp", "SCTP"),
            ("1.2.3:80:80", "1.2.3"),
            ("1.2.3.4:80", "1.2.3.4"),
            ("[::1:80:80", "bracket"),
            ("9-8:80", "9-8"),
            ("8000-8001:80-90", "differ"),
        ] {
            let error = parse(spec).unwrap_err().message;
            assert!(error.contains(part), "{spec}: {error}");
        }
    }
}
