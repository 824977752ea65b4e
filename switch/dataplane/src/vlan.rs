//! 802.1Q membership: which VLAN a frame is in, and how it leaves.
//!
//! VLAN 0 stands for the domain of pass-through ports, which does not mix with VLAN-aware ones.

use packet::{EthernetView, Frame, ethertype};

use crate::{drop::DropReason, port::VlanMode};

/// A frame's VLAN and the tag it carries: the VLAN in the low bits, the tag above them with [`TAGGED`]. In
/// one word, since most frames are of none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Membership(u32);

const TAGGED: u32 = 1 << 15;

/// What an egress port does to the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TagEdit {
    Keep,
    Pop,
    Push(u16),
}

impl VlanMode {
    /// The VLAN of a frame that came in.
    ///
    /// # Errors
    /// The reason to drop it.
    #[inline]
    pub(crate) fn admit(&self, bytes: &[u8]) -> Result<Membership, DropReason> {
        if *self == Self::PassThrough {
            return Ok(Membership::NONE);
        }
        let ethernet = EthernetView::new(bytes).ok_or(DropReason::Runt)?;
        let tag = ethernet.ctag(bytes);
        if tag.is_none() && ethernet.ethertype == ethertype::CTAG {
            return Err(DropReason::VlanMalformed);
        }
        // VLAN id 0 is a priority tag: the frame is untagged as to membership (802.1Q 6.9).
        let vid = tag.map_or(0, |tci| tci & 0xfff);
        let vlan = match self {
            Self::PassThrough => Some(0),
            // A tag behind a priority tag would come to light where that is taken off, and put the
            // frame into a VLAN of the sender's choice.
            Self::Access(_) if tag.is_some() && bytes[16..18] == ethertype::CTAG.to_be_bytes() => None,
            Self::Access(vlan) => (vid == 0).then_some(vlan.get()),
            Self::Trunk { native, .. } if vid == 0 => native.map(packet::VlanId::get),
            Self::Trunk { allowed, native } => {
                let member = allowed.is_empty() || allowed.iter().any(|vlan| vlan.get() == vid) || native.is_some_and(|native| native.get() == vid);
                (member && vid != 0xfff).then_some(vid)
            }
            Self::Tagged(vlan) => return if vid == vlan.get() { Ok(Membership::NONE) } else { Err(DropReason::VlanNotAllowed) },
        };
        vlan.map(|vlan| Membership::new(vlan, tag)).ok_or(DropReason::VlanNotAllowed)
    }

    /// Takes the tag off that an admitted frame is not to keep.
    ///
    /// # Errors
    /// When there is no buffer for it: it is shared with a capture.
    #[inline]
    pub(crate) fn uncover(&self, frame: &mut Frame) -> Result<(), DropReason> {
        if let Self::Tagged(_) = self {
            if !frame.make_unique() {
                return Err(DropReason::NoBuffer);
            }
            frame.pop_tag();
        }
        Ok(())
    }

    /// Whether tags mean anything to the port.
    pub(crate) fn looks_at_tags(&self) -> bool {
        *self != Self::PassThrough
    }

    /// How a frame of `membership` leaves by a port of this mode; `None` when the port is no member.
    #[inline]
    pub(crate) fn egress(&self, membership: Membership) -> Option<TagEdit> {
        match self {
            Self::PassThrough => (membership.vlan() == 0).then_some(TagEdit::Keep),
            Self::Access(vlan) => (vlan.get() == membership.vlan()).then_some(membership.untag()),
            Self::Trunk { native: Some(native), .. } if native.get() == membership.vlan() => Some(membership.untag()),
            Self::Trunk { allowed, .. } => {
                let member = membership.vlan() != 0 && (allowed.is_empty() || allowed.iter().any(|vlan| vlan.get() == membership.vlan()));
                member.then_some(match membership.tag() {
                    Some(tci) if tci & 0xfff == membership.vlan() => TagEdit::Keep,
                    // A priority tag keeps its priority under the new id; it is rewritten in place.
                    Some(tci) => TagEdit::Push(tci & 0xf000 | membership.vlan()),
                    None => TagEdit::Push(membership.vlan()),
                })
            }
            Self::Tagged(vlan) => (membership.vlan() == 0).then_some(TagEdit::Push(vlan.get())),
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "parts of the word")]
impl Membership {
    /// Of frames whose tags nobody looks at.
    pub(crate) const NONE: Self = Self(0);

    fn new(vlan: u16, tag: Option<u16>) -> Self {
        Self(u32::from(vlan) | tag.map_or(0, |tci| u32::from(tci) << 16 | TAGGED))
    }

    /// 0 on pass-through ports.
    #[inline]
    pub(crate) const fn vlan(self) -> u16 {
        self.0 as u16 & 0xfff
    }

    /// Tag control information of the tag it came with, if the port looks at tags.
    const fn tag(self) -> Option<u16> {
        if self.0 & TAGGED == 0 { None } else { Some((self.0 >> 16) as u16) }
    }

    fn untag(self) -> TagEdit {
        if self.tag().is_some() { TagEdit::Pop } else { TagEdit::Keep }
    }

