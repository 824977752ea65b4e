//! Why a frame or a datagram was not passed on. Every drop has a name and is counted once.

packet::drop_reasons! {
    /// Why a frame or a datagram was dropped.
    DropReason,
    /// One counter per reason.
    Drops {
        Short => "short", "A datagram shorter than a VXLAN header.";
        BadFlags => "bad_flags", "A VXLAN header without the I flag.";
        GroupPolicy => "group_policy", "A header with the group policy extension (VXLAN-GBP).";
        GenericProtocol => "generic_protocol", "A header with the generic protocol extension (VXLAN-GPE).";
        UnknownVni => "unknown_vni", "A VNI that this endpoint does not serve.";
        UnknownRemote => "unknown_remote", "From an address that is no peer of the VNI, or can be no host's.";
        ClearText => "clear_text", "A clear datagram for a VNI that is encrypted.";
        Sealed => "sealed", "An encrypted datagram for a VNI that is not.";
        NoKey => "no_key", "No key for the epoch of an encrypted datagram, or none to encrypt with.";
        KeySpent => "key_spent", "A session has sent as many datagrams to a node as its key is good for.";
        BadTag => "bad_tag", "An encrypted datagram that was changed, is for another node, or was made with another secret.";
        Replayed => "replayed", "An encrypted datagram that was seen before, or is too old to tell.";
        InnerRunt => "inner_runt", "The inner frame is shorter than its Ethernet header and tags.";
        BadInnerSource => "bad_inner_source", "The inner source is a group address or zero.";
        InnerVlan => "inner_vlan", "The inner frame is tagged and the VNI does not allow that (RFC 7348 section 6.1).";
        Looped => "looped", "From the underlay, with the gateway's address as its source, which every node has.";
        LocalSource => "local_source", "From the underlay, with the address of a station that lives on this node as its source.";
        ForgedNeighbour => "forged_neighbour", "ARP or neighbour discovery from the underlay, for an IP address of the gateway or of a station on this node.";
        CongestionLost => "congestion_lost", "The underlay marked congestion on a packet that cannot bear the mark (RFC 6040 section 4.2).";
        NoRemote => "no_remote", "No remote endpoint is known for the destination, nor is there a peer to flood to.";
        TooBig => "too_big", "Longer than the MTU of the VNI; an endpoint does not fragment (RFC 7348 section 4.3).";
        CannotSegment => "cannot_segment", "A super-frame whose headers do not allow cutting it.";
        NoBuffer => "no_buffer", "The buffer pool is empty.";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_snake_case_and_counted_apart() {
        let mut drops = Drops::default();
        for (times, reason) in DropReason::ALL.iter().enumerate() {
            assert!(reason.name().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{}", reason.name());
            assert!(reason.describe().ends_with('.'));
            (0..times).for_each(|_| drops.count(*reason));
        }
        let mut seen: Vec<_> = drops.all().map(|(reason, count)| (reason.name(), count)).collect();
        assert!(seen.iter().enumerate().all(|(times, (_, count))| *count == times as u64));
        assert_eq!(drops.total(), seen.iter().map(|(_, count)| count).sum::<u64>());
        seen.sort_unstable();
        seen.dedup_by_key(|(name, _)| *name);
        assert_eq!(seen.len(), DropReason::ALL.len());
    }
}
