//! What the fuzz targets do with their bytes. Plain functions, so that a stable test can call them too.

use weft_packet::{
    Checksum, Coalescer, EthernetView, FiveTuple, Frame, Gso, Joins, Offload, PacketMut, Parsed, Pool, PoolConfig,
    VIRTIO_NET_HDR_LEN, checksum, describe, header_len, longest_segment, pcapng, segment,
};

/// A frame from a stranger: read, never changed.
pub fn frame_parse(data: &[u8]) {
    assert_eq!(EthernetView::new(data).is_some(), data.len() >= 14);
    assert!(!describe(data).is_empty());
    let right = checksum::verify(data);
    let Some(parsed) = Parsed::new(data) else { return assert!(right, "nothing to be wrong") };
    assert!(parsed.tags <= 2 && parsed.l3_offset == 14 + 4 * parsed.tags && parsed.l3_offset <= data.len());
    if let Some(ip) = parsed.ip {
        assert!(parsed.l3_offset == ip.offset && ip.offset < ip.l4_offset && ip.l4_offset <= ip.end() && ip.end() <= data.len());
        assert_eq!(ip.l4_offset + ip.l4_len(), ip.end());
        assert_eq!(ip.source.is_ipv4(), ip.destination.is_ipv4());
    }
    if let Some(tuple) = FiveTuple::of(&parsed, data) {
        assert_eq!(parsed.l4_ports(data), Some((tuple.source_port, tuple.destination_port)));
        assert_eq!(tuple.symmetric_hash([1, 2]), tuple.reversed().symmetric_hash([1, 2]));
    }
    assert!(parsed.arp(data).is_none() || parsed.ndp(data).is_none());
    // Other bytes than those that were parsed: nothing to expect but an answer.
    let cut = &data[..data.len() / 2];
    let _ = (parsed.arp(cut), parsed.ndp(cut), parsed.l4_ports(cut), FiveTuple::of(&parsed, cut));
}

/// A virtio header and a frame from a stranger: everything that is done on the way to another port.
pub fn vnet_frame(data: &[u8]) {
    let Some((header, bytes)) = data.split_at_checked(VIRTIO_NET_HDR_LEN) else { return };
    let Ok(offload) = Offload::from_virtio(header, bytes.len()) else { return };
    assert_eq!(Offload::from_virtio(&offload.to_virtio(0), bytes.len()), Ok(offload));
    let pool = Pool::new(PoolConfig { small: 600, large: 80 });
    let Some(mut frame) = pool.copy_of(bytes) else { return };
    frame.offload = offload;
    tags(&frame);
    cut(&frame, &pool);
    join(&frame, &pool);
    edit(&frame);
    drop(frame);
    let stats = pool.stats();
    assert_eq!((stats.small_used, stats.large_used), (0, 0), "all buffers are home");
}

/// A tag comes and goes; only a checksum start that lies is lost.
fn tags(frame: &Frame) {
    let mut tagged = frame.duplicate().expect("a buffer");
    let pushed = tagged.push_tag(0x8100, 7);
    assert_eq!(pushed, frame.len() >= 14);
    if !pushed {
        return;
    }
    if let Checksum::Partial { start, .. } = tagged.offload.checksum {
        assert!(usize::from(start) < tagged.len());
    }
    assert!(tagged.pop_tag());
    assert_eq!(tagged.bytes(), frame.bytes());
    assert!(tagged.offload == frame.offload || tagged.offload == Offload::NONE);
    let mut popped = frame.duplicate().expect("a buffer");
    assert_eq!(popped.pop_tag(), frame.len() >= 18);
}

fn cut(frame: &Frame, pool: &Pool) {
    let (headers, longest) = (header_len(frame), longest_segment(frame));
    assert_eq!(headers.is_some(), longest.is_some());
    let mut at = headers.unwrap_or(0);
    let result = segment(frame, pool, |segment| {
        let headers = headers.expect("nothing is given of a liar");
        assert!(segment.len() <= longest.expect("as the headers"));
        assert!(segment.offload.is_none());
        let payload = &segment.bytes()[headers..];
        assert_eq!(payload, &frame.bytes()[at..at + payload.len()]);
        at += payload.len();
        let ip = Parsed::new(segment.bytes()).and_then(|parsed| parsed.ip).expect("a sound packet");
        assert_eq!(ip.end(), segment.len());
    });
    assert_eq!(result.is_ok(), headers.is_some(), "there are buffers");
    assert!(result.is_err() || at == frame.len());
}

