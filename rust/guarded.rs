//! A lock that tells the thread that holds it from the others.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::{self, ThreadId};

use crate::error::{Error, Result};

/// Something that many threads read and one writes.
///
/// Training holds its model for an epoch and calls Python meanwhile, on the same thread. What that
/// code asks of the model cannot be had then, and it is told so, where a plain lock would wait for
/// itself for ever. Other threads wait, and must do so without the interpreter: the one that they
/// wait for may need it.
pub(super) struct Guarded<T> {
    /// How an error names it.
    name: &'static str,
    value: RwLock<T>,
    writer: Mutex<Option<ThreadId>>,
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
    /// [`Error::Busy`] if this thread does.
    pub fn read(&self) -> Result<RwLockReadGuard<'_, T>> {
        self.check()?;
        Ok(self.value.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until nobody else reads or writes.
    ///
    /// # Errors
    /// [`Error::Busy`] if this thread writes already.
    pub fn write(&self) -> Result<Writing<'_, T>> {
        self.check()?;
        let value = self.value.write().unwrap_or_else(PoisonError::into_inner);
        *self.writer() = Some(thread::current().id());
        Ok(Writing { owner: self, value })
    }

    fn check(&self) -> Result<()> {
        if *self.writer() == Some(thread::current().id()) {
            return Err(Error::Busy { what: self.name });
        }
        Ok(())
    }

    /// Locked for a moment only.
    fn writer(&self) -> MutexGuard<'_, Option<ThreadId>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Access of the one thread that writes.
pub(super) struct Writing<'a, T> {
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
        let busy = Some(Error::Busy { what: "the number" });
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
}
