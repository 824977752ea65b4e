//! What a container wrote, as it is kept: one entry a line, with its stream and time, byte for byte.
//!
//! An entry is 16 bytes (stream, three zeros, length, nanoseconds since 1970; big-endian) and the line
//! with its end. Docker's attach and logs streams are the same without the time, so reading is cutting.
//!
//! The log is two files, each of half its bound: one that is written to, and the one before it (`.1`). A
//! reader keeps what it reads open, so that it loses nothing unless two files were begun meanwhile; the
//! removal of the log takes nothing from who reads it in the process that removes it.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, Read, Write},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
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

/// The file before the one that is written to.
fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// Where a log is.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) path: PathBuf,
    /// Its files once they have no names any more.
    removed: OnceLock<Vec<File>>,
}

impl Log {
    pub(crate) fn at(path: &Path) -> Arc<Self> {
        Arc::new(Self { path: path.into(), removed: OnceLock::new() })
    }

    /// Takes its files' names away; they are gone with their last reader. Nobody writes to it any more.
    pub(crate) fn remove(&self) {
        self.removed.get_or_init(|| self.named());
        for path in [&older(&self.path), &self.path] {
            drop(std::fs::remove_file(path));
        }
    }

    /// Makes it, so that it can be read before anything is in it.
    pub(crate) fn make(&self) -> io::Result<()> {
        append_to(&self.path).map(drop)
    }

    /// Its files, the newest last. That is opened first, so that none in between is left out when the next is
    /// begun meanwhile.
    fn named(&self) -> Vec<File> {
        let newest = File::open(&self.path);
        let before = File::open(older(&self.path));
        [before, newest].into_iter().flatten().collect()
    }

    /// The file after `file`, or the first that is still there.
    fn after(&self, file: &File) -> io::Result<Option<File>> {
        let named = self.named();
        let files = self.removed.get().unwrap_or(&named);
        let next = files.iter().rposition(|known| same(known, file)).map_or(0, |at| at + 1);
        files.get(next).map(File::try_clone).transpose()
    }
}

/// The writing end.
#[derive(Debug)]
pub(crate) struct LogWriter {
    path: PathBuf,
    file: File,
    length: u64,
    /// Bytes of one file.
    most: u64,
    /// Counts the files.
    pub(crate) number: u64,
}

