//! Lists of work, taken one by one by whoever is free.

use std::sync::{Mutex, PoisonError};

use super::run;

/// Calls `work` with each item, on `workers` threads at most.
///
/// # Panics
/// When `work` panics, after the other threads have finished.
pub(crate) fn for_each<T: Send>(workers: usize, items: Vec<T>, work: impl Fn(T) + Sync) {
    let workers = workers.min(items.len());
    let items = Mutex::new(items.into_iter());
    run(workers, |_| {
        loop {
            let next = items.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(item) = next else { break };
            work(item);
        }
    });
}
