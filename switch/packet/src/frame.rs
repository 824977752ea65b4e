//! An Ethernet frame in a pooled buffer, with what is still to be done to it.

use std::{fmt, rc::Rc};

use crate::{
    offload::Offload,
    pool::{Buffer, FreeList, HEADROOM},
};

/// One frame: bytes from the destination address on, with headroom before them.
///
/// Not `Clone`: a second owner is spelled [`share`](Self::share) (read-only) or
/// [`duplicate`](Self::duplicate) (a copy). Dropping the last handle returns the buffer to its pool.
pub struct Frame {
    buffer: Buffer,
    home: Rc<FreeList>,
    head: u32,
    length: u32,
    /// Work that the sender left to the device: checksum to finish, segments to cut.
    pub offload: Offload,
}

#[expect(clippy::cast_possible_truncation, reason = "buffers are shorter than 2^17 bytes")]
impl Frame {
    pub(crate) fn empty(buffer: Buffer, home: Rc<FreeList>) -> Self {
        Self { buffer, home, head: HEADROOM as u32, length: 0, offload: Offload::NONE }
    }

    /// The frame's bytes.
    #[must_use]
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        let head = self.head as usize;
        &self.buffer[head..head + self.length as usize]
    }

    /// The frame's bytes, to change.
    ///
    /// # Panics
    /// When the buffer is shared: call [`make_unique`](Self::make_unique) first.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let (head, length) = (self.head as usize, self.length as usize);
        &mut self.storage_mut()[head..head + length]
    }

    /// Length in bytes, without the frame check sequence.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.length as usize
    }

    /// True when no bytes are in it.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Longest frame that fits behind the current head, bytes.
    #[must_use]
    #[inline]
    pub fn capacity(&self) -> usize {
        self.buffer.len() - self.head as usize
    }

    /// Bytes free before the head.
    #[must_use]
    #[inline]
    pub fn headroom(&self) -> usize {
        self.head as usize
    }

    /// Sets the length; new bytes keep what the buffer held.
    ///
    /// # Panics
    /// Beyond [`capacity`](Self::capacity).
    #[inline]
    pub fn set_len(&mut self, length: usize) {
        assert!(length <= self.capacity(), "frame longer than its buffer");
        self.length = length as u32;
    }

    /// Places the frame at `head` bytes into the buffer, for a device that wrote it there.
    ///
    /// # Panics
    /// When `head + length` is beyond the buffer.
    #[inline]
    pub fn set_bounds(&mut self, head: usize, length: usize) {
        assert!(head + length <= self.buffer.len(), "frame outside its buffer");
        self.head = head as u32;
        self.length = length as u32;
    }

    /// Takes `count` bytes off the front (decapsulation).
    ///
    /// # Panics
    /// When the frame is shorter.
    #[inline]
    pub fn pull(&mut self, count: usize) {
        assert!(count <= self.len(), "pull beyond the frame");
        self.head += count as u32;
        self.length -= count as u32;
    }

    /// Adds `count` bytes at the front (encapsulation); they hold rubbish until written.
    ///
    /// # Panics
    /// When the headroom is smaller.
    #[inline]
    pub fn push(&mut self, count: usize) {
        assert!(count <= self.headroom(), "push beyond the headroom");
        self.head -= count as u32;
        self.length += count as u32;
    }

    /// The `count` bytes just before the frame and the frame itself, as one slice to change.
    /// `None` when the buffer is shared.
    #[inline]
    pub fn with_header_mut(&mut self, count: usize) -> Option<&mut [u8]> {
        let (head, end) = (self.head as usize, (self.head + self.length) as usize);
        let storage = Rc::get_mut(&mut self.buffer)?;
        Some(&mut storage[head - count..end])
    }

    /// The whole buffer with its headroom, for a device to write into.
    ///
    /// # Panics
    /// When the buffer is shared.
    #[inline]
    pub fn storage_mut(&mut self) -> &mut [u8] {
        Rc::get_mut(&mut self.buffer).expect("a shared frame was changed")
    }

    /// A second, read-only handle on the same bytes.
    #[must_use]
    pub fn share(&self) -> Self {
        Self {
            buffer: Rc::clone(&self.buffer),
            home: Rc::clone(&self.home),
            head: self.head,
            length: self.length,
            offload: self.offload,
        }
    }

    /// True when no other handle reads these bytes.
    #[must_use]
    #[inline]
    pub fn is_unique(&self) -> bool {
        Rc::strong_count(&self.buffer) == 1
    }

    /// A copy in a buffer of the same class; `None` when the pool is empty.
    #[must_use]
    pub fn duplicate(&self) -> Option<Self> {
        let mut copy = self.home.take()?;
        copy.set_bounds(self.headroom(), self.len());
        copy.bytes_mut().copy_from_slice(self.bytes());
        copy.offload = self.offload;
        Some(copy)
    }

    /// Makes the bytes ours alone, copying when they are shared. False when the pool is empty; the
    /// frame is then unchanged.
    #[must_use]
    #[inline]
    pub fn make_unique(&mut self) -> bool {
        self.is_unique() || self.move_to_a_copy()
    }

    #[cold]
    fn move_to_a_copy(&mut self) -> bool {
        let Some(copy) = self.duplicate() else { return false };
        *self = copy;
        true
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        if self.is_unique() {
            self.home.put(&self.buffer);
        }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = &self.bytes()[..self.len().min(32)];
        write!(f, "Frame({} bytes, {:?}, {head:02x?}..)", self.len(), self.offload)
    }
}