impl LogWriter {
    /// Goes on behind what is there, in file `number`; both files have `bound` bytes at most. Half an entry, of a
    /// writer that was killed, goes.
    pub(crate) fn open(path: &Path, bound: u64, number: u64) -> io::Result<Self> {
        let file = append_to(path)?;
        let length = whole(&file)?;
        file.set_len(length)?;
        Ok(Self { path: path.into(), length, file, most: bound / 2, number })
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Writes what fits into this file; gives how many of the bytes did. None: begin the next.
    pub(crate) fn append(&mut self, stream: u8, bytes: &[u8]) -> io::Result<usize> {
        let time = now_ns().to_be_bytes();
        let (mut entries, mut used) = (Vec::with_capacity(bytes.len() + 4 * HEADER), 0);
        for line in bytes.split_inclusive(|byte| *byte == b'\n').flat_map(|line| line.chunks(LINE_MAX)) {
            let after = self.length + (entries.len() + HEADER + line.len()) as u64;
            // An empty file takes one however long.
            if after > self.most && self.length + entries.len() as u64 > 0 {
                break;
            }
            let length = u32::try_from(line.len()).map_err(io::Error::other)?;
            entries.extend([stream, 0, 0, 0]);
            entries.extend(length.to_be_bytes());
            entries.extend(time);
            entries.extend(line);
            used += line.len();
        }
        if let Err(error) = self.file.write_all(&entries) {
            // Half an entry would hide all that comes after it.
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += entries.len() as u64;
        Ok(used)
    }

    /// Begins the next file; the one before this is gone.
    pub(crate) fn turn(&mut self) -> io::Result<()> {
        std::fs::rename(&self.path, older(&self.path))?;
        self.file = append_to(&self.path)?;
        self.length = 0;
        self.number += 1;
        Ok(())
    }
}

/// A reading end, somewhere in the log.
#[derive(Debug)]
pub(crate) struct LogReader {
    log: Arc<Log>,
    file: File,
    offset: u64,
    /// How many files it has gone on to.
    pub(crate) turns: u64,
}

impl LogReader {
    /// From the first entry that is there.
    pub(crate) fn open(log: &Arc<Log>) -> io::Result<Self> {
        let file = File::open(older(&log.path)).or_else(|_| File::open(&log.path))?;
        Ok(Self { log: log.clone(), file, offset: 0, turns: 0 })
    }

    /// From the end.
    pub(crate) fn open_at_end(log: &Arc<Log>) -> io::Result<Self> {
        let file = File::open(&log.path)?;
        Ok(Self { log: log.clone(), offset: file.metadata()?.len(), file, turns: 0 })
    }

    /// Whether it reads the file that is written to.
    pub(crate) fn is_in_newest(&self) -> bool {
        File::open(&self.log.path).is_ok_and(|newest| same(&newest, &self.file))
    }

    /// The next whole entries; none at the end.
    pub(crate) fn read(&mut self) -> io::Result<Vec<Entry>> {
        loop {
            let entries = self.read_here()?;
            if !entries.is_empty() || !self.go_on()? {
                return Ok(entries);
            }
        }
    }

    fn read_here(&mut self) -> io::Result<Vec<Entry>> {
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

    /// At the end of one file: to the next, if there is one. What was added to this one before the next was
    /// begun is read first.
    fn go_on(&mut self) -> io::Result<bool> {
        let Some(next) = self.log.after(&self.file)? else { return Ok(false) };
        let offset = self.offset;
        let added = !self.read_here()?.is_empty();
        if added {
            self.offset = offset;
            return Ok(true);
        }
        self.file = next;
        self.offset = 0;
        self.turns += 1;
        Ok(true)
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(path)
}

/// Bytes of the whole entries that it begins with.
fn whole(file: &File) -> io::Result<u64> {
    let (size, mut at) = (file.metadata()?.len(), 0);
    let mut from = BufReader::with_capacity(CHUNK, file);
    let mut header = [0; HEADER];
    while at + HEADER as u64 <= size {
        from.read_exact(&mut header)?;
        let length = length_of(&header);
        if at + (HEADER + length) as u64 > size {
            break;
        }
        from.seek_relative(length as i64)?;
        at += (HEADER + length) as u64;
    }
    Ok(at)
}

/// Of an entry's text.
fn length_of(header: &[u8; HEADER]) -> usize {
    let [_, _, _, _, a, b, c, d, ..] = *header;
    u32::from_be_bytes([a, b, c, d]) as usize
}

fn same(one: &File, other: &File) -> bool {
    one.metadata().ok().zip(other.metadata().ok()).is_some_and(|(one, other)| one.ino() == other.ino())
}

fn cut(mut bytes: &[u8]) -> (Vec<Entry>, usize) {
    let (mut entries, mut used) = (Vec::new(), 0);
    while let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() {
        let [stream, _, _, _, _, _, _, _, time @ ..] = *header;
        let length = length_of(header);
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

    fn fresh(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("weft-log-{name}-{}", std::process::id()));
        drop(std::fs::remove_file(&path));
        drop(std::fs::remove_file(older(&path)));
        path
    }

    #[test]
    fn what_was_written_is_read_and_half_an_entry_waits() {
        let path = fresh("whole");
        let mut writer = LogWriter::open(&path, 1 << 20, 0).unwrap();
        let mut reader = LogReader::open(&Log::at(&path)).unwrap();
        assert_eq!(reader.read().unwrap(), []);
        assert_eq!(writer.append(1, b"one\ntwo").unwrap(), 7);
        writer.append(2, &[0xff; LINE_MAX + 1]).unwrap();
        let texts: Vec<_> = reader.read().unwrap().into_iter().map(|entry| (entry.stream, entry.text.len())).collect();
        assert_eq!(texts, [(1, 4), (1, 3), (2, LINE_MAX), (2, 1)]);
        assert_eq!(reader.offset, writer.length());
        writer.file.write_all(&[1, 0, 0, 0, 0, 0, 0, 9]).unwrap();
        assert_eq!(reader.read().unwrap(), []);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn half_an_entry_of_a_writer_that_was_killed_hides_nothing() {
        let path = fresh("killed");
        let log = Log::at(&path);
        LogWriter::open(&path, 1 << 20, 0).unwrap().append(1, b"one\n").unwrap();
        let mut reader = LogReader::open(&log).unwrap();
        for half in [&[1][..], &[1, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0], &[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, b'x']] {
            append_to(&path).unwrap().write_all(half).unwrap();
            let mut writer = LogWriter::open(&path, 1 << 20, 0).unwrap();
            writer.append(2, b"next\n").unwrap();
            assert_eq!(writer.length(), std::fs::metadata(&path).unwrap().len());
        }
        let texts: Vec<_> = reader.read().unwrap().into_iter().map(|entry| String::from_utf8(entry.text).unwrap()).collect();
        assert_eq!(texts, ["one\n", "next\n", "next\n", "next\n"]);
        log.remove();
    }

    #[test]
    fn a_log_is_bounded_and_whoever_keeps_up_sees_all() {
        const BOUND: u64 = 4096;
        let path = fresh("bounded");
        let mut writer = LogWriter::open(&path, BOUND, 0).unwrap();
        let log = Log::at(&path);
        let (mut follower, mut slow) = (LogReader::open(&log).unwrap(), LogReader::open(&log).unwrap());
        let mut seen = Vec::new();
        for number in 0..1000 {
            let line = format!("{number}\n");
            while writer.append(1, line.as_bytes()).unwrap() == 0 {
                writer.turn().unwrap();
            }
            if number % 7 == 0 {
                seen.extend(follower.read().unwrap());
            }
        }
        seen.extend(follower.read().unwrap());
        let numbers = |entries: &[Entry]| -> Vec<u32> { entries.iter().map(|entry| String::from_utf8_lossy(&entry.text).trim().parse().unwrap()).collect() };
        assert_eq!(numbers(&seen), (0..1000).collect::<Vec<_>>());
        assert_eq!(follower.turns, writer.number);
        let size = |path: &Path| std::fs::metadata(path).unwrap().len();
        assert!(size(&path) + size(&older(&path)) <= BOUND);
        // One that begins now, and one that lost the middle, end with the last.
        for reader in [&mut LogReader::open(&log).unwrap(), &mut slow] {
            let mut late = Vec::new();
            loop {
                match reader.read().unwrap() {
                    more if more.is_empty() => break,
                    more => late.extend(more),
                }
            }
            let late = numbers(&late);
            assert!(late.is_sorted() && late.len() > 50 && late.last() == Some(&999), "{late:?}");
        }
        assert_eq!(LogReader::open_at_end(&log).unwrap().read().unwrap(), []);
        // One entry is longer than half the bound.
        writer.turn().unwrap();
        assert_eq!(writer.append(1, &[b'x'; LINE_MAX]).unwrap(), LINE_MAX);
        assert_eq!(writer.append(1, b"x").unwrap(), 0);
        log.remove();
        assert!(!path.exists() && !older(&path).exists());
    }

    #[test]
    fn a_removed_log_is_read_to_its_end() {
        let path = fresh("removed");
        let log = Log::at(&path);
        let mut writer = LogWriter::open(&path, 1 << 10, 0).unwrap();
        writer.append(1, b"one").unwrap();
        let mut readers = vec![LogReader::open(&log).unwrap()];
        for text in [b"two", b"end"] {
            readers.push(LogReader::open_at_end(&log).unwrap());
            writer.turn().unwrap();
            writer.append(1, text).unwrap();
        }
        log.remove();
        assert!(!path.exists() && !older(&path).exists());
        let texts = |mut reader: LogReader| std::iter::from_fn(|| reader.read().unwrap().pop()).map(|entry| entry.text).collect::<Vec<_>>();
        let seen: Vec<_> = readers.into_iter().map(texts).collect();
        assert_eq!(seen, [vec![b"one".to_vec(), b"two".to_vec(), b"end".to_vec()], vec![b"two".to_vec(), b"end".to_vec()], vec![b"end".to_vec()]]);
    }
}
