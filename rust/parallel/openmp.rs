//! The process's OpenMP workers, where a library that computes beside us has some.
//!
//! A worker of libgomp that has finished its part looks for more for some milliseconds before it
//! sleeps, and holds its CPU meanwhile. To a call of ours between two of that library's, threads of
//! our own would be second comers: a forward pass of two threads takes nearly as long as on one.
//! So such a call takes the workers that wait already, as the library's next call would.

use std::cell::Cell;
use std::ffi::c_void;
use std::thread;

use super::task::Task;

/// Runs `body` with the workers of [`super::run`] on the calling thread being OpenMP's, as many as
/// [`super::num_threads`], if the process has an OpenMP runtime that can be called; other threads
/// see no change.
pub fn with_openmp<R>(body: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            WANTED.set(self.0);
        }
    }
    let _restore = Restore(WANTED.replace(true));
    body()
}

/// Lets [`with_openmp`] know which process this is. One that is forked from now on does not call
/// the runtime: others may have used it before us, and their workers stay with the parent.
#[cfg(feature = "python")]
pub(crate) fn remember_process() {
    runtime::is_first();
}

thread_local! {
    /// Whether the calling thread is inside of [`with_openmp`].
    static WANTED: Cell<bool> = const { Cell::new(false) };
}

/// `GOMP_parallel` of libgomp, which other runtimes have too: calls a function with `data` on each
/// thread of a team, the calling one among them, and returns when all have returned.
type Parallel = unsafe extern "C" fn(
    function: unsafe extern "C" fn(*mut c_void),
    data: *mut c_void,
    threads: u32,
    flags: u32,
);

/// An OpenMP runtime.
#[derive(Clone, Copy)]
pub(super) struct OpenMp(Parallel);

impl OpenMp {
    /// The runtime that the calling thread should use, if there is one.
    pub fn wanted() -> Option<Self> {
        if WANTED.get() { runtime::find() } else { None }
    }

    /// Does what [`super::run`] says, for two workers or more.
    pub fn run(self, workers: usize, job: &(dyn Fn(usize) + Sync)) {
        // The whole team, as other calls have it: libgomp ends the threads that a smaller one
        // leaves over, and would start them again.
        let threads = super::num_threads().map_or(workers, |threads| threads.max(workers));
        // SAFETY: `team` returns after the last call of the job.
        let task = unsafe { Task::new(workers, job) };
        let home = thread::current().id();
        self.team(threads, || {
            if thread::current().id() == home {
                task.call(0);
            }
            task.drain();
        });
        task.resume_panic();
    }

    /// Calls `body` on each of `threads` threads, the calling one among them; on fewer if the
    /// runtime has not so many. `body` must not panic: that would have to pass through C.
    fn team<F: Fn() + Sync>(self, threads: usize, body: F) {
        unsafe extern "C" fn enter<F: Fn() + Sync>(data: *mut c_void) {
            // SAFETY: `data` is the `body` below, which is `Sync` and outlives the team.
            let body = unsafe { &*data.cast::<F>() };
            body();
        }
        let threads = u32::try_from(threads).unwrap_or(u32::MAX);
        let data = (&raw const body).cast_mut().cast();
        // SAFETY: `enter` reads `data` as what it is, and the function returns after its last call.
        unsafe { (self.0)(enter::<F>, data, threads, 0) };
    }
}

/// Where the dynamic linker can be asked what the process has loaded.
#[cfg(target_os = "linux")]
mod runtime {
    use std::ffi::{c_char, c_void};
    use std::mem::transmute;
    use std::process;
    use std::ptr;
    use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

    use super::{OpenMp, Parallel};

    unsafe extern "C" {
        fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    }

    /// The first process known of; 0 while none is.
    static FIRST: AtomicU32 = AtomicU32::new(0);
    /// Whether the runtime was looked for, and what was found, or null.
    static LOOKED: AtomicBool = AtomicBool::new(false);
    static FOUND: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

    /// Whether this process is the first one known of, which it is from now on if there is none.
    pub fn is_first() -> bool {
        let process = process::id();
        let known = FIRST.compare_exchange(0, process, Ordering::Relaxed, Ordering::Relaxed);
        known.map_or_else(|first| first == process, |_| true)
    }

    pub fn find() -> Option<OpenMp> {
        // In the child of a fork, the runtime would wait for workers that stayed with the parent.
        if !is_first() {
            return None;
        }
        if !LOOKED.load(Ordering::Acquire) {
            // SAFETY: null stands for all libraries that lend their names to others, and the name
            // ends in 0.
            let found = unsafe { dlsym(ptr::null_mut(), c"GOMP_parallel".as_ptr()) };
            FOUND.store(found, Ordering::Relaxed);
            LOOKED.store(true, Ordering::Release);
        }
        let found = FOUND.load(Ordering::Relaxed);
        if found.is_null() {
            return None;
        }
        // SAFETY: not null, and what has this name is the function of this type that compilers
        // call at every parallel region.
        Some(OpenMp(unsafe { transmute::<*mut c_void, Parallel>(found) }))
    }
}

/// Elsewhere our own workers do it all.
#[cfg(not(target_os = "linux"))]
mod runtime {
    #[cfg(feature = "python")]
    pub fn is_first() -> bool {
        true
    }

    pub fn find() -> Option<super::OpenMp> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A runtime whose teams are one thread short.
    unsafe extern "C" fn parallel(
        function: unsafe extern "C" fn(*mut c_void),
        data: *mut c_void,
        threads: u32,
        _flags: u32,
    ) {
        let data = data.expose_provenance();
        thread::scope(|scope| {
            let enter = move || {
                // SAFETY: the scope ends after the last call, before `OpenMp::team` does.
                unsafe { function(std::ptr::with_exposed_provenance_mut(data)) }
            };
            for _ in 2..threads {
                scope.spawn(enter);
            }
            enter();
        });
    }

    #[test]
    fn every_number_runs_once_and_the_first_at_home() {
        let home = thread::current().id();
        for workers in [2, 3, 8, 33] {
            let counts: Vec<_> = (0..workers).map(|_| AtomicUsize::new(0)).collect();
            OpenMp(parallel).run(workers, &|number| {
                if number == 0 {
                    assert_eq!(thread::current().id(), home);
                }
                counts[number].fetch_add(1, Ordering::Relaxed);
            });
            let once = |count: &AtomicUsize| count.load(Ordering::Relaxed) == 1;
            assert!(counts.iter().all(once));
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_after_the_others_are_done() {
        for guilty in 0..4 {
            let done = AtomicUsize::new(0);
            let payload = catch_unwind(AssertUnwindSafe(|| {
                OpenMp(parallel).run(4, &|number| {
                    assert!(number != guilty, "job {number}");
                    done.fetch_add(1, Ordering::Relaxed);
                });
            }))
            .unwrap_err();
            let message = payload.downcast_ref::<String>();
            assert_eq!(message, Some(&format!("job {guilty}")));
            assert_eq!(done.load(Ordering::Relaxed), 3);
        }
    }
}
