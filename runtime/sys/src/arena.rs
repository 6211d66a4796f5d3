//! A memory allocator for a process that lives for milliseconds.
//!
//! The first `CAPACITY` bytes are handed out from a static arena, one after the other, and
//! not taken back, except the newest; what comes after is the system allocator's. A command
//! such as `create` stays within the arena and so never asks the kernel for memory, where
//! musl's allocator maps and unmaps a page for nearly every size class.
//!
//! Not for threads: the runtime has one.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::UnsafeCell,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// The arena's size in bytes. Pages of it that are never used are never resident.
const CAPACITY: usize = 1 << 20;

/// The least alignment of a block, whatever was asked for. As malloc does: nix keeps control
/// messages in a `Vec<u8>` and writes `cmsghdr`s to it.
const LEAST_ALIGN: usize = align_of::<libc::cmsghdr>();

/// The allocator; to be the program's `#[global_allocator]`.
#[derive(Debug)]
pub struct Arena {
    memory: Memory,
    used: AtomicUsize,
}

#[derive(Debug)]
#[repr(align(4096))]
struct Memory(UnsafeCell<[u8; CAPACITY]>);

// SAFETY: each byte is handed out once; the counter that sees to it is atomic, so even
// another thread would get bytes of its own.
unsafe impl Sync for Memory {}

impl Arena {
    /// An empty arena.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a default could not be const")]
    pub const fn new() -> Self {
        Self { memory: Memory(UnsafeCell::new([0; CAPACITY])), used: AtomicUsize::new(0) }
    }

    fn start(&self) -> usize {
        self.memory.0.get() as usize
    }

    /// Where in the arena a pointer leads.
    fn offset(&self, pointer: *mut u8) -> Option<usize> {
        (pointer as usize).checked_sub(self.start()).filter(|offset| *offset < CAPACITY)
    }

    /// Takes `size` bytes at the next address of this alignment (at most a page).
    fn take(&self, size: usize, align: usize) -> Option<usize> {
        if align > 4096 {
            return None;
        }
        let align = align.max(LEAST_ALIGN);
        let mut used = self.used.load(Relaxed);
        loop {
            let begin = used.checked_next_multiple_of(align)?;
            let end = begin.checked_add(size).filter(|end| *end <= CAPACITY)?;
            match self.used.compare_exchange_weak(used, end, Relaxed, Relaxed) {
                Ok(_) => return Some(begin),
                Err(now) => used = now,
            }
        }
    }
}

// SAFETY: a block of the arena is as large and as aligned as asked, is handed out to one
// owner, and stays valid for ever; every other block is the system allocator's.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.take(layout.size(), layout.align()) {
            Some(begin) => (self.start() + begin) as *mut u8,
            // SAFETY: the caller's layout is passed on.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        match self.offset(pointer) {
            Some(offset) => {
                // The newest block can be taken back; any other stays unused.
                let end = offset + layout.size();
                let _ = self.used.compare_exchange(end, offset, Relaxed, Relaxed);
            }
            // SAFETY: not of the arena, so of the system allocator, with the same layout.
            None => unsafe { System.dealloc(pointer, layout) },
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Some(offset) = self.offset(pointer) else {
            // SAFETY: not of the arena, so of the system allocator, with the same layout.
            return unsafe { System.realloc(pointer, layout, new_size) };
        };
        // The newest block grows or shrinks where it is.
        let end = offset + layout.size();
        let new_end = offset.saturating_add(new_size);
        if new_end <= CAPACITY && self.used.compare_exchange(end, new_end, Relaxed, Relaxed).is_ok()
        {
            return pointer;
        }
        // SAFETY: the caller guarantees that the new size is valid for the alignment.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: the new layout has the caller's non-zero size.
        let new = unsafe { self.alloc(new_layout) };
        if !new.is_null() {
            let count = layout.size().min(new_size);
            // SAFETY: both blocks hold at least `count` bytes, and a new one does not overlap
            // one that is in use.
            unsafe { std::ptr::copy_nonoverlapping(pointer, new, count) };
            // SAFETY: the old block is the caller's to give back.
            unsafe { self.dealloc(pointer, layout) };
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_apart_and_grow_in_place_when_they_are_the_newest() {
        static ARENA: Arena = Arena::new();
        let layout = |size, align| Layout::from_size_align(size, align).unwrap();
        // SAFETY: valid layouts of non-zero size; blocks are used within their sizes.
        unsafe {
            let a = ARENA.alloc(layout(3, 1));
            assert_eq!(ARENA.alloc(layout(1, 1)) as usize % LEAST_ALIGN, 0);
            let b = ARENA.alloc(layout(8, 64));
            assert_eq!(b as usize % 64, 0);
            assert!(b as usize >= a as usize + 3);
            assert_eq!(ARENA.realloc(b, layout(8, 64), 4000), b);
            a.write_bytes(7, 3);
            let c = ARENA.realloc(a, layout(3, 1), 100);
            assert_ne!(c, a);
            assert_eq!(*c.add(2), 7);
            ARENA.dealloc(c, layout(100, 1));
            assert_eq!(ARENA.alloc(layout(100, 1)), c);
        }
    }

    #[test]
    fn what_does_not_fit_is_the_systems() {
        static ARENA: Arena = Arena::new();
        let layout = Layout::from_size_align(CAPACITY + 1, 8).unwrap();
        // SAFETY: a valid layout, used within its size, given back once.
        unsafe {
            let block = ARENA.alloc(layout);
            assert!(!block.is_null() && ARENA.offset(block).is_none());
            block.write(1);
            ARENA.dealloc(block, layout);
        }
    }
}
