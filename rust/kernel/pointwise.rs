//! A cell's pointwise functions over the rows and panels of a tile. The time loops call them
//! through pointers, so that cells of one shape share a compiled loop.
//!
//! One row is computed after another: the processor begins the next ones while the first waits for
//! its exponentials. (Two to four rows in step, operation by operation, took up to a third longer.)
//! What limits a pass forward are the two pipes that multiply: with AVX-512 on Zen 5 a division takes
//! two of their turns, and so does a store. By that count an LSTM of 48 terms a sum leaves them idle
//! for a twentieth of its time.

use std::marker::PhantomData;

use super::Grid;
use crate::cell::{Carry, Cell, MAX_SLOTS, Signature, Upstream};
use crate::simd::{MAX_LANES, Op, Real, Vector};

/// A cell's pointwise passes, compiled for an instruction set.
///
/// # Safety
/// Of both functions: the CPU has the instruction set, and every grid covers all rows and panels,
/// with as many slots and saved vectors as the cell has.
pub(crate) struct Pointwise<E> {
    pub forward: unsafe fn(&PointwiseForward<E>),
    pub backward: unsafe fn(&PointwiseBackward<E>),
}

impl<E> Pointwise<E> {
    /// Those of the cell `C`.
    pub const fn new<V: Vector<Element = E>, C: Cell>() -> Self {
        Pointwise {
            forward: forward::<V, C>,
            backward: backward::<V, C>,
        }
    }
}

/// See [`Pointwise`].
unsafe fn forward<V: Vector, C: Cell>(tile: &PointwiseForward<V::Element>) {
    // SAFETY: passed on from the caller.
    unsafe { V::invoke(Apply(tile, PhantomData::<C>)) }
}

/// See [`Pointwise`].
unsafe fn backward<V: Vector, C: Cell>(tile: &PointwiseBackward<V::Element>) {
    // SAFETY: passed on from the caller.
    unsafe { V::invoke(Apply(tile, PhantomData::<C>)) }
}

/// A pass over a tile by the cell `C`.
struct Apply<'a, T, C>(&'a T, PhantomData<C>);

/// From sums to states. Every grid has `rows` rows and `panels` panels.
#[derive(Clone, Copy)]
pub(crate) struct PointwiseForward<E> {
    pub rows: usize,
    pub panels: usize,
    /// Units of the last panel. The lanes beyond are padding, and rest.
    pub units: usize,
    /// In: the sums, `slots` vectors each, which are lost.
    pub sums: Grid<*mut E>,
    /// In: the hidden state before; read if the cell reads it.
    pub h_before: Grid<*const E>,
    /// In: the memory before; read if the cell has one.
    pub memory_before: Grid<*const E>,
    /// Out: the hidden state, or what is still to be projected.
    pub h: Grid<*mut E>,
    /// Out: the memory, if the cell has one; may be `memory_before`.
    pub memory: Grid<*mut E>,
    /// Out: what backward needs, `saved` vectors each.
    pub saved: Option<Grid<*mut E>>,
}

impl<V: Vector, C: Cell> Op<V> for Apply<'_, PointwiseForward<V::Element>, C> {
    #[inline(always)]
    unsafe fn run(self) {
        let mut tile = *self.0;
        // So that what is saved has room for the gates.
        const { assert!(C::SIGNATURE.gates == 1 || C::SIGNATURE.saved == C::SIGNATURE.slots) };
        // SAFETY: the caller vouches that every grid covers all rows and panels.
        unsafe {
            if tile.units < V::LANES {
                tile.rest::<V, C>();
            }
            if C::SIGNATURE.gates > 1 {
                // Gates lie where they may stay.
                let gates = tile.saved.unwrap_or(tile.sums);
                tile.gates::<V, C>(gates);
                (tile.sums, tile.saved) = (gates, Some(gates));
            }
            tile.states::<V, C>();
        }
    }
}

