//! pcapng blocks as bytes (IETF draft-ietf-opsawg-pcapng): one interface per port, nanoseconds,
//! direction and comment on each packet. Little-endian, as the section header says.

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

const OPT_COMMENT: u16 = 1;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;
const ISB_IFRECV: u16 = 4;
const ISB_IFDROP: u16 = 5;

/// What a capture says about one interface.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interface<'a> {
    /// Its name.
    pub name: &'a str,
    /// A few words about it; none when empty.
    pub description: &'a str,
    /// Longest part of a packet that is kept, bytes; 0 when there is no limit.
    pub snap_length: u32,
}

/// Appends the block that every capture begins with.
pub fn section_header(out: &mut Vec<u8>) {
    let mut block = Block::begin(out, SECTION_HEADER);
    block.u32(0x1a2b_3c4d);
    // Version 1.0.
    block.u32(1);
    block.u64(u64::MAX);
    block.option(SHB_USERAPPL, b"weft");
    block.end();
}

/// Appends the description of the next interface; its id is the count of those before it.
pub fn interface(out: &mut Vec<u8>, name: &str) {
    describe_interface(out, Interface { name, ..Interface::default() });
}

/// As [`interface`], with all that can be said.
pub fn describe_interface(out: &mut Vec<u8>, interface: Interface<'_>) {
    let mut block = Block::begin(out, INTERFACE);
    // LINKTYPE_ETHERNET.
    block.u32(1);
    block.u32(interface.snap_length);
    block.option(IF_NAME, interface.name.as_bytes());
    if !interface.description.is_empty() {
        block.option(IF_DESCRIPTION, interface.description.as_bytes());
    }
    block.option(IF_TSRESOL, &[9]);
    block.end();
}

/// Appends a packet seen on `interface` at `at_ns` nanoseconds since 1970.
pub fn packet(out: &mut Vec<u8>, interface: u32, at_ns: u64, inbound: bool, comment: Option<&str>, bytes: &[u8]) {
    packet_cut(out, interface, at_ns, inbound, comment, bytes, bytes.len());
}

/// As [`packet`], with `bytes` the beginning of a packet of `length` bytes.
pub fn packet_cut(out: &mut Vec<u8>, interface: u32, at_ns: u64, inbound: bool, comment: Option<&str>, bytes: &[u8], length: usize) {
    let mut block = Block::begin(out, ENHANCED_PACKET);
    block.u32(interface);
    block.time(at_ns);
    block.u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    block.u32(u32::try_from(length).unwrap_or(u32::MAX));
    block.padded(bytes);
    block.option(EPB_FLAGS, &(if inbound { 1_u32 } else { 2 }).to_le_bytes());
    if let Some(comment) = comment {
        block.option(OPT_COMMENT, comment.as_bytes());
    }
    block.end();
}

/// Appends how many packets `interface` had received, and the capture lost, by `at_ns` nanoseconds
/// since 1970.
pub fn statistics(out: &mut Vec<u8>, interface: u32, at_ns: u64, received: u64, dropped: u64) {
    let mut block = Block::begin(out, STATISTICS);
    block.u32(interface);
    block.time(at_ns);
    block.option(ISB_IFRECV, &received.to_le_bytes());
    block.option(ISB_IFDROP, &dropped.to_le_bytes());
    block.end();
}

