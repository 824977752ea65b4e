//! A stream cut into lines.

/// What came of a line that is not whole yet.
#[derive(Debug)]
pub(super) struct Lines {
    held: Vec<u8>,
    /// Up to here there is no end of a line.
    searched: usize,
    longest: usize,
}

/// A line longer than was allowed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

impl Lines {
    /// Lines of at most `longest` bytes.
    pub(super) const fn new(longest: usize) -> Self {
        Self { held: Vec::new(), searched: 0, longest }
    }

    /// What came next.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// The next whole line, without its end; empty ones are left out.
    ///
    /// # Errors
    /// [`TooLong`], and then for ever.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        while let Some(length) = self.held.iter().skip(self.searched).position(|byte| *byte == b'\n') {
            let rest = self.held.split_off(self.searched + length + 1);
            let mut line = std::mem::replace(&mut self.held, rest);
            self.searched = 0;
            line.pop();
            if !line.is_empty() {
                return Ok(Some(line));
            }
        }
        self.searched = self.held.len();
        if self.searched > self.longest { Err(TooLong) } else { Ok(None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_however_they_arrive() {
        let text = b"one\n\ntwo\nthree";
        for size in 1..=text.len() {
            let mut lines = Lines::new(5);
            let mut seen = Vec::new();
            for piece in text.chunks(size) {
                lines.push(piece);
                while let Some(line) = lines.next().unwrap() {
                    seen.push(line);
                }
            }
            assert_eq!(seen, [b"one", b"two"]);
        }
    }

    #[test]
    fn a_line_without_end_is_not_kept() {
        let mut lines = Lines::new(5);
        lines.push(b"123456");
        assert_eq!(lines.next(), Err(TooLong));
    }
}
