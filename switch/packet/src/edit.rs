//! Edits of a frame in place that keep its offload metadata in step.

use crate::{frame::Frame, offload::Checksum, parsed::{ETHERNET_LEN, TAG_LEN}};

impl Frame {
    /// Puts an 802.1Q tag right behind the addresses. False (and no change) when the frame is
    /// shorter than an Ethernet header or the headroom is used up.
    ///
    /// # Panics
    /// When the frame is shared.
    pub fn push_tag(&mut self, tpid: u16, tci: u16) -> bool {
        if self.len() < ETHERNET_LEN || self.headroom() < TAG_LEN {
            return false;
        }
        self.push(TAG_LEN);
        let bytes = self.bytes_mut();
        bytes.copy_within(TAG_LEN..TAG_LEN + 12, 0);
        bytes[12..14].copy_from_slice(&tpid.to_be_bytes());
        bytes[14..16].copy_from_slice(&tci.to_be_bytes());
        if let Checksum::Partial { start, .. } = &mut self.offload.checksum {
            *start += 4;
        }
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
        self.bytes_mut().copy_within(0..12, TAG_LEN);
        self.pull(TAG_LEN);
        if let Checksum::Partial { start, .. } = &mut self.offload.checksum {
            *start = start.saturating_sub(4);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use crate::{Pool, PoolConfig};

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
}
