//! The numbers of one parallel call, and the threads that take them.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::FlushDenormals;

/// How long a thread that waits looks again and again before it sleeps: longer than what an update
/// does alone between two parallel parts. A worker that sleeps through it takes 50 to 100 us to
/// wake, and a fit of a small network becomes slower on two threads than on one.
const SPIN: Duration = Duration::from_micros(250);

/// One call of [`super::run`]: its job, and how far it has come.
pub(super) struct Task {
    /// The caller's closure, its lifetime erased: read through [`Task::call`] alone.
    job: NonNull<dyn Fn(usize) + Sync>,
    workers: usize,
    /// The first number that nobody has taken; number 0 is the caller's from the start.
    next: AtomicUsize,
    /// How many numbers have not returned.
    unfinished: AtomicUsize,
    /// The payload of the first panic.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    caller: Thread,
}

// SAFETY: `job` points to a `Sync` closure, so calling it from several threads is sound while it
// lives, which `Task::call` sees to; everything else in `Task` is `Send` and `Sync` by itself.
unsafe impl Send for Task {}
// SAFETY: as for `Send`.
unsafe impl Sync for Task {}

impl Task {
    /// A call of `job` with each of the numbers `0..workers`, by the calling thread.
    ///
    /// # Safety
    /// The job must outlive the task's last call: its owner goes on only after [`Task::wait`].
    pub unsafe fn new(workers: usize, job: &(dyn Fn(usize) + Sync)) -> Self {
        let job: NonNull<dyn Fn(usize) + Sync + '_> = NonNull::from(job);
        Task {
            // SAFETY: only the lifetime changes, and the caller of `new` answers for that.
            job: unsafe {
                std::mem::transmute::<
                    NonNull<dyn Fn(usize) + Sync + '_>,
                    NonNull<dyn Fn(usize) + Sync>,
                >(job)
            },
            workers,
            next: AtomicUsize::new(1),
            unfinished: AtomicUsize::new(workers),
            panic: Mutex::new(None),
            caller: thread::current(),
        }
    }

    /// Takes numbers and runs them until none is left.
    pub fn drain(&self) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.workers {
                return;
            }
            self.call(number);
        }
    }

    /// Runs one number, which the calling thread has taken and is alone to run.
    pub fn call(&self, number: usize) {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let _flush = FlushDenormals::begin();
            // SAFETY: `number` has not returned yet, and until all have, whoever called `new` keeps
            // the closure borrowed.
            let job = unsafe { self.job.as_ref() };
            job(number);
        }));
        if let Err(payload) = outcome {
            lock(&self.panic).get_or_insert(payload);
        }
        if self.unfinished.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.caller.unpark();
        }
    }

    /// Waits until every number has returned.
    pub fn wait(&self) {
        let done = || self.unfinished.load(Ordering::Acquire) == 0;
        if !spin_until(done) {
            while !done() {
                thread::park();
            }
        }
    }

    /// Goes on with the first panic, if there was one.
    pub fn resume_panic(&self) {
        let panic = lock(&self.panic).take();
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }
}

/// Locks; no code of a caller runs under the crate's locks, so a poisoned one guards whole data.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks at `ready` for up to [`SPIN`], and says what it saw last.
pub(super) fn spin_until(ready: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < SPIN {
        for _ in 0..16 {
            if ready() {
                return true;
            }
            std::hint::spin_loop();
        }
    }
    ready()
}
