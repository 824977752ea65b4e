//! Why a frame went no further. Every drop has a name and a counter.

packet::drop_reasons! {
    /// Why a frame went no further.
    DropReason,
    /// One counter per reason.
    DropCounters {
        Runt => "runt", "Shorter than an Ethernet header.";
        Oversize => "oversize", "Longer than any frame the switch carries.";
        BadOffload => "bad_offload", "The device's offload header contradicts the frame.";
        PortDown => "port_down", "The port it came in on is administratively down.";
        BadSource => "bad_source", "The source address is a group address or zero.";
        GuardMac => "guard_mac", "The source MAC is not the one assigned to the endpoint.";
        GuardIp => "guard_ip", "The source IP (or the ARP/NDP sender) is not assigned to the endpoint.";
        GuardRole => "guard_role", "A router advertisement or DHCP server reply from a sandbox port.";
        ReservedGroup => "reserved_group", "Destination 01-80-C2-00-00-0X, which a bridge does not forward.";
        VlanNotAllowed => "vlan_not_allowed", "The port is not a member of the frame's VLAN.";
        VlanMalformed => "vlan_malformed", "A VLAN tag cut short or with an identifier that cannot be forwarded.";
        Storm => "storm", "Flooded traffic above the port's storm limit.";
        NoOtherPort => "no_other_port", "Nobody else to flood to.";
        SamePort => "same_port", "The destination is behind the port it came from.";
        Isolated => "isolated", "Both ports are isolated or in one horizon group, or it is between a gateway and a port to others (a tunnel, a LAN).";
        EgressDown => "egress_down", "The port it should leave by is down.";
        TooBig => "too_big", "Longer than the MTU of the port it should leave by.";
        CannotSegment => "cannot_segment", "A super-frame whose headers do not allow cutting it.";
        EgressFull => "egress_full", "The queue of the port it should leave by is full.";
        NoBuffer => "no_buffer", "The buffer pool is empty.";
        GatewayMalformed => "gateway_malformed", "To the gateway, and not a whole IP or ARP packet.";
        GatewayNothing => "gateway_nothing", "To the gateway itself, which has nothing to say to it.";
        DhcpMalformed => "dhcp_malformed", "A DHCP message that is cut short, relayed, or about another station than it came from.";
        DhcpFull => "dhcp_full", "A DHCP client for which no address is left.";
        Martian => "martian", "A source address that cannot be behind this gateway.";
        TtlExpired => "ttl_expired", "No hops left, and no error may be sent about it, or too many were.";
        NoUplink => "no_uplink", "For the outside, with more waiting than the uplink takes.";
        Vip => "vip", "To or from a virtual address, and of no connection that can be had.";
        UnderlayMtu => "underlay_mtu", "A tunnel's datagram is longer than the path to the other node carries.";
        WriteFailed => "write_failed", "The device refused the frame.";
    }
}
