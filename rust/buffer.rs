//! Working memory: aligned buffers, kept for reuse.
//!
//! A fresh buffer of a few megabytes costs a page fault every 4 KiB, several times what a small
//! step's arithmetic does. An [`Arena`] takes buffers back when they are dropped and hands them
//! out again, so that steady work allocates nothing.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use crate::simd::Real;

/// A cache line, which is also the widest register.
const ALIGNMENT: usize = 64;

/// A block of initialised memory.
struct Block {
    at: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a block is plain memory with one owner.
unsafe impl Send for Block {}
// SAFETY: shared references to a block give no access to its memory.
unsafe impl Sync for Block {}

impl Block {
    fn new(bytes: usize) -> Self {
        let layout = Layout::from_size_align(bytes.max(ALIGNMENT), ALIGNMENT)
            .expect("a buffer is smaller than the address space");
        // SAFETY: the layout's size is at least ALIGNMENT, so not zero.
        let at = unsafe { alloc_zeroed(layout) };
        let at = NonNull::new(at).unwrap_or_else(|| handle_alloc_error(layout));
        Block { at, layout }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: `at` came from `alloc_zeroed` with this layout and is freed once.
        unsafe { dealloc(self.at.as_ptr(), self.layout) }
    }
}

/// Buffers waiting to be used again.
#[derive(Default)]
pub(crate) struct Arena(Mutex<Vec<Block>>);

impl Arena {
    /// More than this many waiting buffers are not kept.
    const MOST: usize = 64;

    /// A buffer for `len` numbers of unspecified value.
    pub fn take<E: Real>(self: &Arc<Self>, len: usize) -> Buffer<E> {
        let bytes = (len * size_of::<E>()).next_multiple_of(ALIGNMENT);
        let block = {
            let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let fit = (0..free.len())
                .filter(|&i| (bytes..=2 * bytes + 4096).contains(&free[i].layout.size()))
                .min_by_key(|&i| free[i].layout.size());
            fit.map(|i| free.swap_remove(i))
        };
        Buffer {
            block: Some(block.unwrap_or_else(|| Block::new(bytes))),
            len,
            home: Arc::clone(self),
            element: PhantomData,
        }
    }

    /// A buffer of zeros.
    pub fn zeros<E: Real>(self: &Arc<Self>, len: usize) -> Buffer<E> {
        let mut buffer = self.take(len);
        buffer.fill(E::ZERO);
        buffer
    }
}

/// An array in an arena's memory, aligned to a cache line.
pub(crate) struct Buffer<E> {
    /// There until the drop.
    block: Option<Block>,
    len: usize,
    home: Arc<Arena>,
    element: PhantomData<E>,
}

impl<E: Real> std::ops::Deref for Buffer<E> {
    type Target = [E];
    fn deref(&self) -> &[E] {
        let block = self.block.as_ref().expect("a buffer has its block");
        // SAFETY: `take` sized the block for `len` numbers; it is aligned to ALIGNMENT and
        // initialised, and every bit pattern is a number.
        unsafe { std::slice::from_raw_parts(block.at.as_ptr().cast(), self.len) }
    }
}

impl<E: Real> std::ops::DerefMut for Buffer<E> {
    fn deref_mut(&mut self) -> &mut [E] {
        let block = self.block.as_ref().expect("a buffer has its block");
        // SAFETY: as in `deref`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(block.at.as_ptr().cast(), self.len) }
    }
}

impl<E> Drop for Buffer<E> {
    fn drop(&mut self) {
        let mut free = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < Arena::MOST {
            free.extend(self.block.take());
        }
    }
}
