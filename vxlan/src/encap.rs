//! Frames into datagrams of the underlay.

use std::net::{IpAddr, SocketAddr};

use packet::{BufferClass, Frame, Gso, Instant, Mac, Offload, Parsed, Pool, Segment, Vni, checksum, longest_segment, segments};

use crate::{
    crypt::{self, Crypt, Sealing},
    drop::DropReason,
    ecn, flow,
    header::{self, HEADER_LEN},
    mtu,
    network::{Network, Route},
    own::own,
    vtep::Vtep,
};

/// Longest payload of a UDP datagram over IPv4, and of one send with UDP_SEGMENT, bytes: 65535 less 20 of IP and 8 of UDP.
pub const DATAGRAM_MOST: usize = 65_507;
/// Datagrams of one send with UDP_SEGMENT at most (UDP_MAX_SEGMENTS of kernels before 6.10).
pub const SEGMENTS_MOST: usize = 64;

/// One send on the underlay.
#[derive(Debug)]
pub struct Datagram {
    /// The remote VTEP, or a multicast group.
    pub to: SocketAddr,
    /// Outer source port, 49152..=65535, by inner flow; a wish that a shell with one socket may ignore.
    pub source_port: u16,
    /// Outer congestion field (RFC 6040), the low two bits of the traffic class.
    pub ecn: u8,
    /// Payload of UDP: VXLAN header and inner frame, or several of these back to back. Shared when it goes to several remotes.
    pub frame: Frame,
    /// Bytes of each datagram but the last, when the frame holds several: for UDP_SEGMENT.
    pub segment: Option<u16>,
}

impl Datagram {
    /// Below [`LANES`](crate::LANES). Datagrams of one lane are to leave in the order in which they were made: a receiver that
    /// decrypts them takes those that come much too late for replayed ones.
    #[must_use]
    pub const fn lane(&self) -> usize {
        flow::lane(self.source_port)
    }
}

impl Vtep {
    /// Takes a frame from the network of `vni`; puts datagrams into `out`, or gives an answer to put back into the network
    /// (ARP or neighbour discovery that was suppressed). A super-frame is cut, a partial checksum finished.
    ///
    /// # Errors
    /// Why it was dropped, counted; `out` is then as it was. For `too_big` the caller may owe its sender an ICMP error, and can
    /// ask [`fits`](Self::fits) before.
    pub fn encap(&mut self, vni: Vni, frame: Frame, now: Instant, out: &mut Vec<Datagram>) -> Result<Option<Frame>, DropReason> {
        let answer = self.try_encap(vni, frame, now, out);
        if let Err(reason) = answer {
            self.count(Some(vni), reason);
        }
        answer
    }

    fn try_encap(&mut self, vni: Vni, frame: Frame, now: Instant, out: &mut Vec<Datagram>) -> Result<Option<Frame>, DropReason> {
        let network = self.networks.get_mut(&vni).ok_or(DropReason::UnknownVni)?;
        let bytes = frame.bytes();
        let (Some(destination), Some(source)) = (Mac::destination_of(bytes), Mac::source_of(bytes)) else { return Err(DropReason::InnerRunt) };
        let plain = flow::plain(bytes, self.key);
        let parsed = if plain.is_some() { None } else { Some(Parsed::new(bytes).ok_or(DropReason::InnerRunt)?) };
        network.admit(source, parsed.as_ref().map_or(0, |parsed| parsed.tags))?;
        mtu::check(&frame, network.config.mtu)?;
        if let Some(parsed) = &parsed
            && network.config.suppress
            && let Some(answer) = network.neighbours.answer(parsed, &frame, &self.pool)?
        {
            network.counters.suppressed += 1;
            return Ok(Some(answer));
        }
        let length = frame.len();
        let route = network.route(destination, now)?;
        let Network { config, peers, crypt, counters, .. } = network;
        let targets = route.targets(peers);
        let (source_port, ecn) = match (&plain, &parsed) {
            (Some(plain), _) => (plain.source_port, plain.ecn),
            (None, Some(parsed)) => (flow::source_port(parsed, frame.bytes(), self.key), ecn::of(parsed, frame.bytes())),
            (None, None) => return Err(DropReason::InnerRunt),
        };
        let label = Label { to: targets[0], source_port, ecn: ecn::outer(ecn) };
        let first = out.len();
        let wrapped = match (config.encrypted, crypt) {
            (false, _) => wrap(frame, &mut Envelope::Clear(header::emit(vni)), label, &self.pool, out),
            (true, None) => Err(DropReason::NoKey),
            (true, Some(Crypt { sealing, .. })) => seal_each(frame, sealing, label, targets, &self.pool, out),
        };
        if let Err(reason) = wrapped {
            out.truncate(first);
            return Err(reason);
        }
        if !config.encrypted && targets.len() > 1 {
            replicate(first, &targets[1..], out);
        }
        counters.frames_out += 1;
        counters.bytes_out += length as u64;
        counters.flooded += u64::from(matches!(route, Route::Flood));
        Ok(None)
    }
}

/// What the datagrams of one frame have in common.
#[derive(Clone, Copy, Debug)]
struct Label {
    to: SocketAddr,
    source_port: u16,
    ecn: u8,
}

impl Label {
    fn on(self, frame: Frame, segment: Option<u16>) -> Datagram {
        Datagram { to: self.to, source_port: self.source_port, ecn: self.ecn, frame, segment }
    }
}

/// What goes around an inner frame.
#[derive(Debug)]
enum Envelope<'a> {
    Clear([u8; HEADER_LEN]),
    /// For that destination, in that lane.
    Sealed(&'a mut Sealing, IpAddr, usize),
}