/// A block in the making: type, length, body, length again.
#[derive(Debug)]
struct Block<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Block<'a> {
    fn begin(out: &'a mut Vec<u8>, kind: u32) -> Self {
        let start = out.len();
        let mut block = Self { out, start };
        block.u32(kind);
        // The length, known at the end.
        block.u32(0);
        block
    }

    fn u32(&mut self, value: u32) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    /// Time goes high half first, each half little-endian.
    fn time(&mut self, at_ns: u64) {
        let [l0, l1, l2, l3, h0, h1, h2, h3] = at_ns.to_le_bytes();
        self.out.extend_from_slice(&[h0, h1, h2, h3, l0, l1, l2, l3]);
    }

    fn padded(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        while !(self.out.len() - self.start).is_multiple_of(4) {
            self.out.push(0);
        }
    }

    /// Values are names and comments: one longer than an option can hold is cut.
    fn option(&mut self, code: u16, value: &[u8]) {
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        self.out.extend_from_slice(&code.to_le_bytes());
        self.out.extend_from_slice(&length.to_le_bytes());
        self.padded(&value[..usize::from(length)]);
    }

    fn end(mut self) {
        // End of options.
        self.u32(0);
        let length = u32::try_from(self.out.len() - self.start + 4).unwrap_or(u32::MAX);
        self.out[self.start + 4..self.start + 8].copy_from_slice(&length.to_le_bytes());
        self.u32(length);
    }
}

#[cfg(test)]
#[expect(clippy::wildcard_enum_match_arm, reason = "enums of other crates")]
mod tests {
    use pcap_file::pcapng::{Block as Read, PcapNgReader, blocks::interface_statistics::InterfaceStatisticsOption};

    use super::*;

    #[test]
    fn another_reader_understands_it() {
        let mut bytes = Vec::new();
        section_header(&mut bytes);
        interface(&mut bytes, "a:eth0");
        describe_interface(&mut bytes, Interface { name: "b:eth0", description: "sandbox b", snap_length: 61 });
        packet_cut(&mut bytes, 1, 1_700_000_000_123_456_789, true, Some("dropped: too_big"), &[7; 61], 1514);
        statistics(&mut bytes, 1, 1_700_000_001_000_000_000, 5, 3);
        let mut reader = PcapNgReader::new(bytes.as_slice()).unwrap();
        let mut names = 0;
        let mut packets = 0;
        let mut statistics_seen = false;
        while let Some(block) = reader.next_block() {
            match block.unwrap() {
                Read::InterfaceDescription(description) => {
                    assert!(description.options.iter().any(|option| format!("{option:?}").contains(":eth0")));
                    names += 1;
                }
                Read::EnhancedPacket(packet) => {
                    assert_eq!(packet.interface_id, 1);
                    assert_eq!((packet.data.as_ref(), packet.original_len), (&[7; 61][..], 1514));
                    assert_eq!(packet.timestamp.as_nanos(), 1_700_000_000_123_456_789);
                    assert!(packet.options.iter().any(|option| format!("{option:?}").contains("too_big")));
                    packets += 1;
                }
                Read::InterfaceStatistics(block) => {
                    statistics_seen = true;
                    assert_eq!(block.interface_id, 1);
                    assert!(block.options.contains(&InterfaceStatisticsOption::IsbIfRecv(5)));
                    assert!(block.options.contains(&InterfaceStatisticsOption::IsbIfDrop(3)));
                }
                _ => {}
            }
        }
        assert_eq!((names, packets, statistics_seen), (2, 1, true));
    }

    #[test]
    fn blocks_are_padded_from_their_own_start() {
        let (mut alone, mut behind) = (Vec::new(), vec![0xee; 3]);
        for out in [&mut alone, &mut behind] {
            interface(out, "a");
            packet(out, 0, 1, false, Some("odd"), &[1; 5]);
        }
        assert_eq!(alone, behind[3..]);
        assert!(alone.len().is_multiple_of(4));
    }

    #[test]
    fn a_comment_longer_than_an_option_is_cut() {
        let mut bytes = Vec::new();
        section_header(&mut bytes);
        interface(&mut bytes, "a");
        packet(&mut bytes, 0, 1, true, Some(&"x".repeat(70_000)), &[1; 60]);
        let mut reader = PcapNgReader::new(bytes.as_slice()).unwrap();
        let mut blocks = 0;
        while let Some(block) = reader.next_block() {
            block.unwrap();
            blocks += 1;
        }
        assert_eq!(blocks, 2);
    }
}
