//! Panels of weights, packed all at once to be kept, or each where it is used.

use std::sync::Arc;

use crate::buffer::{Arena, Buffer};
use crate::parallel;
use crate::simd::Real;

/// How many threads the packing of so many numbers is worth.
pub(super) fn packers(numbers: usize) -> usize {
    const WORTHWHILE: usize = 1 << 15;
    let threads = parallel::num_threads().unwrap_or(1);
    threads.min(1 + numbers / WORTHWHILE)
}

/// Writes a panel.
type Pack<'a, E> = Box<dyn Fn(usize, &mut [E]) + Send + Sync + 'a>;

/// Panels of a matrix's weights.
pub(crate) struct Panels<'a, E> {
    /// Numbers of a panel.
    size: usize,
    arena: Arc<Arena>,
    from: From<'a, E>,
}

enum From<'a, E> {
    /// All panels, one after another.
    Packed(Buffer<E>),
    /// A matrix as its owner has it. Who uses each of its weights once or twice reads them from there:
    /// to write and keep what is packed of them, and to compare it the next time, costs more.
    Lent(Pack<'a, E>),
}

impl<'a, E: Real> Panels<'a, E> {
    /// Panels of so many numbers that `pack` writes.
    pub fn new(
        size: usize,
        arena: &Arc<Arena>,
        pack: impl Fn(usize, &mut [E]) + Send + Sync + 'a,
    ) -> Self {
        Panels {
            size,
            arena: Arc::clone(arena),
            from: From::Lent(Box::new(pack)),
        }
    }

    /// The same with all of `count` panels packed.
    pub fn packed(self, count: usize) -> Panels<'static, E> {
        let Panels { size, arena, from } = self;
        let all = match from {
            From::Packed(all) => all,
            From::Lent(pack) => {
                let mut all = arena.take(size * count);
                let workers = packers(all.len());
                let panels = all.chunks_exact_mut(size.max(1)).enumerate().collect();
                parallel::for_each(workers, panels, |(panel, out): (usize, &mut [E])| {
                    pack(panel, out);
                });
                all
            }
        };
        Panels {
            size,
            arena,
            from: From::Packed(all),
        }
    }

    /// To be asked by one thread for panel after panel.
    pub fn reader(&self) -> Reader<'_, E> {
        Reader {
            panels: self,
            held: None,
        }
    }
}

/// Gives panels to one thread.
pub(crate) struct Reader<'a, E> {
    panels: &'a Panels<'a, E>,
    /// The panels packed last, of those that are lent: the first, their number, and they.
    held: Option<(usize, usize, Buffer<E>)>,
}

impl<E: Real> Reader<'_, E> {
    /// How many panels of `wide` to ask for at once.
    pub fn at_once(&self, wide: usize) -> usize {
        /// Bytes that are packed and read again faster than they come from beyond.
        const NEAR: usize = 100 << 10;
        match self.panels.from {
            From::Packed(_) => wide,
            From::Lent(_) => (NEAR / (self.panels.size * size_of::<E>()).max(1)).clamp(1, wide),
        }
    }

    /// The weights of `count` panels, one after another, until the next call.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn get(&mut self, first: usize, count: usize) -> *const E {
        let size = self.panels.size;
        let pack = match &self.panels.from {
            From::Packed(all) => return all[first * size..][..count * size].as_ptr(),
            From::Lent(pack) => pack,
        };
        let room = match self.held.take() {
            Some((panel, panels, room)) if panel == first && panels >= count => {
                return self.held.insert((panel, panels, room)).2.as_ptr();
            }
            Some((_, _, room)) if room.len() >= count * size => Some(room),
            _ => None,
        };
        let mut room = room.unwrap_or_else(|| self.panels.arena.take(count * size));
        let panels = room.chunks_exact_mut(size.max(1)).take(count);
        for (i, out) in panels.enumerate() {
            pack(first + i, out);
        }
        self.held.insert((first, count, room)).2.as_ptr()
    }
}
