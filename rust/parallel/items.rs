//! Lists of work, taken one by one by whoever is free.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::task::lock;
use super::{FlushDenormals, run};

/// Calls `work` with each item, on `workers` threads at most, each of which begins with the item of
/// its own number: of lists that are cut alike, a thread meets what it has in its cache.
///
/// (Each item has a lock of its own, which nobody ever waits for. One for all would put threads to
/// sleep whose items take a microsecond.)
///
/// # Panics
/// When `work` panics, after the other threads have finished.
pub(crate) fn for_each<T: Send>(workers: usize, items: Vec<T>, work: impl Fn(T) + Sync) {
    let workers = workers.min(items.len());
    if workers == 1 {
        // Nobody else takes any: a single step of a small layer is over in the time of the locks.
        let _flush = FlushDenormals::begin();
        return items.into_iter().for_each(work);
    }
    let items: Vec<_> = items
        .into_iter()
        .map(|item| Mutex::new(Some(item)))
        .collect();
    let next = AtomicUsize::new(workers);
    run(workers, |number| {
        let mut number = number;
        while let Some(item) = items.get(number) {
            let item = lock(item).take().expect("each number is given once");
            work(item);
            number = next.fetch_add(1, Ordering::Relaxed);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn every_item_is_taken_once_and_the_first_at_home() {
        let home = thread::current().id();
        for (workers, count) in [(1, 5), (2, 2), (3, 100), (8, 3), (2, 0)] {
            let taken = Mutex::new(vec![0; count]);
            for_each(workers, (0..count).collect(), |item: usize| {
                assert!(item > 0 || thread::current().id() == home);
                lock(&taken)[item] += 1;
            });
            assert_eq!(*lock(&taken), vec![1; count]);
        }
    }
}
