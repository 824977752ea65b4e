//! `weft events`, `weft capture`.

use std::{fs::File, io::Write, path::Path};

use super::{End, Place, args::CaptureArguments, try_print, unavailable, unprinted};
use crate::client::escape;

pub(super) fn events(flows: bool, as_json: bool, place: &Place) -> End {
    let mut lines = Lines { rest: Vec::new(), as_json };
    place.client.stream(if flows { "/v1/events?flows=true" } else { "/v1/events" }, &mut lines, |_| false)?;
    Ok(0)
}

/// Prints whole lines as they come.
struct Lines {
    rest: Vec<u8>,
    as_json: bool,
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            try_print(&if self.as_json { line.trim_end().to_owned() } else { readable(line.trim_end()) })?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// `type key=value ...`.
fn readable(line: &str) -> String {
    let Ok(serde_json::Value::Object(mut event)) = serde_json::from_str(line) else { return line.to_owned() };
    let mut text = event.remove("type").and_then(|kind| kind.as_str().map(str::to_owned)).unwrap_or_default();
    for (key, value) in event {
        text += &format!(" {key}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    }
    text
}

pub(super) fn capture(arguments: &CaptureArguments, place: &Place) -> End {
    let filter = arguments.filter.join(" ");
    let path = format!("/v1/capture?target={}&whole={}&filter={}", escape(&arguments.target), arguments.whole, escape(&filter));
    let mut frames = Blocks::default();
    let mut remaining = arguments.count;
    let show = arguments.write.is_none();
    let mut unread = false;
    let mut enough = |bytes: &[u8]| {
        frames.feed(bytes, |frame, comment| {
            if show {
                let comment = comment.map_or_else(String::new, |comment| format!(" [{comment}]"));
                unread |= try_print(&format!("{}{comment}", packet::describe(frame))).inspect_err(unprinted).is_err();
            }
            remaining = remaining.map(|left| left.saturating_sub(1));
        });
        remaining == Some(0) || unread
    };
    let mut out: Box<dyn Write> = match arguments.write.as_deref() {
        None => Box::new(std::io::sink()),
        Some(path) if path == Path::new("-") => Box::new(std::io::stdout()),
        Some(path) => Box::new(File::create(path).map_err(|error| unavailable(format!("cannot write {}: {error}", path.display())))?),
    };
    place.client.stream(&path, &mut out, &mut enough)?;
    Ok(0)
}

/// Finds packets in a pcapng stream of our own making.
#[derive(Default)]
struct Blocks(Vec<u8>);

impl Blocks {
    fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8], Option<&str>)) {
        self.0.extend_from_slice(bytes);
        loop {
            let word = |at: usize| self.0.get(at..at + 4).and_then(|word| word.first_chunk()).map(|word| u32::from_le_bytes(*word) as usize);
            let (Some(kind), Some(length)) = (word(0), word(4)) else { return };
            if length < 12 || self.0.len() < length {
                return;
            }
            let block: Vec<u8> = self.0.drain(..length).collect();
            if kind == 6 {
                packet_of(&block, &mut each);
            }
        }
    }
}

/// Enhanced packet block: 28 bytes, packet, padding, options.
fn packet_of(block: &[u8], each: &mut impl FnMut(&[u8], Option<&str>)) {
    let Some(length) = block.get(20..24).and_then(|word| word.first_chunk()).map(|word| u32::from_le_bytes(*word) as usize) else { return };
    let Some(frame) = block.get(28..28 + length) else { return };
    let mut at = (28 + length).next_multiple_of(4);
    let mut comment = None;
    while let Some(&[c0, c1, l0, l1]) = block.get(at..at + 4).and_then(|header| header.first_chunk()) {
        let (code, size) = (u16::from_le_bytes([c0, c1]), usize::from(u16::from_le_bytes([l0, l1])));
        if code == 1 {
            comment = block.get(at + 4..at + 4 + size).and_then(|text| std::str::from_utf8(text).ok());
        }
        if code == 0 {
            break;
        }
        at = (at + 4 + size).next_multiple_of(4);
    }
    each(frame, comment);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_found_however_the_stream_is_cut() {
        let mut bytes = Vec::new();
        packet::pcapng::section_header(&mut bytes);
        packet::pcapng::interface(&mut bytes, "a");
        packet::pcapng::packet(&mut bytes, 0, 1, true, Some("dropped: runt"), &[1, 2, 3]);
        packet::pcapng::packet(&mut bytes, 0, 2, false, None, &[4; 60]);
        for size in 1..50 {
            let mut seen = Vec::new();
            let mut blocks = Blocks::default();
            for chunk in bytes.chunks(size) {
                blocks.feed(chunk, |frame, comment| seen.push((frame.len(), comment.map(str::to_owned))));
            }
            assert_eq!(seen, [(3, Some("dropped: runt".into())), (60, None)], "chunks of {size}");
        }
    }
}
