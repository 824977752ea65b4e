//! Congestion marks across the tunnel (RFC 6040). A field is the low two bits of the traffic class: 0 Not-ECT, 1 ECT(1),
//! 2 ECT(0), 3 CE.

use packet::{Frame, PacketMut, Parsed, Pool};

use crate::{drop::DropReason, own::own};

/// Not ECN-capable transport.
pub const NOT_ECT: u8 = 0;
/// ECN-capable transport, codepoint 1.
pub const ECT_1: u8 = 1;
/// ECN-capable transport, codepoint 0.
pub const ECT_0: u8 = 2;
/// Congestion experienced.
pub const CE: u8 = 3;

/// The field of the IP packet in `bytes`; [`NOT_ECT`] when there is none.
#[must_use]
pub fn of(parsed: &Parsed, bytes: &[u8]) -> u8 {
    let Some(ip) = parsed.ip else { return NOT_ECT };
    let class = if ip.source.is_ipv4() { bytes[ip.offset + 1] } else { bytes[ip.offset + 1] >> 4 };
    class & CE
}

/// The outer field at encapsulation, in normal mode: a copy (RFC 6040 section 4.1).
#[must_use]
pub const fn outer(inner: u8) -> u8 {
    inner & CE
}

/// The inner field after decapsulation (RFC 6040 section 4.2, figure 4); `None`: the packet is to be dropped, since
/// congestion was met and only a loss can tell its sender so.
#[must_use]
pub const fn combine(inner: u8, outer: u8) -> Option<u8> {
    match (inner & CE, outer & CE) {
        (NOT_ECT, CE) => None,
        (NOT_ECT, _) => Some(NOT_ECT),
        (CE, _) | (_, CE) => Some(CE),
        (ECT_1, _) | (_, ECT_1) => Some(ECT_1),
        (_, _) => Some(ECT_0),
    }
}

/// Brings the field of an inner frame in step with that of the datagram it came in; other payloads than IP bear no mark.
///
/// # Errors
/// `congestion_lost`; `no_buffer` when the frame is shared, must change, and cannot be copied.
pub(crate) fn mark(frame: &mut Frame, outer: u8, pool: &Pool) -> Result<(), DropReason> {
    // The others change nothing, whatever the inner field is.
    if !matches!(outer & CE, CE | ECT_1) {
        return Ok(());
    }
    let Some(parsed) = Parsed::new(frame.bytes()).filter(|parsed| parsed.ip.is_some()) else { return Ok(()) };
    let inner = of(&parsed, frame.bytes());
    let marked = combine(inner, outer).ok_or(DropReason::CongestionLost)?;
    if marked == inner {
        return Ok(());
    }
    own(frame, 0, 0, pool)?;
    if let Some(mut packet) = PacketMut::new(frame) {
        packet.set_ecn(marked);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use packet::{PoolConfig, checksum};

    use super::*;
    use crate::vtep::samples;

    /// Figure 4, row by row: inner Not-ECT, ECT(0), ECT(1), CE; columns the same for outer.
    #[test]
    fn decapsulation_follows_figure_4() {
        let order = [NOT_ECT, ECT_0, ECT_1, CE];
        let figure = [
            [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None],
            [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)],
            [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)],
            [Some(CE), Some(CE), Some(CE), Some(CE)],
        ];
        for (inner, row) in order.into_iter().zip(figure) {
            assert_eq!(outer(inner), inner);
            for (outer, wanted) in order.into_iter().zip(row) {
                assert_eq!(combine(inner, outer), wanted, "inner {inner} outer {outer}");
            }
        }
    }

    #[test]
    fn marks_reach_the_packet_and_its_checksum() {
        let pool = Pool::new(PoolConfig::default());
        for bytes in [samples::udp4(1, 2, &[3]), samples::udp6(1, 2, &[3])] {
            for (inner, outer) in (0..4).flat_map(|inner| (0..4).map(move |outer| (inner, outer))) {
                let mut frame = pool.copy_of(&bytes).unwrap();
                PacketMut::new(&mut frame).unwrap().set_ecn(inner);
                let marked = mark(&mut frame, outer, &pool);
                assert_eq!(marked.is_ok(), combine(inner, outer).is_some());
                if marked.is_ok() {
                    assert_eq!(Some(of(&Parsed::new(frame.bytes()).unwrap(), frame.bytes())), combine(inner, outer));
                    assert!(checksum::verify(frame.bytes()));
                }
            }
        }
    }

    #[test]
    fn what_is_not_ip_bears_no_mark() {
        let pool = Pool::new(PoolConfig::default());
        let bytes = samples::arp_request([10, 0, 0, 1], [10, 0, 0, 2]);
        let mut frame = pool.copy_of(&bytes).unwrap();
        assert_eq!(mark(&mut frame, CE, &pool), Ok(()));
        assert_eq!(frame.bytes(), bytes);
    }
}
