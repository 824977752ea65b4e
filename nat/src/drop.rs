//! Why a packet was not translated.

packet::drop_reasons! {
    /// Why a packet was not translated. Each is counted by name.
    NatDrop,
    /// One counter per reason.
    NatDrops {
        Malformed => "malformed", "its lengths lie, a port is zero, or the checksum of an ICMP error is wrong";
        Unsupported => "unsupported", "this kind of ICMP has no place in translation";
        TinyFragment => "tiny_fragment", "the fragment cuts through the TCP or UDP header (RFC 1858)";
        FragmentOrphan => "fragment_orphan", "the first fragment of its datagram did not come, or too many wait";
        Martian => "martian", "no router forwards from or to such an address, networks do not reach each other without a route, and inside addresses do not come from outside";
        NoConnection => "no_connection", "it belongs to no connection, and does not open one";
        NoMapping => "no_mapping", "nobody has that external port: it is neither published nor used by a flow from inside";
        Filtered => "filtered", "the port is in use, but its preset does not let this sender in";
        IcmpQuote => "icmp_quote", "the ICMP error quotes no packet of ours, or rubbish";
        Clash => "clash", "another connection has the same two ends already";
        NoExternal => "no_external", "the uplink has no address of this family";
        PortsExhausted => "ports_exhausted", "all external ports of the address are taken";
        Quota => "quota", "the sandbox has as many ports or connections as it may";
        Full => "full", "the table is full of connections that do not give way";
        NotOurs => "not_ours", "the address is not ours to translate";
        NoBuffer => "no_buffer", "there is no buffer to rewrite it in";
        NoEndpoint => "no_endpoint", "no endpoint of the service is there";
    }
}

impl NatDrop {
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
