//! A lock that tells the thread that holds it from the others.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::process;
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::{self, ThreadId};

use crate::error::{Error, Result};

/// Something that many threads read and one writes.
///
/// A call holds its model for as long as it takes and calls Python meanwhile, on the same thread:
/// training its callbacks, any call the handlers of signals. What that code asks of the model cannot
/// be had then, and it is told so, where a plain lock would wait for itself for ever. So is the child
/// of a fork, to which nobody will ever give back what another thread was writing. Other threads
/// wait, and must do so without the interpreter: the one that they wait for may need it.
pub(crate) struct Guarded<T> {
    /// How an error names it.
    name: &'static str,
    value: RwLock<T>,
    writer: Mutex<Option<(u32, ThreadId)>>,
}

thread_local! {
    /// Where what this thread reads lies, once for each time.
    static READ_HERE: RefCell<Vec<*const ()>> = const { RefCell::new(Vec::new()) };
}

impl<T> Guarded<T> {
    pub fn new(name: &'static str, value: T) -> Self {
        Guarded {
            name,
            value: RwLock::new(value),
            writer: Mutex::new(None),
        }
    }

    /// Waits until nobody writes.
    ///
    /// # Errors
    /// [`Error::Busy`] if this thread does, or waits for one that waits for it, or if one of the
    /// process does that this one was forked from.
    pub fn read(&self) -> Result<Reading<'_, T>> {
        self.check()?;
        let value = if self.is_read_here() {
            // Whoever waits to write has precedence, and waits for this thread.
            self.value.try_read().map_err(|_| self.busy())?
        } else {
            self.value.read().unwrap_or_else(PoisonError::into_inner)
        };
        READ_HERE.with_borrow_mut(|read| read.push(self.place()));
        Ok(Reading { owner: self, value })
    }

    /// Waits until nobody else reads or writes.
    ///
    /// # Errors
    /// [`Error::Busy`] if this thread reads or writes already, or if one of the process writes that
    /// this one was forked from.
    pub fn write(&self) -> Result<Writing<'_, T>> {
        self.check()?;
        if self.is_read_here() {
            return Err(self.busy());
        }
        let value = self.value.write().unwrap_or_else(PoisonError::into_inner);
        *self.writer() = Some((process::id(), thread::current().id()));
        Ok(Writing { owner: self, value })
    }

    fn check(&self) -> Result<()> {
        match *self.writer() {
            Some((process, _)) if process != process::id() => Err(Error::Busy {
                what: self.name,
                by: "a call of the process that this one was forked from",
            }),
            Some((_, thread)) if thread == thread::current().id() => Err(self.busy()),
            _ => Ok(()),
        }
    }

    fn busy(&self) -> Error {
        Error::Busy {
            what: self.name,
            by: "the call that this one was made from",
        }
    }

    fn is_read_here(&self) -> bool {
        READ_HERE.with_borrow(|read| read.contains(&self.place()))
    }

    fn place(&self) -> *const () {
        ptr::from_ref(self).cast()
    }

    /// Locked for a moment only.
    fn writer(&self) -> MutexGuard<'_, Option<(u32, ThreadId)>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Access of a thread that reads.
pub(crate) struct Reading<'a, T> {
    owner: &'a Guarded<T>,
    value: RwLockReadGuard<'a, T>,
}

impl<T> Deref for Reading<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Drop for Reading<'_, T> {
    fn drop(&mut self) {
        let place = self.owner.place();
        READ_HERE.with_borrow_mut(|read| {
            if let Some(last) = read.iter().rposition(|&one| one == place) {
                read.swap_remove(last);
            }
        });
    }
}

/// Access of the one thread that writes.
pub(crate) struct Writing<'a, T> {
    owner: &'a Guarded<T>,
    value: RwLockWriteGuard<'a, T>,
}

impl<T> Deref for Writing<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Writing<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T> Drop for Writing<'_, T> {
    fn drop(&mut self) {
        // Before the lock opens, so that the name is never the next writer's.
        *self.owner.writer() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_writing_thread_is_refused_and_others_wait() {
        let guarded = Guarded::new("the number", 1);
        let mut writing = guarded.write().unwrap();
        let busy = Some(guarded.busy());
        assert_eq!(guarded.read().err(), busy);
        assert_eq!(guarded.write().err(), busy);
        thread::scope(|scope| {
            let other = scope.spawn(|| *guarded.read().unwrap());
            *writing = 2;
            drop(writing);
            assert_eq!(other.join().unwrap(), 2);
        });
        assert_eq!(*guarded.read().unwrap(), 2);
        assert!(guarded.write().is_ok());
    }

    #[test]
    fn a_thread_that_reads_is_not_made_to_wait_for_itself() {
        let guarded = Guarded::new("the number", 1);
        let reading = guarded.read().unwrap();
        assert_eq!(*guarded.read().unwrap(), 1);
        assert_eq!(guarded.write().err(), Some(guarded.busy()));
        thread::scope(|scope| {
            let other = scope.spawn(|| *guarded.write().unwrap() += 1);
            // From when the other one waits to write, it is next.
            while guarded.read().is_ok() {
                thread::yield_now();
            }
            assert_eq!(guarded.read().err(), Some(guarded.busy()));
            drop(reading);
            other.join().unwrap();
        });
        assert_eq!(*guarded.read().unwrap(), 2);
        assert!(guarded.write().is_ok());
    }

    #[test]
    fn what_a_parent_process_writes_is_not_waited_for() {
        let guarded = Guarded::new("the number", 1);
        let writing = guarded.write().unwrap();
        *guarded.writer() = Some((process::id() ^ 1, thread::current().id()));
        for error in [guarded.read().err(), guarded.write().err()] {
            let message = error.unwrap().to_string();
            assert!(
                message.ends_with("that this one was forked from"),
                "{message}"
            );
        }
        drop(writing);
        assert!(guarded.read().is_ok());
    }
}
