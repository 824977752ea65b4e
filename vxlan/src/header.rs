//! The VXLAN header (RFC 7348 section 5), eight bytes behind the outer UDP header:
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |R|R|R|R|I|R|R|R|            Reserved                           |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                VXLAN Network Identifier (VNI) |   Reserved    |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use packet::Vni;

use crate::drop::DropReason;

/// Length of the header, bytes.
pub const HEADER_LEN: usize = 8;

/// The VNI is valid.
const FLAG_VNI: u8 = 0x08;
/// E of [`crypt`](crate::crypt): what follows is encrypted. Reserved by all drafts, and sent without I.
const FLAG_SEALED: u8 = 0x40;
/// G of draft-smith-vxlan-group-policy: the reserved field holds a policy we would not enforce.
const FLAG_GROUP_POLICY: u8 = 0x80;
/// P of draft-ietf-nvo3-vxlan-gpe: the payload need not be Ethernet.
const FLAG_NEXT_PROTOCOL: u8 = 0x04;

/// The header that goes before a frame of `vni`; all reserved bits are zero.
#[must_use]
pub const fn emit(vni: Vni) -> [u8; HEADER_LEN] {
    let [_, high, middle, low] = vni.get().to_be_bytes();
    [FLAG_VNI, 0, 0, 0, high, middle, low, 0]
}

/// The header that goes before what is encrypted.
pub(crate) const fn emit_sealed(vni: Vni) -> [u8; HEADER_LEN] {
    let mut header = emit(vni);
    header[0] = FLAG_SEALED;
    header
}

/// Whether what follows claims to be encrypted.
pub(crate) fn is_sealed(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|flags| flags & (FLAG_SEALED | FLAG_VNI) == FLAG_SEALED)
}

/// The VNI of a datagram's payload. Reserved bits are ignored.
///
/// # Errors
/// `short`, `bad_flags` without the I flag (nor that of [`crypt`](crate::crypt)), `group_policy` or `generic_protocol` for the two extensions that change
/// what the bytes mean.
pub fn parse(datagram: &[u8]) -> Result<Vni, DropReason> {
    let &[flags, _, _, _, high, middle, low, _] = datagram.first_chunk::<HEADER_LEN>().ok_or(DropReason::Short)?;
    if flags & FLAG_VNI == 0 && !is_sealed(datagram) {
        return Err(DropReason::BadFlags);
    }
    if flags & FLAG_GROUP_POLICY != 0 {
        return Err(DropReason::GroupPolicy);
    }
    if flags & FLAG_NEXT_PROTOCOL != 0 {
        return Err(DropReason::GenericProtocol);
    }
    Vni::new(u32::from_be_bytes([0, high, middle, low])).ok_or(DropReason::BadFlags)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_are_those_of_the_figure() {
        assert_eq!(emit(Vni::new(0x12_3456).unwrap()), [0x08, 0, 0, 0, 0x12, 0x34, 0x56, 0]);
        assert_eq!(emit(Vni::new(0).unwrap()), [0x08, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(emit(Vni::new(0xff_ffff).unwrap()), [0x08, 0, 0, 0, 0xff, 0xff, 0xff, 0]);
        assert_eq!(parse(&[0x08, 0, 0, 0, 0, 0, 42, 0]), Ok(Vni::new(42).unwrap()));
    }

    /// Each of the 64 bits alone turned round in a good header.
    #[test]
    fn every_bit_means_what_the_rfc_says() {
        let vni = Vni::new(0xa5_5a0f).unwrap();
        for bit in 0..64_usize {
            let mut header = emit(vni);
            let mask = 0x80 >> (bit % 8);
            header[bit / 8] ^= mask;
            let wanted = match bit {
                0 => Err(DropReason::GroupPolicy),
                4 => Err(DropReason::BadFlags),
                5 => Err(DropReason::GenericProtocol),
                32..=55 => Ok(Vni::new(vni.get() ^ 1 << (55 - bit)).unwrap()),
                _ => Ok(vni),
            };
            assert_eq!(parse(&header), wanted, "bit {bit}");
        }
    }

    #[test]
    fn every_cut_is_short() {
        let header = emit(Vni::new(7).unwrap());
        for length in 0..HEADER_LEN {
            assert_eq!(parse(&header[..length]), Err(DropReason::Short));
        }
    }

    proptest! {
        #[test]
        fn vni_round_trips(vni in 0_u32..1 << 24, behind in proptest::collection::vec(any::<u8>(), 0..40)) {
            let vni = Vni::new(vni).unwrap();
            prop_assert_eq!(parse(&[&emit(vni)[..], &behind].concat()), Ok(vni));
        }
    }
}