impl Envelope<'_> {
    /// Bytes before and behind the inner frame.
    #[inline]
    const fn room(&self) -> (usize, usize) {
        match self {
            Self::Clear(_) => (HEADER_LEN, 0),
            Self::Sealed(..) => (crypt::FRONT, crypt::BACK),
        }
    }

    /// Finishes a datagram whose inner frame is in its place.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "on every frame's way; counted")]
    fn close(&mut self, datagram: &mut [u8]) -> Result<(), DropReason> {
        match self {
            Self::Clear(header) => {
                datagram[..HEADER_LEN].copy_from_slice(header);
                Ok(())
            }
            Self::Sealed(sealing, to, lane) => sealing.seal(*to, *lane, datagram),
        }
    }
}

/// A frame, or the segments of a super-frame, to one remote. On an error some may have been given already.
#[inline(always)]
#[expect(clippy::inline_always, reason = "on every frame's way; counted")]
fn wrap(mut frame: Frame, envelope: &mut Envelope<'_>, label: Label, pool: &Pool, out: &mut Vec<Datagram>) -> Result<(), DropReason> {
    if frame.offload.gso != Gso::None {
        return cut(&frame, envelope, label, pool, out);
    }
    whole(&mut frame, envelope, pool)?;
    out.push(label.on(frame, None));
    Ok(())
}

/// Each remote has a key, and so bytes, of its own; the last one's may be in the frame's own buffer.
#[inline(never)]
fn seal_each(frame: Frame, sealing: &mut Sealing, label: Label, targets: &[SocketAddr], pool: &Pool, out: &mut Vec<Datagram>) -> Result<(), DropReason> {
    let Some((last, others)) = targets.split_last() else { return Err(DropReason::NoRemote) };
    let lane = flow::lane(label.source_port);
    for to in others {
        wrap(frame.share(), &mut Envelope::Sealed(sealing, to.ip(), lane), Label { to: *to, ..label }, pool, out)?;
    }
    wrap(frame, &mut Envelope::Sealed(sealing, last.ip(), lane), Label { to: *last, ..label }, pool, out)
}

/// The datagrams from `first` on once more for each of `others`: the bytes are the same, so they are shared.
fn replicate(first: usize, others: &[SocketAddr], out: &mut Vec<Datagram>) {
    let end = out.len();
    for to in others {
        for index in first..end {
            let Datagram { source_port, ecn, segment, ref frame, .. } = out[index];
            let frame = frame.share();
            out.push(Datagram { to: *to, source_port, ecn, frame, segment });
        }
    }
}

/// A frame of wire size, in place if its buffer is ours alone.
#[inline(always)]
#[expect(clippy::inline_always, reason = "on every frame's way; counted")]
fn whole(frame: &mut Frame, envelope: &mut Envelope<'_>, pool: &Pool) -> Result<(), DropReason> {
    let (front, back) = envelope.room();
    own(frame, front, back, pool)?;
    checksum::complete(frame);
    frame.push(front);
    frame.set_len(frame.len() + back);
    envelope.close(frame.bytes_mut())?;
    frame.offload = Offload::NONE;
    Ok(())
}

/// A super-frame into as few sends as it takes. On an error some were given already.
#[inline(never)]
fn cut(frame: &Frame, envelope: &mut Envelope<'_>, label: Label, pool: &Pool, out: &mut Vec<Datagram>) -> Result<(), DropReason> {
    let (front, back) = envelope.room();
    let segment_len = front + longest_segment(frame).ok_or(DropReason::CannotSegment)? + back;
    let mut train = Train::new(envelope, segment_len, pool);
    for inner in segments(frame).ok_or(DropReason::CannotSegment)? {
        let full = train.add(&inner)?;
        out.extend(full.map(|full| label.on(full, train.segment_of_full())));
    }
    out.extend(train.rest().map(|(rest, segment)| label.on(rest, segment)));
    Ok(())
}

/// Datagrams of equal length, back to back in a large buffer. Only the very last may be shorter.
struct Train<'a, 'b> {
    envelope: &'a mut Envelope<'b>,
    segment_len: usize,
    bytes_most: usize,
    pool: &'a Pool,
    current: Option<Frame>,
}

impl<'a, 'b> Train<'a, 'b> {
    fn new(envelope: &'a mut Envelope<'b>, segment_len: usize, pool: &'a Pool) -> Self {
        let segments = (DATAGRAM_MOST / segment_len).clamp(1, SEGMENTS_MOST);
        Self { envelope, segment_len, bytes_most: segments * segment_len, pool, current: None }
    }

    /// Appends a datagram; gives the buffer before it when that was full.
    fn add(&mut self, inner: &Segment<'_>) -> Result<Option<Frame>, DropReason> {
        let full = self.current.take_if(|frame| frame.len() >= self.bytes_most);
        let frame = match &mut self.current {
            Some(frame) => frame,
            none => none.insert(self.pool.take(BufferClass::Large).ok_or(DropReason::NoBuffer)?),
        };
        let (at, (front, back)) = (frame.len(), self.envelope.room());
        frame.set_len(at + front + inner.len() + back);
        let datagram = &mut frame.bytes_mut()[at..];
        inner.write(&mut datagram[front..front + inner.len()]);
        self.envelope.close(datagram)?;
        Ok(full)
    }

    /// The buffer that is not full yet.
    fn rest(self) -> Option<(Frame, Option<u16>)> {
        let segment = self.segment(self.current.as_ref()?.len());
        self.current.map(|frame| (frame, segment))
    }

    fn segment_of_full(&self) -> Option<u16> {
        self.segment(self.bytes_most)
    }

    /// How a buffer of `length` bytes is to be split: not at all when it holds one datagram.
    fn segment(&self, length: usize) -> Option<u16> {
        if length > self.segment_len { u16::try_from(self.segment_len).ok() } else { None }
    }
}
