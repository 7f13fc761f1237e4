//! Working memory: aligned buffers, kept for reuse.
//!
//! A fresh buffer of a few megabytes costs a page fault every 4 KiB, several times what a small
//! step's arithmetic does. An [`Arena`] takes buffers back when they are dropped and hands them
//! out again, so that steady work allocates nothing.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

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
    /// `bytes` is at least [`ALIGNMENT`].
    fn new(bytes: usize) -> Self {
        let layout = Layout::from_size_align(bytes, ALIGNMENT)
            .expect("a buffer is smaller than the address space");
        // SAFETY: the size is not zero, as `Arena::take` asks for at least ALIGNMENT.
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
struct Free {
    /// The latest last, each with how many had come back before it.
    blocks: Vec<(u64, Block)>,
    /// How many have come back.
    returned: u64,
}

/// Where buffers come from, and go when they are dropped.
#[derive(Default)]
pub(crate) struct Arena(Mutex<Free>);

impl Arena {
    /// The most buffers that wait. One more lets the one go that has waited longest.
    const MOST: usize = 64;

    /// How many others come back while one waits. Steady work asks for each of its own again much
    /// sooner: what waits longer was for a larger batch, or is what its owner kept for a while.
    const PATIENCE: u64 = 512;

    /// None where another thread has the lock. It would give it back at once, but in the child of a
    /// fork there may be nobody who does: whoever gets nothing does without what waits.
    fn free(&self) -> Option<MutexGuard<'_, Free>> {
        match self.0.try_lock() {
            Ok(free) => Some(free),
            Err(TryLockError::Poisoned(free)) => Some(free.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// A buffer for `len` numbers of unspecified value.
    ///
    /// # Panics
    /// If so many cannot be addressed.
    pub fn take<E: Real>(self: &Arc<Self>, len: usize) -> Buffer<E> {
        let bytes = len
            .checked_mul(size_of::<E>())
            .filter(|&bytes| bytes <= isize::MAX as usize / 4)
            .expect("a buffer is smaller than the address space")
            .next_multiple_of(ALIGNMENT)
            .max(ALIGNMENT);
        let block = self.free().and_then(|mut free| {
            let blocks = &mut free.blocks;
            let size = |i: usize| blocks[i].1.layout.size();
            // Steady work finds what it has just given back; else the smallest that is not a waste.
            let fit = (0..blocks.len()).rev().find(|&i| size(i) == bytes);
            let fit = fit.or_else(|| {
                (0..blocks.len())
                    .filter(|&i| (bytes..=2 * bytes + 4096).contains(&size(i)))
                    .min_by_key(|&i| size(i))
            });
            fit.map(|i| blocks.remove(i).1)
        });
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
        let Some(mut free) = self.home.free() else {
            return; // and the block goes back to the system
        };
        let now = free.returned;
        free.returned += 1;
        free.blocks
            .extend(self.block.take().map(|block| (now, block)));
        let too_many = free.blocks.len() > Arena::MOST;
        let oldest =
            (too_many || now - free.blocks[0].0 > Arena::PATIENCE).then(|| free.blocks.remove(0));
        // Memory goes back to the system outside the lock.
        drop(free);
        drop(oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(arena: &Arena) -> usize {
        arena.0.lock().unwrap().blocks.len()
    }

    #[test]
    fn a_dropped_buffer_is_used_again() {
        let arena = Arc::<Arena>::default();
        let mut first = arena.take::<f32>(1000);
        first.fill(7.0);
        let at = first.as_ptr();
        drop(first);
        assert_eq!(waiting(&arena), 1);
        // As another type too, and for fewer numbers; zeros are zeros all the same.
        let second = arena.zeros::<f64>(400);
        assert_eq!(second.as_ptr().cast(), at);
        assert_eq!(&*second, [0.0; 400]);
        assert_eq!(waiting(&arena), 0);
        // Two at a time are two.
        assert_ne!(arena.take::<f64>(400).as_ptr(), second.as_ptr());
    }

    #[test]
    fn a_buffer_fits_and_does_not_waste() {
        let arena = Arc::<Arena>::default();
        let sizes = [100_000, 3_000, 10_000];
        let places = sizes.map(|len| arena.take::<f32>(len)).map(|b| b.as_ptr());
        assert_eq!(waiting(&arena), 3);
        // The smallest that is large enough; none that is more than twice as large.
        assert_eq!(arena.take::<f32>(2_500).as_ptr(), places[1]);
        assert_eq!(arena.take::<f32>(6_000).as_ptr(), places[2]);
        assert!(!places.contains(&arena.take::<f32>(40_000).as_ptr()));
    }

    #[test]
    fn the_longest_waiting_buffers_make_room() {
        let arena = Arc::<Arena>::default();
        // Sizes that are never asked for again.
        let stale: Vec<_> = (0..100).map(|i| arena.take::<f64>(10_000 + i)).collect();
        drop(stale);
        assert_eq!(waiting(&arena), Arena::MOST);
        let steady = arena.take::<f64>(1_000_000);
        let at = steady.as_ptr();
        drop(steady);
        assert_eq!(arena.take::<f64>(1_000_000).as_ptr(), at);
        assert_eq!(waiting(&arena), Arena::MOST);
    }

    #[test]
    fn what_nobody_asks_for_any_longer_is_let_go() {
        let arena = Arc::<Arena>::default();
        let large: Vec<_> = (0..8).map(|_| arena.take::<f32>(100_000)).collect();
        drop(large);
        assert_eq!(waiting(&arena), 8);
        for _ in 8..=Arena::PATIENCE {
            drop(arena.take::<f32>(1000));
        }
        assert_eq!(waiting(&arena), 9);
        for _ in 0..8 {
            drop(arena.take::<f32>(1000));
        }
        assert_eq!(waiting(&arena), 1);
    }

    #[test]
    fn nobody_waits_for_a_lock_that_may_never_open() {
        let arena = Arc::<Arena>::default();
        let (kept, dropped) = (arena.take::<f32>(100), arena.take::<f32>(100));
        drop(kept);
        let held = arena.0.lock().unwrap();
        assert_eq!(*arena.zeros::<f32>(100), [0.0; 100]);
        drop(dropped);
        assert_eq!(held.blocks.len(), 1);
    }

    #[test]
    fn buffers_are_aligned_may_be_empty_and_outlive_their_arena() {
        let arena = Arc::<Arena>::default();
        let buffers: Vec<_> = [0, 1, 5, 17].map(|len| arena.take::<f32>(len)).into();
        drop(arena);
        for (buffer, len) in buffers.iter().zip([0, 1, 5, 17]) {
            assert_eq!(buffer.len(), len);
            assert_eq!(buffer.as_ptr() as usize % ALIGNMENT, 0);
        }
    }

    #[test]
    #[should_panic(expected = "address space")]
    fn a_length_that_wraps_is_refused() {
        let _ = Arc::<Arena>::default().take::<f64>(usize::MAX / 8 + 2);
    }
}
