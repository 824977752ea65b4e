//! Capture filters, in the words of tcpdump and Wireshark (a part of pcap-filter(7)).
//!
//! ```text
//! expression = [not] primitive { (and | or) [not] primitive }    and, or: same precedence, from left to right
//! primitive  = ( expression )
//!            | ip | ip6 | arp | tcp | udp | icmp | icmp6 | vlan [ID] | broadcast | multicast | less N | greater N
//!            | [ether] [src | dst] host MAC
//!            | [ip | ip6 | arp] [src | dst] [host | net] ADDRESS[/LENGTH]
//!            | [tcp | udp] [src | dst] port N | portrange N-M
//! ```
//!
//! A bare value takes the words of the one before it: `port 80 or 443`.

use std::{fmt, str::FromStr};

use ipnetwork::IpNetwork;

use crate::{Mac, Parsed, checksum::protocol, ethertype};

/// How deep an expression may go: a bound on the stack.
const DEEPEST: usize = 32;
/// How many words an expression may have: likewise.
const LONGEST: usize = 256;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(Node);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Not(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Kind(Kind),
    Vlan(Option<u16>),
    Broadcast,
    Multicast,
    /// This long at most, or at least.
    AtMost(usize),
    AtLeast(usize),
    Station(Side, Mac),
    Address(Option<Kind>, Side, IpNetwork),
    Ports(Option<Kind>, Side, u16, u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ether,
    Ip,
    Ip6,
    Arp,
    Tcp,
    Udp,
    Icmp,
    Icmp6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Either,
    Source,
    Destination,
}

impl Side {
    fn holds(self, source: bool, destination: bool) -> bool {
        match self {
            Self::Either => source || destination,
            Self::Source => source,
            Self::Destination => destination,
        }
    }
}

impl Kind {
    fn named(word: &str) -> Option<Self> {
        Some(match word {
            "ether" => Self::Ether,
            "ip" => Self::Ip,
            "ip6" => Self::Ip6,
            "arp" => Self::Arp,
            "tcp" => Self::Tcp,
            "udp" => Self::Udp,
            "icmp" => Self::Icmp,
            "icmp6" => Self::Icmp6,
            _ => return None,
        })
    }

    fn is_of(self, parsed: &Parsed) -> bool {
        let carries = |number: u8| parsed.ip.is_some_and(|ip| ip.protocol == number);
        match self {
            Self::Ether => true,
            Self::Ip => parsed.ethertype == ethertype::IPV4,
            Self::Ip6 => parsed.ethertype == ethertype::IPV6,
            Self::Arp => parsed.ethertype == ethertype::ARP,
            Self::Tcp => carries(protocol::TCP),
            Self::Udp => carries(protocol::UDP),
            Self::Icmp => carries(protocol::ICMP),
            Self::Icmp6 => carries(protocol::ICMPV6),
        }
    }
}

impl Filter {
    /// Whether a frame is wanted. One whose header is cut short matches nothing but `less` and negations.
    #[must_use]
    pub fn matches(&self, bytes: &[u8]) -> bool {
        self.0.matches(Parsed::new(bytes).as_ref(), bytes)
    }
}

impl Node {
    fn matches(&self, parsed: Option<&Parsed>, bytes: &[u8]) -> bool {
        match self {
            Self::Not(inner) => return !inner.matches(parsed, bytes),
            Self::And(one, other) => return one.matches(parsed, bytes) && other.matches(parsed, bytes),
            Self::Or(one, other) => return one.matches(parsed, bytes) || other.matches(parsed, bytes),
            Self::AtMost(length) => return bytes.len() <= *length,
            Self::AtLeast(length) => return bytes.len() >= *length,
            _ => {}
        }
        let Some(parsed) = parsed else { return false };
        match self {
            Self::Kind(kind) => kind.is_of(parsed),
            Self::Vlan(id) => parsed.vlans[..parsed.tags].iter().any(|tag| id.is_none_or(|id| tag.vid() == id)),
            Self::Broadcast => parsed.ethernet.destination == Mac::BROADCAST,
            Self::Multicast => parsed.ethernet.destination.is_group(),
            Self::Station(side, mac) => side.holds(parsed.ethernet.source == *mac, parsed.ethernet.destination == *mac),
            Self::Address(kind, side, net) => kind.is_none_or(|kind| kind.is_of(parsed)) && has_address(parsed, bytes, *side, *net),
            Self::Ports(kind, side, first, last) => {
                let is_in = |port: u16| (*first..=*last).contains(&port);
                kind.is_none_or(|kind| kind.is_of(parsed)) && parsed.l4_ports(bytes).is_some_and(|(from, to)| side.holds(is_in(from), is_in(to)))
            }
            Self::Not(_) | Self::And(..) | Self::Or(..) | Self::AtMost(_) | Self::AtLeast(_) => false,
        }
    }
}

fn has_address(parsed: &Parsed, bytes: &[u8], side: Side, net: IpNetwork) -> bool {
    if let Some(arp) = parsed.arp(bytes) {
        return side.holds(net.contains(arp.get_sender_proto_addr().into()), net.contains(arp.get_target_proto_addr().into()));
    }
    parsed.ip.is_some_and(|ip| side.holds(net.contains(ip.source), net.contains(ip.destination)))
}

/// Why a text is no filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadFilter(String);

impl fmt::Display for BadFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bad filter: {}", self.0)
    }
}

