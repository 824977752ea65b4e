//! What a container wrote, as it is kept: one entry a line, with its stream and time, byte for byte.
//!
//! An entry is 16 bytes (stream, three zeros, length, nanoseconds since 1970; big-endian) and the line
//! with its end. Docker's attach and logs streams are the same without the time, so reading is cutting.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    time::SystemTime,
};

/// Longer lines are cut into entries of this size, as Docker does.
const LINE_MAX: usize = 16 * 1024;
const HEADER: usize = 16;
/// Read at once; more than one entry.
const CHUNK: usize = 64 * 1024;

/// Nanoseconds since 1970.
pub(crate) fn now_ns() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// A line, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// 1: output, 2: errors.
    pub(crate) stream: u8,
    pub(crate) time_ns: u64,
    pub(crate) text: Vec<u8>,
}

/// The writing end.
#[derive(Debug)]
pub(crate) struct LogWriter {
    file: File,
    length: u64,
}

impl LogWriter {
    /// Goes on behind what is there.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        Ok(Self { length: file.metadata()?.len(), file })
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn append(&mut self, stream: u8, bytes: &[u8]) -> io::Result<()> {
        let time = now_ns().to_be_bytes();
        let mut entries = Vec::with_capacity(bytes.len() + 4 * HEADER);
        for line in bytes.split_inclusive(|byte| *byte == b'\n').flat_map(|line| line.chunks(LINE_MAX)) {
            let length = u32::try_from(line.len()).map_err(io::Error::other)?;
            entries.extend([stream, 0, 0, 0]);
            entries.extend(length.to_be_bytes());
            entries.extend(time);
            entries.extend(line);
        }
        self.file.write_all(&entries)?;
        self.length += entries.len() as u64;
        Ok(())
    }
}

/// A reading end, somewhere in the log.
#[derive(Debug)]
pub(crate) struct LogReader {
    file: File,
    pub(crate) offset: u64,
}

impl LogReader {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::open(path)?, offset: 0 })
    }

    /// The next whole entries; none at the end.
    pub(crate) fn read(&mut self) -> io::Result<Vec<Entry>> {
        let mut buffer = vec![0; CHUNK];
        let mut have = 0;
        while have < buffer.len() {
            match self.file.read_at(&mut buffer[have..], self.offset + have as u64)? {
                0 => break,
                more => have += more,
            }
        }
        let (entries, used) = cut(&buffer[..have]);
        self.offset += used as u64;
        Ok(entries)
    }
}

fn cut(mut bytes: &[u8]) -> (Vec<Entry>, usize) {
    let (mut entries, mut used) = (Vec::new(), 0);
    while let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() {
        let [stream, _, _, _, a, b, c, d, time @ ..] = *header;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        let Some((text, rest)) = rest.split_at_checked(length) else { break };
        entries.push(Entry { stream, time_ns: u64::from_be_bytes(time), text: text.to_vec() });
        bytes = rest;
        used += HEADER + length;
    }
    (entries, used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_half_an_entry_waits() {
        let path = std::env::temp_dir().join(format!("weft-log-{}", std::process::id()));
        drop(std::fs::remove_file(&path));
        let mut writer = LogWriter::open(&path).unwrap();
        let mut reader = LogReader::open(&path).unwrap();
        assert_eq!(reader.read().unwrap(), []);
        writer.append(1, b"one\ntwo").unwrap();
        writer.append(2, &[0xff; LINE_MAX + 1]).unwrap();
        let texts: Vec<_> = reader.read().unwrap().into_iter().map(|entry| (entry.stream, entry.text.len())).collect();
        assert_eq!(texts, [(1, 4), (1, 3), (2, LINE_MAX), (2, 1)]);
        assert_eq!(reader.offset, writer.length());
        writer.file.write_all(&[1, 0, 0, 0, 0, 0, 0, 9]).unwrap();
        assert_eq!(reader.read().unwrap(), []);
        std::fs::remove_file(&path).unwrap();
    }
}
