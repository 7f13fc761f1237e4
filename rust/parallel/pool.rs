//! The worker threads and the queue that feeds them; see the page of [`crate::parallel`] for why.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::FlushDenormals;

/// How long a thread that waits looks again and again before it sleeps: about what a wake-up costs.
const SPIN: Duration = Duration::from_micros(30);

/// One call of [`super::run`]: its job, and how far it has come.
struct Task {
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
    /// Takes numbers and runs them until none is left.
    fn drain(&self) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.workers {
                return;
            }
            self.call(number);
        }
    }

    /// Runs one number, which the calling thread has taken and is alone to run.
    fn call(&self, number: usize) {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let _flush = FlushDenormals::begin();
            // SAFETY: `number` has not returned yet, so `unfinished` is above 0, and until it is 0
            // `Pool::run` keeps the closure borrowed.
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
    fn wait(&self) {
        let done = || self.unfinished.load(Ordering::Acquire) == 0;
        if !spin_until(done) {
            while !done() {
                thread::park();
            }
        }
    }
}

/// The worker threads of one process. Lives as long as the process.
pub(super) struct Pool {
    process: u32,
    queue: Mutex<Queue>,
    /// Wakes sleeping workers when `queue.tickets` has grown.
    grown: Condvar,
    /// The length of `queue.tickets`, for looking without the lock.
    waiting: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    /// One entry for each worker that a task could use.
    tickets: VecDeque<Arc<Task>>,
    /// How many workers there are.
    threads: usize,
    /// How many of them sleep.
    sleeping: usize,
}

impl Pool {
    /// The pool of this process, without threads when it is new.
    pub fn current() -> &'static Self {
        static CURRENT: AtomicPtr<Pool> = AtomicPtr::new(ptr::null_mut());
        let process = std::process::id();
        let seen = CURRENT.load(Ordering::Acquire);
        // SAFETY: the pointer is null or came from `Box::into_raw` below and is never freed.
        if let Some(pool) = unsafe { seen.as_ref() }
            && pool.process == process
        {
            return pool;
        }
        let built = Box::into_raw(Box::new(Self {
            process,
            queue: Mutex::default(),
            grown: Condvar::new(),
            waiting: AtomicUsize::new(0),
        }));
        match CURRENT.compare_exchange(seen, built, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: `built` came from `Box::into_raw` above and is never freed from here on.
            Ok(_) => unsafe { &*built },
            Err(other) => {
                // SAFETY: the exchange failed, so nobody but this call has seen `built`.
                drop(unsafe { Box::from_raw(built) });
                // SAFETY: another thread of this process has put its pool there, which is never
                // freed.
                unsafe { &*other }
            }
        }
    }

    /// Does what [`super::run`] says, for two workers or more.
    pub fn run(&'static self, workers: usize, job: &(dyn Fn(usize) + Sync)) {
        let job: NonNull<dyn Fn(usize) + Sync + '_> = NonNull::from(job);
        let task = Arc::new(Task {
            // SAFETY: only the lifetime changes; `wait` below returns after the last call through
            // the pointer.
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
        });
        self.offer(&task, workers - 1);
        task.call(0);
        task.drain();
        self.withdraw(&task);
        task.wait();
        let panic = lock(&task.panic).take();
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }

    /// Queues `count` tickets for `task`, starting and waking workers for them. A thread that the
    /// system refuses is done without: the caller takes its numbers.
    fn offer(&'static self, task: &Arc<Task>, count: usize) {
        let mut queue = lock(&self.queue);
        while queue.threads < count {
            let name = format!("rnncore-{}", queue.threads + 1);
            if thread::Builder::new()
                .name(name)
                .spawn(|| self.work())
                .is_err()
            {
                break;
            }
            queue.threads += 1;
        }
        queue.tickets.extend((0..count).map(|_| Arc::clone(task)));
        self.waiting.store(queue.tickets.len(), Ordering::Release);
        let wake = queue.sleeping.min(count);
        drop(queue);
        for _ in 0..wake {
            self.grown.notify_one();
        }
    }

    /// Takes back the tickets of `task` that no worker has taken.
    fn withdraw(&self, task: &Arc<Task>) {
        if self.waiting.load(Ordering::Acquire) > 0 {
            let mut queue = lock(&self.queue);
            queue.tickets.retain(|ticket| !Arc::ptr_eq(ticket, task));
            self.waiting.store(queue.tickets.len(), Ordering::Release);
        }
    }

    /// The life of a worker.
    fn work(&self) {
        loop {
            spin_until(|| self.waiting.load(Ordering::Acquire) > 0);
            let mut queue = lock(&self.queue);
            let task = loop {
                if let Some(task) = queue.tickets.pop_front() {
                    break task;
                }
                queue.sleeping += 1;
                queue = self
                    .grown
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner);
                queue.sleeping -= 1;
            };
            self.waiting.store(queue.tickets.len(), Ordering::Release);
            drop(queue);
            task.drain();
        }
    }
}

/// Locks; no code of a caller runs under the crate's locks, so a poisoned one guards whole data.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks at `ready` for up to [`SPIN`], and says what it saw last.
fn spin_until(ready: impl Fn() -> bool) -> bool {
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
