//! Lists of work, taken one by one by whoever is free.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::task::lock;
use super::{FlushDenormals, run};

/// Calls `work` with each item, on `workers` threads at most, each of which begins with a run of
/// the items as long as the others': of lists that are cut alike, a thread meets what it has in its
/// cache.
///
/// # Panics
/// When `work` panics, after the other threads have finished.
pub(crate) fn for_each<T: Send>(workers: usize, items: Vec<T>, work: impl Fn(T) + Sync) {
    match workers.min(items.len()) {
        1 => alone(items, work),
        workers => for_each_at_home(shared_out(items, workers), work),
    }
}

/// Nobody else takes any: a single step of a small layer is over in the time of the locks.
fn alone<T>(items: Vec<T>, work: impl Fn(T)) {
    let _flush = FlushDenormals::begin();
    items.into_iter().for_each(work);
}

/// The same for items that are listed by the threads that they belong to: as many threads as there
/// are lists go each through its own, then through what is left of the others'.
///
/// (Each item has a lock of its own, which nobody ever waits for. One for all would put threads to
/// sleep whose items take a microsecond.)
///
/// # Panics
/// When `work` panics, after the other threads have finished.
pub(crate) fn for_each_at_home<T: Send>(mut lists: Vec<Vec<T>>, work: impl Fn(T) + Sync) {
    let workers = lists.len();
    if workers == 1 {
        return alone(lists.swap_remove(0), work);
    }
    let locked = |items: Vec<T>| {
        let items = items.into_iter().map(|item| Mutex::new(Some(item)));
        (AtomicUsize::new(0), items.collect::<Vec<_>>())
    };
    let lists: Vec<_> = lists.into_iter().map(locked).collect();
    run(workers, |number| {
        for (next, items) in lists[number..].iter().chain(&lists[..number]) {
            while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                let item = lock(item).take().expect("each number is given once");
                work(item);
            }
        }
    });
}

/// Cuts a list into `workers` runs of one length, or nearly; some are empty if it is short.
pub(crate) fn shared_out<T>(items: Vec<T>, workers: usize) -> Vec<Vec<T>> {
    if workers == 1 {
        return vec![items];
    }
    let count = items.len();
    let mut lists: Vec<_> = (0..workers).map(|_| Vec::new()).collect();
    for (i, item) in items.into_iter().enumerate() {
        lists[i * workers / count].push(item);
    }
    lists
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn lists_are_cut_into_runs() {
        assert_eq!(shared_out(vec![1, 2, 3], 1), [[1, 2, 3]]);
        assert_eq!(
            shared_out(vec![1, 2, 3, 4, 5], 2),
            [vec![1, 2, 3], vec![4, 5]]
        );
        assert_eq!(shared_out(vec![1, 2], 3), [vec![1], vec![2], vec![]]);
        assert_eq!(shared_out(vec![0; 0], 2).concat(), [0; 0]);
    }

    #[test]
    fn a_thread_goes_through_its_own_list_before_the_others() {
        let home = thread::current().id();
        for lists in [
            vec![vec![0, 1, 2], vec![3, 4]],
            vec![vec![], vec![0, 1], vec![2]],
        ] {
            for _ in 0..50 {
                let taken = Mutex::new(Vec::new());
                for_each_at_home(lists.clone(), |item| {
                    if thread::current().id() == home {
                        lock(&taken).push(item);
                    }
                });
                let taken = lock(&taken);
                assert!(taken.is_sorted(), "{taken:?}");
            }
        }
    }

    #[test]
    fn every_item_is_taken_once() {
        for (workers, count) in [(1, 5), (2, 2), (3, 100), (8, 3), (2, 0)] {
            let taken = Mutex::new(vec![0; count]);
            for_each(workers, (0..count).collect(), |item: usize| {
                lock(&taken)[item] += 1;
            });
            assert_eq!(*lock(&taken), vec![1; count]);
        }
    }
}