impl<E: Real> PointwiseForward<E> {
    /// Gives padding the sums that leave its state at zero. Its products are zero already, but for
    /// those with infinities and NaNs: none of these may get from one unit to another that way.
    ///
    /// # Safety
    /// As [`Pointwise`]; there is a panel.
    #[inline(always)]
    unsafe fn rest<V: Vector<Element = E>, C: Cell>(&self) {
        const { assert!(V::LANES <= MAX_LANES) };
        let signature = C::SIGNATURE;
        let mut is_unit = [E::ZERO; MAX_LANES];
        is_unit[..self.units].fill(E::ONE);
        let mut rest = [E::ZERO; MAX_LANES];
        rest[self.units..].fill(E::from_f64(f64::NEG_INFINITY));
        // SAFETY: both arrays fill a vector, as asserted; for the sums the caller vouches.
        unsafe {
            let (is_unit, rest) = (V::load(is_unit.as_ptr()), V::load(rest.as_ptr()));
            for row in 0..self.rows {
                let sums = self.sums.get(row, self.panels - 1);
                for s in 0..signature.slots {
                    let at = sums.add(s * V::LANES);
                    let sum = V::load(at).where_positive(is_unit);
                    let sum = match signature.rests_at_zero {
                        true => sum,
                        false => sum.add(rest),
                    };
                    sum.store(at);
                }
            }
        }
    }

    /// The first half, from sums to `to`.
    ///
    /// # Safety
    /// As [`Pointwise`]; `to` covers all rows and panels too.
    #[inline(always)]
    unsafe fn gates<V: Vector<Element = E>, C: Cell>(&self, to: Grid<*mut E>) {
        let signature = C::SIGNATURE;
        // SAFETY: passed on from the caller.
        unsafe {
            let zero = V::splat(E::ZERO);
            for row in 0..self.rows {
                for panel in 0..self.panels {
                    let a = load_slots::<V>(self.sums.get(row, panel), signature.slots);
                    let mut memory_before = zero;
                    if signature.has_memory() {
                        memory_before = V::load(self.memory_before.get(row, panel));
                    }
                    let (gates, memory) = C::gates(a, memory_before);
                    let to = to.get(row, panel);
                    for (s, v) in gates.iter().enumerate().take(signature.slots) {
                        v.store(to.add(s * V::LANES));
                    }
                    if signature.has_memory() {
                        memory.store(self.memory.get(row, panel));
                    }
                }
            }
        }
    }

    /// The second half, from `sums`, where the gates are by now, to states.
    ///
    /// # Safety
    /// As [`Pointwise`].
    #[inline(always)]
    unsafe fn states<V: Vector<Element = E>, C: Cell>(&self) {
        let signature = C::SIGNATURE;
        // SAFETY: passed on from the caller.
        unsafe {
            let zero = V::splat(E::ZERO);
            for row in 0..self.rows {
                for panel in 0..self.panels {
                    let gates = load_slots::<V>(self.sums.get(row, panel), signature.slots);
                    let mut memory = zero;
                    if signature.has_memory() {
                        memory = V::load(self.memory.get(row, panel));
                    }
                    let mut h_before = zero;
                    if signature.reads_previous {
                        h_before = V::load(self.h_before.get(row, panel));
                    }
                    let step = C::state(gates, memory, h_before);
                    // Before all other stores: gates that were kept already and have not changed
                    // are neither stored nor loaded then.
                    if let Some(saved) = self.saved {
                        let to = saved.get(row, panel);
                        for (s, v) in step.saved.iter().enumerate().take(signature.saved) {
                            v.store(to.add(s * V::LANES));
                        }
                    }
                    step.h.store(self.h.get(row, panel));
                }
            }
        }
    }
}

/// The vectors of so many slots from `at` on; the others zero.
///
/// # Safety
/// They are there, and the CPU has V's instruction set.
#[inline(always)]
unsafe fn load_slots<V: Vector>(at: *const V::Element, slots: usize) -> [V; MAX_SLOTS] {
    // SAFETY: passed on from the caller.
    unsafe {
        let mut all = [V::splat(V::Element::ZERO); MAX_SLOTS];
        for (s, v) in all.iter_mut().enumerate().take(slots) {
            *v = V::load(at.add(s * V::LANES));
        }
        all
    }
}

