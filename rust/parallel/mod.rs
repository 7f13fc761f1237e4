//! Threads: how many, where they come from, and the floating-point mode they compute in.
//!
//! The crate owns its worker threads. They are started by the first parallel call, never at import,
//! and an idle one sleeps. [`run`] hands out the numbers `0..workers` of a job: the caller takes
//! number 0, idle workers take the next ones, and the caller takes whatever is still left when it
//! is done with its own. So a call finishes however busy the workers are with the calls of other
//! threads, and calls may nest. Jobs must not wait for one another: two numbers may run one after
//! the other on the same thread. Where each step of a piece of work needs all of the one before,
//! they share it as a team (`team.rs`), of which as many members as there are do all that there is.
//!
//! Why not rayon: its workers do not come back after a `fork`, a caller from outside its pool
//! sleeps while its tasks queue behind another caller's, and its wake-ups are slow for the small
//! batches of a recurrent network. On a two-core Xeon VM (medians, two workers), an empty call
//! right after another takes 0.5 us here and 11 us there, two jobs of 50 us each after a pause of
//! 100 us take 77 us and 104 us.
//!
//! After a `fork` the child has none of the parent's threads, and any lock of theirs may be held
//! for ever. The pool is therefore reached through one atomic pointer and remembers its process: a
//! child leaks its parent's pool unseen and builds its own.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::error::{Error, Result};
use openmp::OpenMp;
use pool::Pool;

mod flush;
mod items;
mod openmp;
mod pool;
mod task;
mod team;

pub use flush::FlushDenormals;
pub(crate) use items::{for_each, for_each_at_home, shared_out};
#[cfg(feature = "python")]
pub(crate) use openmp::remember_process;
pub use openmp::with_openmp;
pub(crate) use team::{Member, Team};

/// The environment variables that set the number of threads, the first that is set counting.
const VARIABLES: [&str; 2] = ["RNNCORE_NUM_THREADS", "OMP_NUM_THREADS"];

/// What [`set_num_threads`] was told; 0 while it was not.
static EXPLICIT: AtomicUsize = AtomicUsize::new(0);

/// What the environment and the machine say; 0 until somebody asked.
static DEFAULT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// What [`with_threads`] says on this thread; 0 outside of it.
    static SCOPED: Cell<usize> = const { Cell::new(0) };
}

/// How many threads a call made now on this thread may use, at least 1.
///
/// The first of these that is set: the enclosing [`with_threads`], [`set_num_threads`], the
/// environment variables `RNNCORE_NUM_THREADS` and `OMP_NUM_THREADS` (read once), and the number of
/// CPUs that the process may use.
///
/// # Errors
///
/// [`Error::Value`] naming the environment variable when it is not a whole number of at least 1.
pub fn num_threads() -> Result<usize> {
    let scoped = SCOPED.get();
    if scoped > 0 {
        return Ok(scoped);
    }
    let explicit = EXPLICIT.load(Ordering::Relaxed);
    if explicit > 0 {
        return Ok(explicit);
    }
    let default = DEFAULT.load(Ordering::Relaxed);
    if default > 0 {
        return Ok(default);
    }
    let found = match threads_from(|name| {
        std::env::var_os(name).map(|v| v.to_string_lossy().into_owned())
    })? {
        Some(count) => count,
        None => thread::available_parallelism().map_or(1, usize::from),
    };
    DEFAULT.store(found, Ordering::Relaxed);
    Ok(found)
}

/// How many threads some work is worth: one, and another for each `worthwhile` of it, as far as there
/// are any.
pub(crate) fn workers(work: usize, worthwhile: usize) -> usize {
    num_threads().unwrap_or(1).min(1 + work / worthwhile)
}

/// How many threads it is worth to copy some numbers, row by row.
pub(crate) fn copiers(numbers: usize) -> usize {
    /// Some microseconds, and the threads are awake.
    const WORTHWHILE: usize = 1 << 13;
    workers(numbers, WORTHWHILE)
}

/// Sets the number of threads for every later call of this process.
///
/// # Errors
///
/// [`Error::Value`] when `threads` is 0.
pub fn set_num_threads(threads: usize) -> Result<()> {
    check("n", threads)?;
    EXPLICIT.store(threads, Ordering::Relaxed);
    Ok(())
}

/// Runs `body` with [`num_threads`] being `threads` on the calling thread; other threads see no
/// change.
///
/// # Errors
///
/// [`Error::Value`] when `threads` is 0, and whatever `body` returns.
pub fn with_threads<R>(threads: usize, body: impl FnOnce() -> Result<R>) -> Result<R> {
    struct Restore(usize);
    impl Drop for Restore {
        fn drop(&mut self) {
            SCOPED.set(self.0);
        }
    }
    check("n_threads", threads)?;
    let _restore = Restore(SCOPED.replace(threads));
    body()
}

fn check(argument: &str, threads: usize) -> Result<()> {
    if threads == 0 {
        return Err(Error::value(argument, "a number of threads >= 1", threads));
    }
    Ok(())
}