    /// Carries out an edit on a frame that is ours alone.
    #[cold]
    pub(crate) fn apply(self, edit: TagEdit, frame: &mut Frame) {
        match edit {
            TagEdit::Keep => {}
            TagEdit::Pop => {
                frame.pop_tag();
            }
            TagEdit::Push(tci) => {
                if self.tag().is_some() {
                    frame.pop_tag();
                }
                frame.push_tag(ethertype::CTAG, tci);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use packet::{Pool, PoolConfig, VlanId};

    use super::*;

    fn vlan(vid: u16) -> VlanId {
        VlanId::new(vid).unwrap()
    }

    fn frame(tag: Option<u16>) -> Vec<u8> {
        let mut bytes = vec![2; 12];
        if let Some(tci) = tag {
            bytes.extend([0x81, 0]);
            bytes.extend(tci.to_be_bytes());
        }
        bytes.extend([0x88, 0xb5]);
        bytes.extend([7; 46]);
        bytes
    }

    /// Sends a frame from a port of one mode to a port of another: the tag it leaves with, if it does.
    fn through(from: &VlanMode, to: &VlanMode, tag: Option<u16>) -> Result<Option<Option<u16>>, DropReason> {
        let bytes = frame(tag);
        let membership = from.admit(&bytes)?;
        let Some(edit) = to.egress(membership) else { return Ok(None) };
        let mut out = Pool::new(PoolConfig::default()).copy_of(&bytes).unwrap();
        from.uncover(&mut out)?;
        membership.apply(edit, &mut out);
        let view = EthernetView::new(out.bytes()).unwrap();
        let left_with = view.ctag(out.bytes());
        assert_eq!(out.bytes(), frame(left_with), "nothing but the tag changed");
        Ok(Some(left_with))
    }

    #[test]
    fn table() {
        let access = VlanMode::Access(vlan(10));
        let trunk = VlanMode::Trunk { allowed: vec![vlan(10), vlan(20)], native: None };
        let hybrid = VlanMode::Trunk { allowed: vec![], native: Some(vlan(10)) };
        let pass = VlanMode::PassThrough;
        let (tagged, other) = (VlanMode::Tagged(vlan(10)), VlanMode::Tagged(vlan(20)));
        let denied = Err(DropReason::VlanNotAllowed);
        for (from, to, tag, expected) in [
            (&access, &access, None, Ok(Some(None))),
            (&access, &trunk, None, Ok(Some(Some(10)))),
            (&access, &hybrid, None, Ok(Some(None))),
            (&access, &pass, None, Ok(None)),
            (&access, &access, Some(20), denied),
            (&access, &access, Some(10), denied),
            (&access, &access, Some(0x2000), Ok(Some(None))),
            (&access, &trunk, Some(0x2000), Ok(Some(Some(0x200a)))),
            (&trunk, &access, Some(0x200a), Ok(Some(None))),
            (&trunk, &access, Some(20), Ok(None)),
            (&trunk, &trunk, Some(0x6014), Ok(Some(Some(0x6014)))),
            (&trunk, &trunk, Some(30), denied),
            (&trunk, &trunk, None, denied),
            (&trunk, &hybrid, Some(10), Ok(Some(None))),
            (&hybrid, &trunk, None, Ok(Some(Some(10)))),
            (&hybrid, &trunk, Some(30), Ok(None)),
            (&pass, &pass, Some(30), Ok(Some(Some(30)))),
            (&pass, &access, None, Ok(None)),
            (&pass, &tagged, None, Ok(Some(Some(10)))),
            (&tagged, &pass, Some(0x200a), Ok(Some(None))),
            (&tagged, &pass, Some(20), denied),
            (&tagged, &pass, Some(0x2000), denied),
            (&tagged, &pass, None, denied),
            (&tagged, &access, Some(10), Ok(None)),
            (&access, &tagged, None, Ok(None)),
            (&tagged, &other, Some(10), Ok(Some(Some(20)))),
        ] {
            assert_eq!(through(from, to, tag), expected, "{from:?} -> {to:?} with tag {tag:?}");
        }
    }

    #[test]
    fn a_second_tag_does_not_hop_to_another_vlan() {
        let mut bytes = frame(Some(0x2000));
        bytes.splice(16..16, [0x81, 0, 0, 20]);
        assert_eq!(VlanMode::Access(vlan(10)).admit(&bytes), Err(DropReason::VlanNotAllowed));
        // In a tunnel of service tags it is payload.
        bytes[12..14].copy_from_slice(&[0x88, 0xa8]);
        assert_eq!(VlanMode::Access(vlan(10)).admit(&bytes), Ok(Membership::new(10, None)));
    }

    #[test]
    fn a_tag_cut_short_or_with_the_reserved_id_goes_nowhere() {
        let trunk = VlanMode::Trunk { allowed: vec![], native: Some(vlan(1)) };
        for length in 14..18 {
            assert_eq!(trunk.admit(&frame(Some(5))[..length]), Err(DropReason::VlanMalformed), "{length} bytes");
        }
        assert_eq!(trunk.admit(&frame(Some(0xfff))), Err(DropReason::VlanNotAllowed));
        for length in 0..14 {
            assert_eq!(trunk.admit(&frame(Some(5))[..length]), Err(DropReason::Runt));
        }
    }
}
