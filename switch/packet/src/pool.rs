//! Fixed-capacity frame buffers in two sizes. In the steady state nothing is allocated: a dropped
//! [`Frame`](crate::Frame) puts its buffer back on the free list it came from.
//!
//! Buffers are made on first need, so that an idle switch holds little memory; the kernel backs
//! only the pages that were touched, so a small frame in a large buffer costs one or two pages.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use crate::frame::Frame;

/// Bytes kept free before each frame: room for a virtio header or an outer Ethernet + IPv6 + UDP +
/// VXLAN header (14 + 4 + 40 + 8 + 8).
pub const HEADROOM: usize = 128;

/// Largest frame a small buffer holds, bytes: an MTU of 1500 with headers and tags, and to spare.
const SMALL_FRAME: usize = 1920;
/// Largest frame a large buffer holds, bytes: 65535 of IP, Ethernet, two tags.
const LARGE_FRAME: usize = 65535 + 14 + 8 + 3;

/// Which of the two sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufferClass {
    /// Frames of ordinary wire size.
    Small,
    /// Jumbo frames and super-frames of up to 64 KiB.
    Large,
}

impl BufferClass {
    /// Largest frame it holds, bytes.
    #[must_use]
    pub const fn frame_capacity(self) -> usize {
        match self {
            Self::Small => SMALL_FRAME,
            Self::Large => LARGE_FRAME,
        }
    }
}

/// How many buffers of each class may exist.
#[derive(Clone, Copy, Debug)]
pub struct PoolConfig {
    /// Buffers of the small class.
    pub small: usize,
    /// Buffers of the large class.
    pub large: usize,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self { small: 8192, large: 2048 }
    }
}

/// What a pool holds at this moment, in buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolStats {
    /// Small buffers in use.
    pub small_used: usize,
    /// Small buffers that may exist.
    pub small_capacity: usize,
    /// Large buffers in use.
    pub large_used: usize,
    /// Large buffers that may exist.
    pub large_capacity: usize,
}

/// The owner of all buffers. Cheap to clone: clones share the buffers.
#[derive(Clone, Debug)]
pub struct Pool {
    small: Rc<FreeList>,
    large: Rc<FreeList>,
}

impl Pool {
    /// A pool with these bounds; nothing is allocated yet.
    #[must_use]
    pub fn new(config: PoolConfig) -> Self {
        Self {
            small: Rc::new(FreeList::new(BufferClass::Small, config.small)),
            large: Rc::new(FreeList::new(BufferClass::Large, config.large)),
        }
    }

    /// An empty frame of a class; `None` when all buffers of the class are in use.
    #[must_use]
    pub fn take(&self, class: BufferClass) -> Option<Frame> {
        let list = match class {
            BufferClass::Small => &self.small,
            BufferClass::Large => &self.large,
        };
        list.take()
    }

    /// An empty frame that can hold `length` bytes: small if it fits and there is one, else large.
    /// `None` when neither is to be had or `length` is more than any buffer holds.
    #[must_use]
    pub fn take_for(&self, length: usize) -> Option<Frame> {
        if length > LARGE_FRAME {
            return None;
        }
        if length <= SMALL_FRAME
            && let Some(frame) = self.take(BufferClass::Small)
        {
            return Some(frame);
        }
        self.take(BufferClass::Large)
    }

    /// A frame with a copy of `bytes`.
    #[must_use]
    pub fn copy_of(&self, bytes: &[u8]) -> Option<Frame> {
        let mut frame = self.take_for(bytes.len())?;
        frame.set_len(bytes.len());
        frame.bytes_mut().copy_from_slice(bytes);
        Some(frame)
    }

    /// Buffers in use and allowed.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        PoolStats {
            small_used: self.small.used.get(),
            small_capacity: self.small.capacity,
            large_used: self.large.used.get(),
            large_capacity: self.large.capacity,
        }
    }

    /// Large buffers that can still be taken.
    #[must_use]
    pub fn large_available(&self) -> usize {
        self.large.capacity - self.large.used.get()
    }
}

/// Storage of one frame. Shared by the handles of a flooded frame.
pub(crate) type Buffer = Rc<Box<[u8]>>;

/// Buffers of one class. Free ones are kept last-in first-out, so that warm memory is used again.
#[derive(Debug)]
pub(crate) struct FreeList {
    class: BufferClass,
    capacity: usize,
    used: Cell<usize>,
    free: RefCell<Vec<Buffer>>,
}

impl FreeList {
    fn new(class: BufferClass, capacity: usize) -> Self {
        Self { class, capacity, used: Cell::new(0), free: RefCell::new(Vec::new()) }
    }

    /// A buffer with its handle's list; `None` when all are in use.
    pub(crate) fn take(self: &Rc<Self>) -> Option<Frame> {
        let free = self.free.borrow_mut().pop();
        let buffer = match free {
            Some(buffer) => buffer,
            None if self.used.get() < self.capacity => {
                Rc::new(vec![0; HEADROOM + self.class.frame_capacity()].into_boxed_slice())
            }
            None => return None,
        };
        self.used.set(self.used.get() + 1);
        Some(Frame::empty(buffer, Rc::clone(self)))
    }

    /// The last handle of `buffer` is going away.
    pub(crate) fn put(&self, buffer: &Buffer) {
        self.used.set(self.used.get() - 1);
        self.free.borrow_mut().push(Rc::clone(buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_frames_come_back_and_capacity_holds() {
        let pool = Pool::new(PoolConfig { small: 1, large: 1 });
        let first = pool.take_for(60).unwrap();
        let second = pool.take_for(60).unwrap();
        assert_eq!(second.capacity(), BufferClass::Large.frame_capacity(), "small ran out");
        assert!(pool.take_for(60).is_none());
        drop(first);
        assert!(pool.take_for(60).is_some());
        drop(second);
        assert_eq!(pool.stats().large_used, 0);
        assert!(pool.take_for(70_000).is_none(), "longer than any buffer");
    }

    #[test]
    fn a_shared_buffer_returns_with_its_last_handle() {
        let pool = Pool::new(PoolConfig { small: 1, large: 0 });
        let frame = pool.copy_of(&[7; 60]).unwrap();
        let shared = frame.share();
        drop(frame);
        assert_eq!(pool.stats().small_used, 1);
        assert_eq!(shared.bytes(), &[7; 60]);
        drop(shared);
        assert_eq!(pool.stats().small_used, 0);
    }
}