/// From gradients of states to gradients of sums. Every grid has `rows` rows and `panels` panels.
#[derive(Clone, Copy)]
pub(crate) struct PointwiseBackward<E> {
    pub rows: usize,
    pub panels: usize,
    /// In: gradient of the hidden state that comes from later steps.
    pub later: Grid<*const E>,
    /// In: gradient of the hidden state that comes from above.
    pub above: Option<Grid<*const E>>,
    /// In: the hidden state before; read if the cell reads it.
    pub h_before: Grid<*const E>,
    /// In: what the step gave, before a projection; read if the cell reads it.
    pub h: Grid<*const E>,
    /// In: the memory before; read if the cell has one.
    pub memory_before: Grid<*const E>,
    /// In: what forward saved, `saved` vectors each.
    pub saved: Grid<*const E>,
    /// In and out: what the step after carried over, then what this one does.
    pub carry: Grid<*mut E>,
    /// Out: the gradients of the sums, `slots` vectors each; may be `saved`.
    pub slots: Grid<*mut E>,
}

impl<E> PointwiseBackward<E> {
    /// What is read and may have left the caches, all but `later` and `carry`, which were just
    /// written: the first of so many grids, each with its numbers of a row in a panel.
    pub fn kept(
        &self,
        signature: &Signature,
        lanes: usize,
    ) -> (usize, [(Grid<*const E>, usize); 5]) {
        let mut kept = [(self.saved, 0); 5];
        let mut found = 0;
        for (grid, vectors) in [
            (self.saved, signature.saved),
            (
                self.above.unwrap_or(self.later),
                self.above.is_some().into(),
            ),
            (self.h, signature.reads_output.into()),
            (self.h_before, signature.reads_previous.into()),
            (self.memory_before, signature.has_memory().into()),
        ] {
            if vectors > 0 {
                kept[found] = (grid, vectors * lanes);
                found += 1;
            }
        }
        (found, kept)
    }
}

impl<V: Vector, C: Cell> Op<V> for Apply<'_, PointwiseBackward<V::Element>, C> {
    #[inline(always)]
    unsafe fn run(self) {
        let (tile, signature) = (*self.0, C::SIGNATURE);
        // SAFETY: the caller vouches that every grid covers all rows and panels.
        unsafe {
            let zero = V::splat(V::Element::default());
            for row in 0..tile.rows {
                for panel in 0..tile.panels {
                    let mut dh = V::load(tile.later.get(row, panel));
                    if let Some(above) = tile.above {
                        dh = dh.add(V::load(above.get(row, panel)));
                    }
                    let mut saved = [zero; MAX_SLOTS];
                    if signature.saved > 0 {
                        let from = tile.saved.get(row, panel);
                        for (s, v) in saved.iter_mut().enumerate().take(signature.saved) {
                            *v = V::load(from.add(s * V::LANES));
                        }
                    }
                    let mut h = zero;
                    if signature.reads_output {
                        h = V::load(tile.h.get(row, panel));
                    }
                    let carries = !matches!(signature.carry, Carry::None);
                    let mut carry = zero;
                    if carries {
                        carry = V::load(tile.carry.get(row, panel));
                    }
                    let mut h_before = zero;
                    if signature.reads_previous {
                        h_before = V::load(tile.h_before.get(row, panel));
                    }
                    let mut memory_before = zero;
                    if signature.has_memory() {
                        memory_before = V::load(tile.memory_before.get(row, panel));
                    }
                    let up = Upstream {
                        dh,
                        carry,
                        saved,
                        h,
                        h_before,
                        memory_before,
                    };
                    let (gradients, carry) = C::backward(up);
                    let slots = tile.slots.get(row, panel);
                    for (s, v) in gradients.iter().enumerate().take(signature.slots) {
                        v.store(slots.add(s * V::LANES));
                    }
                    if carries {
                        carry.store(tile.carry.get(row, panel));
                    }
                }
            }
        }
    }
}