impl std::error::Error for BadFilter {}

fn bad<T>(why: impl Into<String>) -> Result<T, BadFilter> {
    Err(BadFilter(why.into()))
}

impl FromStr for Filter {
    type Err = BadFilter;

    fn from_str(text: &str) -> Result<Self, BadFilter> {
        let spaced = text.replace('(', " ( ").replace(')', " ) ").replace("&&", " and ").replace("||", " or ").replace('!', " not ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        if words.len() > LONGEST {
            return bad(format!("longer than {LONGEST} words"));
        }
        let mut reader = Reader { words: &words, said: None, depth: 0 };
        let node = reader.expression()?;
        match reader.next() {
            None => Ok(Self(node)),
            Some(word) => bad(format!("`{word}` is not expected there; want `and` or `or`")),
        }
    }
}

/// The words before a value.
#[derive(Clone, Copy, Debug)]
struct Said<'a> {
    kind: Option<Kind>,
    side: Side,
    what: Option<&'a str>,
}

struct Reader<'a> {
    words: &'a [&'a str],
    said: Option<Said<'a>>,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.words.first().copied()
    }

    fn next(&mut self) -> Option<&'a str> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }

    fn take(&mut self, word: &str) -> bool {
        let is_next = self.peek() == Some(word);
        self.words = &self.words[usize::from(is_next)..];
        is_next
    }

    fn expression(&mut self) -> Result<Node, BadFilter> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return bad("too deep");
        }
        let mut node = self.negated()?;
        loop {
            if self.take("and") {
                node = Node::And(Box::new(node), Box::new(self.negated()?));
            } else if self.take("or") {
                node = Node::Or(Box::new(node), Box::new(self.negated()?));
            } else {
                self.depth -= 1;
                return Ok(node);
            }
        }
    }

    fn negated(&mut self) -> Result<Node, BadFilter> {
        let mut is_negated = false;
        while self.take("not") {
            is_negated = !is_negated;
        }
        let node = self.primitive()?;
        Ok(if is_negated { Node::Not(Box::new(node)) } else { node })
    }

    fn primitive(&mut self) -> Result<Node, BadFilter> {
        let Some(first) = self.peek() else { return bad("it ends too early") };
        if self.take("(") {
            let node = self.expression()?;
            return if self.take(")") { Ok(node) } else { bad("`)` is missing") };
        }
        let alone = match first {
            "broadcast" => Some(Node::Broadcast),
            "multicast" => Some(Node::Multicast),
            _ => None,
        };
        if let Some(node) = alone {
            self.next();
            return Ok(node);
        }
        if self.take("vlan") {
            let id = self.peek().and_then(|word| word.parse().ok()).filter(|id: &u16| *id < 4096);
            self.words = &self.words[usize::from(id.is_some())..];
            return Ok(Node::Vlan(id));
        }
        if first == "less" || first == "greater" {
            self.next();
            let word = self.next().unwrap_or_default();
            let Ok(length) = word.parse() else { return bad(format!("`{first} {word}`: want a length in bytes")) };
            return Ok(if first == "less" { Node::AtMost(length) } else { Node::AtLeast(length) });
        }
        self.value()
    }

    /// A value with its words, or a protocol without one.
    fn value(&mut self) -> Result<Node, BadFilter> {
        let kind = self.peek().and_then(Kind::named);
        self.words = &self.words[usize::from(kind.is_some())..];
        let side = if self.take("src") {
            Some(Side::Source)
        } else if self.take("dst") {
            Some(Side::Destination)
        } else {
            None
        };
        let what = self.peek().filter(|word| matches!(*word, "host" | "net" | "port" | "portrange"));
        self.words = &self.words[usize::from(what.is_some())..];
        let is_end = self.peek().is_none_or(|word| matches!(word, "and" | "or" | ")"));
        match (kind, side, what) {
            (Some(kind), None, None) if is_end && kind != Kind::Ether => return Ok(Node::Kind(kind)),
            (None, None, None) => {}
            _ => self.said = Some(Said { kind, side: side.unwrap_or(Side::Either), what }),
        }
        let Some(word) = self.next() else { return bad("it ends too early: a host, net or port is missing") };
        let said = self.said.unwrap_or(Said { kind: None, side: Side::Either, what: None });
        node_of(said, word)
    }
}

