//! Segments from sandboxes, read; and what is sent back without a flow.

use packet::{Frame, Pool};

use crate::proxy::write::{self, Path, TcpHeader};

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const PSH: u8 = 8;
pub(crate) const ACK: u8 = 16;

/// Option kinds (IANA, TCP parameters).
pub(crate) mod option {
    pub(crate) const END: u8 = 0;
    pub(crate) const NOP: u8 = 1;
    pub(crate) const MSS: u8 = 2;
    pub(crate) const SCALE: u8 = 3;
    pub(crate) const SACK_PERMITTED: u8 = 4;
    pub(crate) const SACK: u8 = 5;
}

/// Whether `a` comes before `b`, as sequence numbers go (RFC 9293 3.4).
pub(crate) const fn before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) >= 0x8000_0000
}

/// A segment from a sandbox.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment<'a> {
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) mss: Option<u16>,
    pub(crate) scale: Option<u8>,
    /// Whether selective acknowledgements may be sent to it; of a SYN.
    pub(crate) sack_permitted: bool,
    /// The selective acknowledgements it carries, as on the wire; see [`blocks`](Self::blocks).
    sack: &'a [u8],
    pub(crate) payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// A SYN without options.
    pub(crate) const fn syn(seq: u32) -> Self {
        Self { seq, ack: 0, flags: SYN, window: 0, mss: None, scale: None, sack_permitted: false, sack: &[], payload: &[] }
    }

    /// From a TCP header and what follows it; `None` when it lies about its length.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header = bytes.first_chunk::<20>()?;
        let offset = usize::from(header[12] >> 4) * 4;
        if offset < 20 {
            return None;
        }
        let (options, payload) = (bytes.get(20..offset)?, &bytes[offset..]);
        let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let window = u16::from_be_bytes([header[14], header[15]]);
        let mut this = Self { ack: word(8), flags: header[13], window, payload, ..Self::syn(word(4)) };
        this.read_options(options);
        Some(this)
    }

    fn read_options(&mut self, mut options: &'a [u8]) {
        let is_syn = self.flags & SYN != 0;
        while let [kind, rest @ ..] = options {
            match (*kind, rest) {
                (option::END, _) => return,
                (option::NOP, _) => options = rest,
                (kind, [length, ..]) if *length >= 2 && options.len() >= usize::from(*length) => {
                    let (this, after) = options.split_at(usize::from(*length));
                    match (kind, &this[2..]) {
                        (option::MSS, [high, low]) if is_syn => self.mss = Some(u16::from_be_bytes([*high, *low])),
                        (option::SCALE, [scale]) if is_syn => self.scale = Some((*scale).min(14)),
                        (option::SACK_PERMITTED, []) if is_syn => self.sack_permitted = true,
                        (option::SACK, blocks) if !is_syn => self.sack = blocks,
                        _ => {}
                    }
                    options = after;
                }
                _ => return,
            }
        }
    }

    /// Selective acknowledgements, first and behind the last byte (RFC 2018 3), as the sandbox claims.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = (u32, u32)> + 'a {
        self.sack.chunks_exact(8).map(|block| {
            let word = |at: usize| u32::from_be_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
            (word(0), word(4))
        })
    }

    pub(crate) const fn has_blocks(&self) -> bool {
        !self.sack.is_empty()
    }
}

/// The reset that answers a segment of no flow (RFC 9293 3.10.7.1).
pub(crate) fn refuse(pool: &Pool, path: &Path, segment: &Segment, out: &mut Vec<Frame>) {
    if segment.flags & RST != 0 {
        return;
    }
    let length = u32::try_from(segment.payload.len()).unwrap_or(0) + u32::from(segment.flags & SYN != 0) + u32::from(segment.flags & FIN != 0);
    let (seq, ack, flags) = if segment.flags & ACK != 0 { (segment.ack, 0, RST) } else { (0, segment.seq.wrapping_add(length), RST | ACK) };
    let Ok(Some((mut frame, _))) = write::with_payload(pool, 0, |_| Ok::<_, ()>(0)) else { return };
    write::tcp(&mut frame, path, TcpHeader { seq, ack, flags, window: 0, options: &[], mss: u16::MAX });
    out.push(frame);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_options(flags: u8, options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 20];
        bytes[12] = u8::try_from((20 + options.len()) / 4 * 16).unwrap();
        bytes[13] = flags;
        bytes.extend_from_slice(options);
        bytes
    }

    #[test]
    fn options_count_where_they_may_stand() {
        let syn = [2, 4, 5, 180, 4, 2, 1, 3, 3, 200, 0, 0];
        let bytes = with_options(SYN, &syn);
        let read = Segment::parse(&bytes).unwrap();
        assert_eq!((read.mss, read.scale, read.sack_permitted), (Some(1460), Some(14), true));
        let bytes = with_options(ACK, &syn);
        let read = Segment::parse(&bytes).unwrap();
        assert_eq!((read.mss, read.scale, read.sack_permitted), (None, None, false));
        let sack = [1, 1, 5, 18, 0, 0, 0, 7, 0, 0, 0, 9, 255, 255, 255, 255, 0, 0, 0, 1];
        let bytes = with_options(ACK, &sack);
        assert_eq!(Segment::parse(&bytes).unwrap().blocks().collect::<Vec<_>>(), [(7, 9), (u32::MAX, 1)]);
    }

    #[test]
    fn options_that_lie_about_their_length_are_not_read() {
        for options in [&[5, 1, 1, 1][..], &[1, 1, 5, 10], &[5, 0, 0, 0], &[1, 1, 1, 5], &[5, 11, 0, 0, 0, 7, 0, 0, 0, 9, 1, 0]] {
            let bytes = with_options(ACK, options);
            // Of a block that is not whole, nothing.
            assert!(Segment::parse(&bytes).unwrap().blocks().all(|block| block == (7, 9)), "{options:?}");
        }
    }
}
