//! Why a packet was not translated.

/// Each is counted by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub enum NatDrop {
    /// Lengths that lie, ports of zero, wrong checksums of ICMP errors.
    Malformed,
    /// A kind of ICMP that has no place in translation.
    Unsupported,
    /// A fragment that cuts through an L4 header (RFC 1858).
    TinyFragment,
    /// A later fragment whose first did not come, or too many of them.
    FragmentOrphan,
    /// An address that no router forwards from or to, or an inside one from outside.
    Martian,
    /// A segment or reply of no connection.
    NoConnection,
    /// From outside, to an external port that nobody has.
    NoMapping,
    /// From outside, to a mapping that does not admit its source.
    Filtered,
    /// An ICMP error about no packet of ours, or one that quotes rubbish.
    IcmpQuote,
    /// Two connections would be one.
    Clash,
    /// No external address of the family.
    NoExternal,
    /// All external ports of an address are taken.
    PortsExhausted,
    /// A sandbox has as many ports or connections as it may.
    Quota,
    /// The table is full of connections that do not give way.
    Full,
    /// To an address that is not ours to translate.
    NotOurs,
    /// No buffer to rewrite it in.
    NoBuffer,
    /// To a virtual address that nobody answers for.
    NoEndpoint,
}

impl NatDrop {
    /// All reasons, in order.
    pub const ALL: [Self; 17] = [
        Self::Malformed,
        Self::Unsupported,
        Self::TinyFragment,
        Self::FragmentOrphan,
        Self::Martian,
        Self::NoConnection,
        Self::NoMapping,
        Self::Filtered,
        Self::IcmpQuote,
        Self::Clash,
        Self::NoExternal,
        Self::PortsExhausted,
        Self::Quota,
        Self::Full,
        Self::NotOurs,
        Self::NoBuffer,
        Self::NoEndpoint,
    ];

    /// Its name in counters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unsupported => "unsupported",
            Self::TinyFragment => "tiny_fragment",
            Self::FragmentOrphan => "fragment_orphan",
            Self::Martian => "martian",
            Self::NoConnection => "no_connection",
            Self::NoMapping => "no_mapping",
            Self::Filtered => "filtered",
            Self::IcmpQuote => "icmp_quote",
            Self::Clash => "clash",
            Self::NoExternal => "no_external",
            Self::PortsExhausted => "ports_exhausted",
            Self::Quota => "quota",
            Self::Full => "full",
            Self::NotOurs => "not_ours",
            Self::NoBuffer => "no_buffer",
            Self::NoEndpoint => "no_endpoint",
        }
    }

    /// Why, for people.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Malformed => "its lengths lie, a port is zero, or the checksum of an ICMP error is wrong",
            Self::Unsupported => "this kind of ICMP has no place in translation",
            Self::TinyFragment => "the fragment cuts through the TCP or UDP header (RFC 1858)",
            Self::FragmentOrphan => "the first fragment of its datagram did not come, or too many wait",
            Self::Martian => "no router forwards from or to such an address, networks do not reach each other without a route, and inside addresses do not come from outside",
            Self::NoConnection => "it belongs to no connection, and does not open one",
            Self::NoMapping => "nobody has that external port: it is neither published nor used by a flow from inside",
            Self::Filtered => "the port is in use, but its preset does not let this sender in",
            Self::IcmpQuote => "the ICMP error quotes no packet of ours, or rubbish",
            Self::Clash => "another connection has the same two ends already",
            Self::NoExternal => "the uplink has no address of this family",
            Self::PortsExhausted => "all external ports of the address are taken",
            Self::Quota => "the sandbox has as many ports or connections as it may",
            Self::Full => "the table is full of connections that do not give way",
            Self::NotOurs => "the address is not ours to translate",
            Self::NoEndpoint => "no endpoint of the service is there",
            Self::NoBuffer => "there is no buffer to rewrite it in",
        }
    }

    /// Code of the "destination unreachable" that its sender is told, if he is (RFC 5508 REQ-8: 13,
    /// administratively prohibited, when a flow cannot be had; RFC 1812 5.2.7.1: 0, no way there; 3, nobody listens).
    #[must_use]
    pub const fn unreachable_code(self) -> Option<u8> {
        match self {
            Self::PortsExhausted | Self::Quota | Self::Full => Some(13),
            Self::NoExternal => Some(0),
            Self::NoEndpoint => Some(3),
            _ => None,
        }
    }
}

/// Counters of reasons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatDrops([u64; NatDrop::ALL.len()]);

impl NatDrops {
    /// Counts.
    pub fn count(&mut self, reason: NatDrop, count: u64) {
        self.0[reason as usize] += count;
    }

    /// How often a reason was met.
    #[must_use]
    pub const fn get(&self, reason: NatDrop) -> u64 {
        self.0[reason as usize]
    }

    /// Those that were met.
    pub fn iter(&self) -> impl Iterator<Item = (NatDrop, u64)> {
        NatDrop::ALL.into_iter().map(|reason| (reason, self.get(reason))).filter(|(_, count)| *count > 0)
    }
}
