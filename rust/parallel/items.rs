//! Lists of work, taken one by one by whoever is free.

use std::sync::{Mutex, PoisonError};

use super::run;

/// Calls `work` with each item, on `workers` threads at most. Every thread starts with a value
/// from `start` that it keeps from item to item.
///
/// # Panics
/// When `work` panics, after the other threads have finished.
pub(crate) fn for_each_with<T: Send, W>(
    workers: usize,
    items: Vec<T>,
    start: impl Fn() -> W + Sync,
    work: impl Fn(&mut W, T) + Sync,
) {
    let workers = workers.min(items.len());
    let items = Mutex::new(items.into_iter());
    run(workers, |_| {
        let mut own = start();
        loop {
            let next = items.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(item) = next else { break };
            work(&mut own, item);
        }
    });
}

/// Calls `work` with each item, on `workers` threads at most.
///
/// # Panics
/// As [`for_each_with`].
pub(crate) fn for_each<T: Send>(workers: usize, items: Vec<T>, work: impl Fn(T) + Sync) {
    for_each_with(workers, items, || (), |(), item| work(item));
}
