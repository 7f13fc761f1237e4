//! What tells a model from every other, and whether it is still there.

use std::sync::{Arc, Weak};

/// A model's own. Clones are the same model's.
#[derive(Clone, Debug, Default)]
pub struct Identity(Arc<()>);

/// What may be kept of an [`Identity`] without keeping the model.
#[derive(Clone, Debug)]
pub struct Remembrance(Weak<()>);

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Identity {}

impl Identity {
    /// To tell later whether a model is this one.
    pub fn remember(&self) -> Remembrance {
        Remembrance(Arc::downgrade(&self.0))
    }
}

impl Remembrance {
    /// Whether it is of this model.
    pub fn is_of(&self, identity: &Identity) -> bool {
        // The place is not given to anything else as long as it is remembered.
        Weak::as_ptr(&self.0) == Arc::as_ptr(&identity.0)
    }

    /// Whether the model, or a clone of its identity, is still there.
    pub fn is_alive(&self) -> bool {
        self.0.strong_count() > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_told_apart_while_and_after_they_live() {
        let (one, other) = (Identity::default(), Identity::default());
        assert!(one != other && one == one.clone());
        let memory = one.remember();
        assert!(memory.is_of(&one) && !memory.is_of(&other) && memory.is_alive());
        drop(one);
        assert!(!memory.is_alive());
        // Not even in the place that became free.
        assert!((0..100).all(|_| !memory.is_of(&Identity::default())));
    }
}
