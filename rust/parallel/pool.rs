//! The worker threads and the queue that feeds them; see the page of [`crate::parallel`] for why.

use std::collections::VecDeque;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use super::task::{Task, lock, spin_until};

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
        // SAFETY: `wait` below returns after the last call of the job.
        let task = Arc::new(unsafe { Task::new(workers, job) });
        self.offer(&task, workers - 1);
        task.call(0);
        task.drain();
        self.withdraw(&task);
        task.wait();
        task.resume_panic();
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