/// Joining and cutting gives what cutting alone gives.
fn join(frame: &Frame, pool: &Pool) {
    let mut frames = Vec::new();
    if frame.offload.gso != Gso::None {
        let _ = segment(frame, pool, |segment| {
            if frames.len() < 70 {
                frames.push(segment);
            }
        });
    }
    frames.extend(frame.duplicate());
    frames.extend(frame.duplicate());
    let before: Vec<Vec<u8>> = frames.iter().flat_map(|frame| on_wire(frame, pool)).collect();
    let mut coalescer = Coalescer::new(Joins::ALL, 40);
    let mut after = Vec::new();
    for frame in frames {
        if let Some(frame) = coalescer.push(frame, pool) {
            after.extend(on_wire(&frame, pool));
        }
    }
    coalescer.drain(|frame| after.extend(on_wire(&frame, pool)));
    assert!(before == after, "joining changed something");
}

/// The frames that a plain port would be given.
fn on_wire(frame: &Frame, pool: &Pool) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    if frame.offload.gso == Gso::None {
        let mut whole = frame.duplicate().expect("a buffer");
        checksum::complete(&mut whole);
        out.push(whole.bytes().to_vec());
    } else {
        let mut bytes = 0;
        let _ = segment(frame, pool, |segment| {
            bytes += segment.len();
            // Segments of one byte multiply a frame by its headers.
            if bytes < 1 << 20 {
                out.push(segment.bytes().to_vec());
            }
        });
    }
    out
}

/// Right checksums stay right, wrong ones wrong.
fn edit(frame: &Frame) {
    let mut frame = frame.duplicate().expect("a buffer");
    checksum::complete(&mut frame);
    let right = checksum::verify(frame.bytes());
    edit_all(&mut frame);
    assert_eq!(checksum::verify(frame.bytes()), right, "{frame:?}");
    let mut partial = frame;
    partial.offload = Offload { checksum: Checksum::Partial { start: 34, offset: 16 }, gso: Gso::None };
    edit_all(&mut partial);
}

fn edit_all(frame: &mut Frame) {
    let length = frame.len();
    let Some(mut packet) = PacketMut::new(frame) else { return };
    let (a, b) = if packet.ip().source.is_ipv4() {
        ([192, 0, 2, 1].into(), [198, 51, 100, 2].into())
    } else {
        ([0x20; 16].into(), [0xfd; 16].into())
    };
    assert!(packet.set_source(a) && packet.set_destination(b));
    assert_eq!((packet.ip().source, packet.ip().destination), (a, b));
    let ports = packet.set_source_port(0xfffe);
    assert_eq!(packet.set_destination_port(0), ports);
    packet.set_hop_limit(1);
    packet.set_dscp(46);
    packet.set_ecn(1);
    let _ = packet.clamp_mss(1200);
    assert!(!packet.clamp_mss(1200));
    let view = *packet.ip();
    let parsed = Parsed::new(frame.bytes()).expect("still a frame");
    assert_eq!(parsed.ip, Some(view), "the view is what parsing would give");
    assert_eq!(parsed.l4_ports(frame.bytes()), ports.then_some((0xfffe, 0)));
    assert_eq!(frame.len(), length);
}

/// Names, comments and packets from a stranger into a capture, whose blocks must chain.
pub fn pcap(data: &[u8]) {
    let mut out = Vec::new();
    pcapng::section_header(&mut out);
    let mut blocks = 1;
    let mut rest = data;
    while let Some((&[kind, length], tail)) = rest.split_first_chunk::<2>() {
        // Three hundredfold, so that options overflow too.
        let length = usize::from(length) * if kind & 0x80 == 0 { 1 } else { 300 };
        let (bytes, tail) = tail.split_at(length.min(tail.len()));
        let text = String::from_utf8_lossy(bytes);
        match kind & 3 {
            0 => pcapng::describe_interface(&mut out, pcapng::Interface { name: &text, description: &text, snap_length: 7 }),
            1 => pcapng::packet(&mut out, u32::from(kind), u64::MAX, kind & 4 != 0, Some(&text), bytes),
            2 => pcapng::packet_cut(&mut out, 0, 0, true, None, bytes, bytes.len() * 2),
            _ => pcapng::statistics(&mut out, 0, 1, u64::MAX, 0),
        }
        blocks += 1;
        rest = tail;
    }
    let mut at = 0;
    while at < out.len() {
        let word = |at: usize| u32::from_le_bytes([out[at], out[at + 1], out[at + 2], out[at + 3]]);
        let length = word(at + 4) as usize;
        assert!(length >= 12 && length.is_multiple_of(4));
        assert_eq!(word(at + length - 4) as usize, length);
        at += length;
        blocks -= 1;
    }
    assert_eq!((at, blocks), (out.len(), 0));
}