/// The first of [`VARIABLES`] that `lookup` finds. An empty value counts as unset, and of a list by
/// nesting level, which OpenMP allows (`4,2`), the first counts.
fn threads_from(lookup: impl Fn(&str) -> Option<String>) -> Result<Option<usize>> {
    for name in VARIABLES {
        let Some(text) = lookup(name).filter(|text| !text.trim().is_empty()) else {
            continue;
        };
        let first = text.split(',').next().unwrap_or_default().trim();
        return match first.parse::<usize>() {
            Ok(count) if count > 0 => Ok(Some(count)),
            _ => Err(Error::value(
                name,
                "a number of threads >= 1",
                format!("{text:?}"),
            )),
        };
    }
    Ok(None)
}

/// Calls `job(0)`, ..., `job(workers - 1)`, each once, and returns when all have returned.
///
/// `job(0)` runs on the calling thread, the others at the same time on the crate's workers or
/// afterwards on the calling thread (see the module's page). Each runs with denormals flushed
/// ([`FlushDenormals`]). One worker needs no thread, and starts none.
///
/// # Panics
///
/// When a job panics, with its payload, after the others have returned.
pub fn run<F: Fn(usize) + Sync>(workers: usize, job: F) {
    match workers {
        0 => {}
        1 => {
            let _flush = FlushDenormals::begin();
            job(0);
        }
        _ => match OpenMp::wanted() {
            Some(runtime) => runtime.run(workers, &job),
            None => Pool::current().run(workers, &job),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Barrier;

    fn lookup(pairs: &[(&str, &str)]) -> Result<Option<usize>> {
        let pairs: HashMap<_, _> = pairs.iter().copied().collect();
        threads_from(|name| pairs.get(name).map(ToString::to_string))
    }

    #[test]
    fn environment_in_order_of_precedence() {
        assert_eq!(lookup(&[]), Ok(None));
        assert_eq!(lookup(&[("OMP_NUM_THREADS", "3")]), Ok(Some(3)));
        assert_eq!(lookup(&[("OMP_NUM_THREADS", "4,2")]), Ok(Some(4)));
        assert_eq!(
            lookup(&[("OMP_NUM_THREADS", "3"), ("RNNCORE_NUM_THREADS", " 2 ")]),
            Ok(Some(2))
        );
        assert_eq!(
            lookup(&[("OMP_NUM_THREADS", "3"), ("RNNCORE_NUM_THREADS", "")]),
            Ok(Some(3))
        );
    }

    #[test]
    fn bad_environment_is_named() {
        for text in ["0", "-1", "two", "1.5"] {
            let error = lookup(&[("RNNCORE_NUM_THREADS", text)]).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("RNNCORE_NUM_THREADS: expected a number of threads >= 1, got {text:?}")
            );
        }
    }

    #[test]
    fn scoped_count_nests_and_ends() {
        let outside = num_threads().unwrap();
        let seen = with_threads(3, || {
            let inner = with_threads(5, num_threads)?;
            Ok((inner, num_threads()?))
        });
        assert_eq!(seen, Ok((5, 3)));
        assert_eq!(num_threads().unwrap(), outside);
        assert!(with_threads(0, num_threads).is_err());
        assert!(set_num_threads(0).is_err());
    }

    #[test]
    fn every_number_runs_once_and_the_first_at_home() {
        let home = thread::current().id();
        for workers in [0, 1, 2, 3, 8, 33] {
            let counts: Vec<_> = (0..workers).map(|_| AtomicUsize::new(0)).collect();
            run(workers, |number| {
                if number == 0 {
                    assert_eq!(thread::current().id(), home);
                }
                counts[number].fetch_add(1, Ordering::Relaxed);
            });
            assert!(
                counts
                    .iter()
                    .all(|count| count.load(Ordering::Relaxed) == 1)
            );
        }
    }

    #[test]
    fn idle_workers_run_at_the_same_time() {
        let barrier = Barrier::new(2);
        run(2, |_| {
            barrier.wait();
        });
    }

    #[test]
    fn many_callers_at_once_and_nested_calls() {
        let total = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        run(3, |_| {
                            run(2, |number| {
                                total.fetch_add(number + 1, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(total.load(Ordering::Relaxed), 6 * 200 * 3 * 3);
    }

    #[test]
    fn a_panic_reaches_the_caller_after_the_others_are_done() {
        for guilty in 0..4 {
            let done = AtomicUsize::new(0);
            let payload = catch_unwind(AssertUnwindSafe(|| {
                run(4, |number| {
                    assert!(number != guilty, "job {number}");
                    done.fetch_add(1, Ordering::Relaxed);
                });
            }))
            .unwrap_err();
            assert_eq!(
                payload.downcast_ref::<String>(),
                Some(&format!("job {guilty}"))
            );
            assert_eq!(done.load(Ordering::Relaxed), 3);
        }
        run(4, |_| {});
    }
}
