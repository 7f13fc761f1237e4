//! Gradients on their way to an update.

use std::ops::Range;

use super::{Input, Network};
use crate::sequence::Element;

/// Gradients of all weights on their way to an update: those of one or more passes, added.
pub(crate) struct GradientSums<E> {
    pub(super) total: Vec<E>,
    /// Those of the embedding as what is looked up, where it is the head's weight too; else empty.
    pub(super) looked_up: Vec<E>,
    has_head: bool,
    has_rest: bool,
}

impl<E: Element> GradientSums<E> {
    /// None yet.
    pub fn new(network: &Network<E>) -> Self {
        let is_tied = matches!(network.config.input, Input::Embedding { tied: true, .. });
        let apart = if is_tied {
            network.places.embedding.len()
        } else {
            0
        };
        GradientSums {
            total: vec![E::ZERO; network.layout.size()],
            looked_up: vec![E::ZERO; apart],
            has_head: false,
            has_rest: false,
        }
    }

    /// Forgets what was added.
    pub fn clear(&mut self) {
        (self.has_head, self.has_rest) = (false, false);
    }

    /// Whether nothing of what lies beneath the head was added before; from now on something was.
    pub(super) fn is_first_of_rest(&mut self) -> bool {
        !std::mem::replace(&mut self.has_rest, true)
    }

    /// Joins what was added apart; nothing is added afterwards.
    pub fn finish(&mut self, network: &Network<E>) {
        let embedding = &mut self.total[network.places.embedding.clone()];
        for (to, &from) in embedding.iter_mut().zip(&self.looked_up) {
            *to += from;
        }
        if let Some(masked) = network.masked_place() {
            self.total[masked].fill(E::ZERO);
        }
    }

    /// Their sums, once there are any.
    pub fn total(&self) -> &[E] {
        &self.total
    }

    /// Those of the head, and whether nothing was added to them before; from now on something was.
    pub(super) fn of_head(&mut self, places: Range<usize>) -> (&mut [E], bool) {
        let is_first = !std::mem::replace(&mut self.has_head, true);
        (&mut self.total[places], is_first)
    }
}
