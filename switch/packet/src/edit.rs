//! Edits of a frame in place: Ethernet addresses and tags, whatever it carries.

use crate::{
    frame::Frame,
    mac::Mac,
    offload::{Checksum, Offload},
    parsed::{ETHERNET_LEN, TAG_LEN},
};

/// [`TAG_LEN`] as offsets count.
const TAG_STEP: u16 = 4;

impl Frame {
    /// Writes the destination address. False (and no change) when the frame is cut short there.
    ///
    /// # Panics
    /// When the frame is shared.
    pub fn set_destination_mac(&mut self, mac: Mac) -> bool {
        self.bytes_mut().get_mut(0..6).map(|field| field.copy_from_slice(&mac.0)).is_some()
    }

    /// Writes the source address. False (and no change) when the frame is cut short there.
    ///
    /// # Panics
    /// When the frame is shared.
    pub fn set_source_mac(&mut self, mac: Mac) -> bool {
        self.bytes_mut().get_mut(6..12).map(|field| field.copy_from_slice(&mac.0)).is_some()
    }

    /// Puts an 802.1Q tag right behind the addresses. False (and no change) when the frame is
    /// shorter than an Ethernet header or the headroom is used up.
    ///
    /// # Panics
    /// When the frame is shared.
    pub fn push_tag(&mut self, tpid: u16, tci: u16) -> bool {
        if self.len() < ETHERNET_LEN || self.headroom() < TAG_LEN {
            return false;
        }
        self.move_checksum(|start| start.checked_add(TAG_STEP));
        self.push(TAG_LEN);
        let bytes = self.bytes_mut();
        bytes.copy_within(TAG_LEN..TAG_LEN + 12, 0);
        bytes[12..14].copy_from_slice(&tpid.to_be_bytes());
        bytes[14..16].copy_from_slice(&tci.to_be_bytes());
        true
    }

    /// Takes the tag behind the addresses off. False (and no change) when the frame is too short.
    ///
    /// # Panics
    /// When the frame is shared.
    pub fn pop_tag(&mut self) -> bool {
        if self.len() < ETHERNET_LEN + TAG_LEN {
            return false;
        }
        self.move_checksum(|start| start.checked_sub(TAG_STEP).filter(|&start| usize::from(start) >= ETHERNET_LEN));
        self.bytes_mut().copy_within(0..12, TAG_LEN);
        self.pull(TAG_LEN);
        true
    }

    /// A checksum that starts within the Ethernet header or beyond what a virtio header can say is a
    /// lie. The edit must happen all the same, lest a liar's frame keep a tag that keeps VLANs
    /// apart; so the lie is dropped, and the bytes go on as they are.
    fn move_checksum(&mut self, to: impl FnOnce(u16) -> Option<u16>) {
        if let Checksum::Partial { start, .. } = &mut self.offload.checksum {
            match to(*start) {
                Some(moved) => *start = moved,
                None => self.offload = Offload::NONE,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Gso, Pool, PoolConfig};

    #[test]
    fn a_tag_comes_and_goes() {
        let pool = Pool::new(PoolConfig::default());
        let bytes: Vec<u8> = (0..60).collect();
        let mut frame = pool.copy_of(&bytes).unwrap();
        assert!(frame.push_tag(0x8100, 7));
        assert_eq!(&frame.bytes()[..18], &[&bytes[..12], &[0x81, 0, 0, 7], &bytes[12..14]].concat()[..]);
        assert!(frame.pop_tag());
        assert_eq!(frame.bytes(), bytes);
        let mut runt = pool.copy_of(&[0; 13]).unwrap();
        assert!(!runt.push_tag(0x8100, 7) && !runt.pop_tag());
    }

    #[test]
    fn tags_move_the_start_of_a_partial_checksum() {
        let pool = Pool::new(PoolConfig::default());
        let mut frame = pool.copy_of(&[0; 60]).unwrap();
        let partial = |start| Offload { checksum: Checksum::Partial { start, offset: 6 }, gso: Gso::None };
        frame.offload = partial(34);
        assert!(frame.push_tag(0x8100, 7));
        assert_eq!(frame.offload, partial(38));
        assert!(frame.pop_tag());
        assert_eq!(frame.offload, partial(34));
        // Lies do not keep a tag on or off.
        frame.offload = partial(u16::MAX - 3);
        assert!(frame.push_tag(0x8100, 7));
        assert_eq!(frame.offload, Offload::NONE);
        frame.offload = partial(15);
        assert!(frame.pop_tag());
        assert_eq!((frame.offload, frame.len()), (Offload::NONE, 60));
    }

    #[test]
    fn addresses_are_written_where_they_are() {
        let pool = Pool::new(PoolConfig::default());
        let mut frame = pool.copy_of(&[0; 14]).unwrap();
        assert!(frame.set_destination_mac(Mac([1; 6])) && frame.set_source_mac(Mac([2; 6])));
        assert_eq!(frame.bytes(), [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 0, 0]);
        let mut runt = pool.copy_of(&[0; 11]).unwrap();
        assert!(!runt.set_source_mac(Mac([2; 6])));
    }
}