fn node_of(said: Said<'_>, word: &str) -> Result<Node, BadFilter> {
    let Said { kind, side, what } = said;
    if matches!(what, Some("port" | "portrange")) {
        if !matches!(kind, None | Some(Kind::Tcp | Kind::Udp | Kind::Ip | Kind::Ip6)) {
            return bad(format!("port {word}: only tcp and udp have ports"));
        }
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let (Ok(first), Ok(last)) = (first.parse(), last.parse()) else { return bad(format!("`{word}` is not a port or a range of ports (80, 8000-8010)")) };
        return if first <= last { Ok(Node::Ports(kind, side, first, last)) } else { bad(format!("`{word}`: the range ends before it begins")) };
    }
    if let Ok(mac) = word.parse::<Mac>()
        && matches!(kind, None | Some(Kind::Ether))
    {
        return Ok(Node::Station(side, mac));
    }
    match word.parse::<IpNetwork>() {
        Ok(net) if matches!(kind, None | Some(Kind::Ip | Kind::Ip6 | Kind::Arp)) => Ok(Node::Address(kind, side, net)),
        Ok(_) => bad(format!("`{word}` is an address, which does not follow these words; want ip, ip6, arp, src, dst, host or net before it")),
        Err(_) => bad(format!("`{word}` is not understood; want for example `tcp port 80`, `host 10.0.0.2`, `not arp`")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 02:..:01 to 02:..:02, 10.0.0.1:4000 to 10.0.1.2:80, TCP.
    fn tcp() -> Vec<u8> {
        let mut frame = [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 1, 2][..], &4000_u16.to_be_bytes(), &80_u16.to_be_bytes()].concat();
        frame.resize(54, 0);
        frame
    }

    fn arp() -> Vec<u8> {
        [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 1, 2]].concat()
    }

    fn matches(text: &str, frame: &[u8]) -> bool {
        text.parse::<Filter>().unwrap().matches(frame)
    }

    #[test]
    fn wanted() {
        for text in [
            "tcp", "ip", "not udp", "port 80", "tcp port 80", "dst port 80", "src port 4000", "host 10.0.0.1", "10.0.0.1", "src host 10.0.0.1", "dst 10.0.1.2", "net 10.0.0.0/8",
            "portrange 70-90", "tcp and (port 22 or port 80)", "port 22 or 80", "! arp && ! port 22", "ether src 02:00:00:00:00:01", "ether host 02:00:00:00:00:02", "less 60", "greater 54",
            "ip host 10.0.0.1", "udp or tcp and dst port 80",
        ] {
            assert!(matches(text, &tcp()), "{text}");
        }
        for text in ["arp", "broadcast", "multicast", "host 10.0.1.2", "arp src 10.0.0.1", "not ip", "not tcp port 80"] {
            assert!(matches(text, &arp()), "{text}");
        }
    }

    #[test]
    fn unwanted() {
        for text in ["udp", "ip6", "not tcp", "src port 80", "udp port 80", "dst host 10.0.0.1", "net 10.0.1.0/30 and src net 10.0.1.0/30", "vlan", "broadcast", "less 53", "greater 55", "arp host 10.0.0.1", "tcp and port 22 or 23"] {
            assert!(!matches(text, &tcp()), "{text}");
        }
    }

    #[test]
    fn tags() {
        let mut tagged = tcp();
        tagged.splice(12..12, [0x81, 0, 0x20, 7]);
        assert!(matches("vlan 7 and tcp port 80", &tagged) && matches("vlan", &tagged) && !matches("vlan 8", &tagged));
    }

    #[test]
    fn errors_name_the_word() {
        for (text, name) in [
            ("", "too early"), ("tcp port", "missing"), ("tcp port x", "`x`"), ("port 90-80", "90-80"), ("bogus", "`bogus`"), ("host 10.0.0.1 10.0.0.2", "`10.0.0.2`"), ("( tcp", "`)`"),
            ("arp port 80", "only tcp and udp"), ("tcp host 10.0.0.1", "10.0.0.1"), ("less x", "less x"), ("port 80 and", "too early"),
        ] {
            let error = text.parse::<Filter>().unwrap_err().to_string();
            assert!(error.contains(name), "{text}: {error}");
        }
        assert!("(".repeat(10_000).parse::<Filter>().is_err());
        assert!("tcp and ".repeat(10_000).parse::<Filter>().is_err());
        assert!(format!("{}tcp", "not ".repeat(101)).parse::<Filter>().is_ok_and(|filter| !filter.matches(&tcp())));
    }

    proptest! {
        #[test]
        fn never_panics(text in "[a-z0-9 ./:()!&|-]{0,60}", bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(filter) = text.parse::<Filter>() {
                let negated = Filter(Node::Not(Box::new(filter.0.clone())));
                prop_assert_ne!(filter.matches(&bytes), negated.matches(&bytes));
            }
        }
    }
}
