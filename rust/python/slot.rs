//! A stack that keeps the weights of the last call, packed, and knows them again.

use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ndarray::ArrayViewD;

use super::dlpack::Scalar;
use crate::error::Result;
use crate::parallel;
use crate::recurrent::Recurrent;
use crate::sequence::Element;

/// Numbers that a thread compares or copies at a time.
const CHUNK: usize = 1 << 14;

/// How many threads it is worth to compare or copy so many numbers.
fn workers(numbers: usize) -> usize {
    const WORTHWHILE: usize = 1 << 18;
    parallel::workers(numbers, WORTHWHILE)
}

/// Whether a stack has these weights, bit by bit.
fn holds<E: Element + Scalar>(model: &Recurrent<E>, weights: &[ArrayViewD<E>]) -> bool {
    let mut parts = Vec::new();
    for (entry, weight) in model.layout().entries().iter().zip(weights) {
        let held = &model.weights()[entry.range()];
        match weight.as_slice() {
            Some(weight) => parts.extend(held.chunks(CHUNK).zip(weight.chunks(CHUNK))),
            None => {
                let mut pairs = held.iter().zip(weight.iter());
                if pairs.any(|(held, weight)| {
                    bytes(slice::from_ref(held)) != bytes(slice::from_ref(weight))
                }) {
                    return false;
                }
            }
        }
    }
    let same = AtomicBool::new(true);
    parallel::for_each(workers(model.weights().len()), parts, |(held, weight)| {
        if same.load(Ordering::Relaxed) && bytes(held) != bytes(weight) {
            same.store(false, Ordering::Relaxed);
        }
    });
    same.into_inner()
}

/// Numbers as they lie in memory: these are compared at the speed of memory.
fn bytes<E: Element + Scalar>(numbers: &[E]) -> &[u8] {
    // SAFETY: `E` is f32 or f64, which have no padding, and a byte needs no alignment.
    unsafe { slice::from_raw_parts(numbers.as_ptr().cast(), size_of_val(numbers)) }
}

/// What a mutex holds; none of ours can be left half-written.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stack with the weights of the last call.
pub(super) struct Slot<E: 'static>(Mutex<Arc<Recurrent<E>>>);

impl<E: Element + Scalar> Slot<E> {
    pub fn new(model: Recurrent<E>) -> Self {
        Slot(Mutex::new(Arc::new(model)))
    }

    /// The stack with whatever weights it has.
    pub fn any(&self) -> Arc<Recurrent<E>> {
        Arc::clone(&lock(&self.0))
    }

    /// A stack that has these weights: the slot's own if they are the same, or if nobody else has
    /// it.
    pub fn with(&self, weights: &[ArrayViewD<E>]) -> Result<Arc<Recurrent<E>>> {
        let mut slot = lock(&self.0);
        if holds(&slot, weights) {
            return Ok(Arc::clone(&slot));
        }
        if Arc::get_mut(&mut slot).is_none() {
            *slot = Arc::new(Recurrent::new(slot.config().clone())?);
        }
        if let Some(model) = Arc::get_mut(&mut slot) {
            let layout = model.layout().clone();
            model.update(|mut to| {
                let workers = workers(to.len());
                let mut parts = Vec::new();
                for (entry, weight) in layout.entries().iter().zip(weights) {
                    let part = to.split_off_mut(..entry.range().len()).unwrap_or_default();
                    match weight.as_slice() {
                        Some(weight) => {
                            parts.extend(part.chunks_mut(CHUNK).zip(weight.chunks(CHUNK)))
                        }
                        None => {
                            for (to, &from) in part.iter_mut().zip(weight) {
                                *to = from;
                            }
                        }
                    }
                }
                parallel::for_each(workers, parts, |(to, from)| to.copy_from_slice(from));
                Ok(())
            })?;
        }
        Ok(Arc::clone(&slot))
    }
}
