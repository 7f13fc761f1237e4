//! Names, shapes and places of the parameters in one flat buffer.
//!
//! Weights, gradients and optimizer state all are buffers of [`Layout::size`] numbers.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::simd::Real;

/// An empty vector with room for `numbers` numbers, which are `what`.
///
/// # Errors
/// [`Error::OutOfMemory`] if there is no such room.
pub(crate) fn reserve<T>(numbers: usize, what: &'static str) -> Result<Vec<T>> {
    let mut room = Vec::new();
    match room.try_reserve_exact(numbers) {
        Ok(()) => Ok(room),
        Err(_) => Err(Error::OutOfMemory {
            numbers,
            what: what.into(),
        }),
    }
}

/// Whether there is room for so many numbers, which are `what`. Only what is large is asked about:
/// memory that is not there ends the process where it is taken.
///
/// # Errors
/// [`Error::OutOfMemory`] if there is not.
pub(crate) fn check_room<E: Real>(numbers: usize, what: &'static str) -> Result<()> {
    const LARGE: usize = 1 << 26;
    if numbers > LARGE {
        reserve::<E>(numbers, what)?;
    }
    Ok(())
}

/// A named array in the flat buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// torch's name of the parameter.
    pub name: String,
    /// Its shape, row-major.
    pub shape: Vec<usize>,
    /// Its first number's place.
    pub offset: usize,
}

impl Entry {
    /// Its place in the flat buffer.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.shape.iter().product::<usize>()
    }
}

/// The parameters of a model, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    entries: Vec<Entry>,
}

impl Layout {
    /// Adds a parameter at the end.
    pub fn push(&mut self, name: impl Into<String>, shape: &[usize]) {
        self.entries.push(Entry {
            name: name.into(),
            shape: shape.to_vec(),
            offset: self.size(),
        });
    }

    /// Adds all parameters of another layout at the end, their names prefixed; returns their place.
    pub fn append(&mut self, prefix: &str, other: &Layout) -> Range<usize> {
        let start = self.size();
        for entry in &other.entries {
            self.push(format!("{prefix}{}", entry.name), &entry.shape);
        }
        start..self.size()
    }

    /// The parameters in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Numbers in all.
    pub fn size(&self) -> usize {
        self.entries.last().map_or(0, |last| last.range().end)
    }

    /// A flat buffer of zeros.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if there is no room for it.
    pub fn zeros<E: Real>(&self) -> Result<Vec<E>> {
        let numbers = self.size();
        let mut zeros = reserve(numbers, "weights")?;
        zeros.resize(numbers, E::ZERO);
        Ok(zeros)
    }
}
