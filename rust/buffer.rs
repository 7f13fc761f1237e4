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

/// Buffers waiting to be used again, the latest last.
#[derive(Default)]
pub(crate) struct Arena(Mutex<Vec<Block>>);

impl Arena {
    /// The most buffers that wait. One more lets the one go that has waited longest: it is of a
    /// size that nobody asks for any longer.
    const MOST: usize = 64;

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
        let block = {
            let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Steady work finds what it has just given back; else the smallest that is not a waste.
            let fit = free.iter().rposition(|block| block.layout.size() == bytes);
            let fit = fit.or_else(|| {
                (0..free.len())
                    .filter(|&i| (bytes..=2 * bytes + 4096).contains(&free[i].layout.size()))
                    .min_by_key(|&i| free[i].layout.size())
            });
            fit.map(|i| free.remove(i))
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
        let oldest = {
            let mut free = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
            free.extend(self.block.take());
            (free.len() > Arena::MOST).then(|| free.remove(0))
        };
        // Memory goes back to the system outside the lock.
        drop(oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(arena: &Arena) -> usize {
        arena.0.lock().unwrap().len()
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
