//! pcapng blocks as bytes (IETF draft-ietf-opsawg-pcapng): one interface per port, nanoseconds,
//! direction and comment on each packet. Little-endian, as the section header says.

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const ENHANCED_PACKET: u32 = 6;

const OPT_COMMENT: u16 = 1;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;

/// Appends the block that every capture begins with.
pub fn section_header(out: &mut Vec<u8>) {
    block(out, SECTION_HEADER, |body| {
        body.extend_from_slice(&0x1a2b_3c4d_u32.to_le_bytes());
        body.extend_from_slice(&[1, 0, 0, 0]);
        body.extend_from_slice(&u64::MAX.to_le_bytes());
        option(body, SHB_USERAPPL, b"weft");
        end_of_options(body);
    });
}

/// Appends the description of the next interface; its id is the count of those before it.
pub fn interface(out: &mut Vec<u8>, name: &str) {
    block(out, INTERFACE, |body| {
        // LINKTYPE_ETHERNET, reserved, no snap length.
        body.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
        option(body, IF_NAME, name.as_bytes());
        option(body, IF_TSRESOL, &[9]);
        end_of_options(body);
    });
}

/// Appends a packet seen on `interface` at `at_ns` nanoseconds since 1970.
pub fn packet(out: &mut Vec<u8>, interface: u32, at_ns: u64, inbound: bool, comment: Option<&str>, bytes: &[u8]) {
    block(out, ENHANCED_PACKET, |body| {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
        let [l0, l1, l2, l3, h0, h1, h2, h3] = at_ns.to_le_bytes();
        body.extend_from_slice(&interface.to_le_bytes());
        body.extend_from_slice(&[h0, h1, h2, h3, l0, l1, l2, l3]);
        body.extend_from_slice(&length);
        body.extend_from_slice(&length);
        body.extend_from_slice(bytes);
        pad(body);
        option(body, EPB_FLAGS, &(if inbound { 1_u32 } else { 2 }).to_le_bytes());
        if let Some(comment) = comment {
            option(body, OPT_COMMENT, comment.as_bytes());
        }
        end_of_options(body);
    });
}

fn block(out: &mut Vec<u8>, kind: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    fill(out);
    let length = u32::try_from(out.len() - start + 4).unwrap_or(u32::MAX).to_le_bytes();
    out[start + 4..start + 8].copy_from_slice(&length);
    out.extend_from_slice(&length);
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    // Longer values than an option can hold are cut: names and comments only.
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    body.extend_from_slice(&code.to_le_bytes());
    body.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
    body.extend_from_slice(value);
    pad(body);
}

fn end_of_options(body: &mut Vec<u8>) {
    body.extend_from_slice(&[0; 4]);
}

/// Blocks begin at multiples of four bytes of whatever `out` holds, so padding by total length is right.
fn pad(body: &mut Vec<u8>) {
    while !body.len().is_multiple_of(4) {
        body.push(0);
    }
}

#[cfg(test)]
mod tests {
    use pcap_file::pcapng::{Block, PcapNgReader};

    use super::*;

    #[test]
    fn another_reader_understands_it() {
        let mut bytes = Vec::new();
        section_header(&mut bytes);
        interface(&mut bytes, "a:eth0");
        interface(&mut bytes, "b:eth0");
        packet(&mut bytes, 1, 1_700_000_000_123_456_789, true, Some("dropped: too_big"), &[7; 61]);
        let mut reader = PcapNgReader::new(bytes.as_slice()).unwrap();
        let mut names = 0;
        let mut packets = 0;
        while let Some(block) = reader.next_block() {
            match block.unwrap() {
                Block::InterfaceDescription(description) => {
                    assert!(description.options.iter().any(|option| format!("{option:?}").contains(":eth0")));
                    names += 1;
                }
                Block::EnhancedPacket(packet) => {
                    assert_eq!(packet.interface_id, 1);
                    assert_eq!(packet.data.as_ref(), &[7; 61]);
                    assert!(packet.options.iter().any(|option| format!("{option:?}").contains("too_big")));
                    packets += 1;
                }
                _ => {}
            }
        }
        assert_eq!((names, packets), (2, 1));
    }
}
