//! Some rows of a batch, and the threads that go through its steps together.

use std::ops::Range;
use std::ptr;
use std::sync::Arc;

use super::CACHE;
use crate::buffer::{Arena, Buffer};
use crate::layer::{Geometry, Sweep};
use crate::parallel::{Member, Team};
use crate::simd::Real;

/// Rows for which weights from beyond a core's cache are worth reading.
pub(super) const WORTHWHILE: usize = 256;

/// A slice of the rows of a pass, whose units are shared by a team: each part of a step is a range
/// of panels.
pub(crate) struct Slice<E> {
    pub(super) rows: Range<usize>,
    team: Team,
    /// Steps whose input is multiplied ahead of the time loop, at once; 0 where each does its own.
    pub(super) ahead: usize,
    /// Sums of bias and input of those steps, `[step][panel][row][slots][L]`; null where the pass
    /// saves as much, to leave them there.
    pub(super) sums: *mut E,
    /// What `sums` points to.
    _room: Option<Buffer<E>>,
}

// SAFETY: of the sums, each part of a step reads and writes its own panels'.
unsafe impl<E: Sync> Sync for Slice<E> {}

impl<E: Real> Slice<E> {
    /// The rows, by `parts` threads at most.
    pub fn new(rows: Range<usize>, parts: usize) -> Self {
        Slice {
            rows,
            team: Team::new(parts),
            ahead: 0,
            sums: ptr::null_mut(),
            _room: None,
        }
    }

    /// The same with room for what forward multiplies ahead.
    ///
    /// The order of a sum is the same either way, and so are its bits. A step that does its own
    /// keeps the sums in registers, but reads all weights. When those do not stay in cache, or when
    /// there is one row only, multiplying ahead reads the input's weights once for many rows.
    pub fn looking_ahead(mut self, g: &Geometry, sweep: &Sweep<E>, arena: &Arc<Arena>) -> Self {
        let (rows, longest) = (self.rows.len(), sweep.steps.longest());
        let bytes = g.forward_panel() * g.panels() * size_of::<E>() / self.team.parts();
        let few = rows == 1 || (bytes > CACHE && 2 * rows <= WORTHWHILE);
        if few && longest > 1 && g.input.extent() > 0 && sweep.ids.is_none() {
            self.ahead = (WORTHWHILE / rows.max(1)).min(if rows == 1 { 64 } else { longest });
            if sweep.saved.is_null() || g.saved_row() < g.slot_row() {
                let mut room = arena.take(self.ahead * g.panels() * rows * g.slot_row());
                self.sums = room.as_mut_ptr();
                self._room = Some(room);
            }
        }
        self
    }

    /// The parts of a step, one a thread.
    pub fn parts(&self) -> usize {
        self.team.parts()
    }

    /// The calling thread's way through the steps, `own` being its part.
    pub fn member(&self, own: usize) -> Member<'_> {
        self.team.member(own)
    }

    /// A part of so many panels.
    pub(super) fn panels(&self, of: usize, part: usize) -> Range<usize> {
        match self.parts() {
            1 => 0..of,
            parts => of * part / parts..of * (part + 1) / parts,
        }
    }
}
