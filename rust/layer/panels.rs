//! Panels of weights, packed all at once to be kept, or by parts where these are used.

use std::ops::Range;
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

/// Writes some columns of a panel.
type Pack<'a, E> = Box<dyn Fn(usize, Range<usize>, &mut [E]) + Send + Sync + 'a>;

/// Panels of a matrix's weights, column after column.
pub(crate) struct Panels<'a, E> {
    columns: Columns,
    arena: Arc<Arena>,
    from: Origin<'a, E>,
}

/// The columns of a panel: two kinds, how many there are of each, and the numbers of one.
#[derive(Clone, Copy)]
struct Columns([(usize, usize); 2]);

impl Columns {
    fn count(self) -> usize {
        self.0[0].0 + self.0[1].0
    }
    /// Numbers of a panel before a column.
    fn before(self, column: usize) -> usize {
        let [(count, numbers), (_, others)] = self.0;
        column.min(count) * numbers + column.saturating_sub(count) * others
    }
    /// Numbers of some columns.
    fn numbers(self, columns: &Range<usize>) -> usize {
        self.before(columns.end) - self.before(columns.start)
    }
}

enum Origin<'a, E> {
    /// All panels, one after another.
    Packed(Buffer<E>),
    /// A matrix as its owner has it. Who uses each of its weights once or twice reads them from there:
    /// to write and keep what is packed of them, and to compare it the next time, costs more.
    Lent(Pack<'a, E>),
}

impl<'a, E: Real> Panels<'a, E> {
    /// Panels whose columns are as [`Geometry::forward_columns`](super::Geometry::forward_columns)
    /// says and `pack` writes.
    pub fn new(
        columns: [(usize, usize); 2],
        arena: &Arc<Arena>,
        pack: impl Fn(usize, Range<usize>, &mut [E]) + Send + Sync + 'a,
    ) -> Self {
        Panels {
            columns: Columns(columns),
            arena: Arc::clone(arena),
            from: Origin::Lent(Box::new(pack)),
        }
    }

    /// The same with all of `count` panels packed.
    pub fn packed(self, count: usize) -> Panels<'static, E> {
        let Panels {
            columns,
            arena,
            from,
        } = self;
        let (all, size) = (0..columns.count(), columns.before(columns.count()));
        let packed = match from {
            Origin::Packed(packed) => packed,
            Origin::Lent(pack) => {
                let mut packed = arena.take(size * count);
                let workers = packers(packed.len());
                let panels = packed.chunks_exact_mut(size.max(1)).enumerate().collect();
                parallel::for_each(workers, panels, |(panel, out): (usize, &mut [E])| {
                    pack(panel, all.clone(), out);
                });
                packed
            }
        };
        Panels {
            columns,
            arena,
            from: Origin::Packed(packed),
        }
    }

    /// To be asked by one thread for part after part.
    pub fn reader(&self) -> Reader<'_, E> {
        Reader {
            panels: self,
            held: None,
        }
    }
}

/// Gives weights to one thread.
pub(crate) struct Reader<'a, E> {
    panels: &'a Panels<'a, E>,
    /// What was packed last of weights that are lent, and what it is.
    held: Option<(Part, Buffer<E>)>,
}

/// Some columns of some panels.
#[derive(Clone, PartialEq, Eq)]
struct Part {
    first: usize,
    count: usize,
    columns: Range<usize>,
}

impl<E: Real> Reader<'_, E> {
    /// How many panels, of `wide`, and how many of their columns to ask for at once, by whom does
    /// so once or again and again.
    pub fn at_once(&self, wide: usize, is_once: bool) -> (usize, usize) {
        /// Bytes that go from the packing to whoever reads them through the nearest cache.
        const NEAREST: usize = 32 << 10;
        /// Bytes that are packed and read again faster than they come from beyond.
        const NEAR: usize = 100 << 10;
        /// Columns of a row of the matrix: some lines of a cache, one after another.
        const RUN: usize = 64;
        let all = self.panels.columns.count();
        let (columns, bytes) = match self.panels.from {
            Origin::Packed(_) => return (wide, all),
            Origin::Lent(_) if is_once => (RUN, NEAREST),
            Origin::Lent(_) => (all, NEAR),
        };
        let numbers = self.panels.columns.before(all).div_ceil(all.max(1)) * columns;
        let count = bytes / (numbers * size_of::<E>()).max(1);
        (count.clamp(1, wide), columns)
    }

    /// Weights of some columns of `count` panels, until the next call, and the numbers from one
    /// panel's to the next one's.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn get(
        &mut self,
        (first, count): (usize, usize),
        columns: Range<usize>,
    ) -> (*const E, usize) {
        let of = self.panels.columns;
        let numbers = of.numbers(&columns);
        let pack = match &self.panels.from {
            Origin::Packed(all) => {
                let size = of.before(of.count());
                let part = &all[first * size + of.before(columns.start)..];
                return (part[..(count - 1) * size + numbers].as_ptr(), size);
            }
            Origin::Lent(pack) => pack,
        };
        let part = Part {
            first,
            count,
            columns,
        };
        let room = match self.held.take() {
            Some((held, room)) if held == part => room,
            held => {
                let room = held.map(|(_, room)| room);
                let room = room.filter(|room| room.len() >= count * numbers);
                let mut room = room.unwrap_or_else(|| self.panels.arena.take(count * numbers));
                let panels = room.chunks_exact_mut(numbers.max(1)).take(count);
                for (i, out) in panels.enumerate() {
                    pack(first + i, part.columns.clone(), out);
                }
                room
            }
        };
        (self.held.insert((part, room)).1.as_ptr(), numbers)
    }
}
