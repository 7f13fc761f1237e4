//! One direction of one layer: its geometry, where its weights lie, and what is packed of them.

use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::buffer::Arena;
use crate::layer::{BackwardPack, ForwardPack, Geometry, WeightGradients, Weights};
use crate::params::Layout;
use crate::simd::Real;

/// The weights of a pass.
#[derive(Clone, Copy)]
pub(crate) enum Parameters<'a, E> {
    /// The stack's own, one flat buffer of [`Stack::layout`](super::Stack::layout): what is packed
    /// of them is kept until [`Stack::weights_changed`](super::Stack::weights_changed).
    Own(&'a [E]),
    /// Somebody else's, each by itself in the layout's order, to be read where they are: nothing of
    /// them is kept. For single steps of rows.
    #[cfg_attr(
        not(any(test, feature = "python")),
        expect(dead_code, reason = "the bindings' alone")
    )]
    Lent(&'a [&'a [E]]),
}

impl<E> Parameters<'_, E> {
    /// Whether a pass is done faster with lent weights than with packed ones, even those of the
    /// call before: these would have to be compared, which takes no time where they are small.
    #[cfg(feature = "python")]
    pub fn worth_lending(steps: usize, batch: usize, layout: &Layout) -> bool {
        const FEW: usize = 4;
        const LARGE: usize = 1 << 14;
        steps == 1 && batch <= FEW && layout.size() >= LARGE
    }

    /// Whether they are all there.
    pub fn fit(self, layout: &Layout) -> bool {
        match self {
            Parameters::Own(all) => all.len() == layout.size(),
            Parameters::Lent(parts) => {
                let sizes = layout.entries().iter().map(|entry| entry.range().len());
                sizes.eq(parts.iter().map(|part| part.len()))
            }
        }
    }
}

/// A pack that is kept, or one of a single pass.
pub(super) enum Packed<'a, P> {
    Kept(&'a P),
    Passing(P),
}

impl<P> std::ops::Deref for Packed<'_, P> {
    type Target = P;
    fn deref(&self) -> &P {
        match self {
            Packed::Kept(pack) => pack,
            Packed::Passing(pack) => pack,
        }
    }
}

/// One direction of one layer.
pub(super) struct Direction<E: 'static> {
    pub geometry: Geometry,
    /// Places of weight_ih, weight_hh, bias_ih, bias_hh and weight_hr in the flat buffer; absent
    /// ones empty.
    pub places: [Range<usize>; 5],
    /// Their numbers in the layout.
    pub entries: [usize; 5],
    pub reverse: bool,
    /// Whether the next pass forward begins with the last panels: where the one before has ended.
    pub turned: AtomicBool,
    /// Packed copies, made when first needed and dropped when the weights change.
    pub forward: OnceLock<ForwardPack<'static, E>>,
    pub backward: OnceLock<BackwardPack<'static, E>>,
}

impl<E: Real> Direction<E> {
    fn weights<'a>(&self, all: Parameters<'a, E>) -> Weights<'a, E> {
        let part = |i: usize| match all {
            Parameters::Own(all) => &all[self.places[i].clone()],
            Parameters::Lent(_) if self.places[i].is_empty() => &[],
            Parameters::Lent(parts) => parts[self.entries[i]],
        };
        let bias = |i: usize| Some(part(i)).filter(|part| !part.is_empty());
        Weights {
            input: part(0),
            state: part(1),
            input_bias: bias(2),
            state_bias: bias(3),
            projection: part(4),
        }
    }

    /// Whether a pass of so many steps begins with the last panels.
    pub fn turn(&self, steps: usize) -> bool {
        self.turned.fetch_xor(steps % 2 == 1, Ordering::Relaxed)
    }

    /// Places of the gradients in a flat buffer that starts at `base`.
    pub fn gradients(&self, base: *mut E, add: bool) -> WeightGradients<E> {
        let part = |i: usize| {
            let place = &self.places[i];
            (!place.is_empty()).then(|| base.wrapping_add(place.start))
        };
        WeightGradients {
            input: part(0).unwrap_or(ptr::null_mut()),
            state: part(1).unwrap_or(ptr::null_mut()),
            input_bias: part(2),
            state_bias: part(3),
            projection: part(4).unwrap_or(ptr::null_mut()),
            looked_up: ptr::null_mut(),
            add,
            first: true,
            last: true,
        }
    }

    /// The weights of a forward pass.
    pub fn forward_pack<'a>(
        &'a self,
        all: Parameters<'a, E>,
        arena: &Arc<Arena>,
    ) -> Packed<'a, ForwardPack<'a, E>> {
        let (g, weights) = (&self.geometry, self.weights(all));
        match all {
            Parameters::Own(_) => {
                Packed::Kept(self.forward.get_or_init(|| g.pack_forward(weights, arena)))
            }
            Parameters::Lent(_) => Packed::Passing(g.lend_forward(weights, arena)),
        }
    }

    /// The weights of a pass back; lent ones towards the input only `with_input`.
    pub fn backward_pack<'a>(
        &'a self,
        all: Parameters<'a, E>,
        with_input: bool,
        arena: &Arc<Arena>,
    ) -> Packed<'a, BackwardPack<'a, E>> {
        let (g, weights) = (&self.geometry, self.weights(all));
        match all {
            Parameters::Own(_) => Packed::Kept(
                self.backward
                    .get_or_init(|| g.pack_backward(weights, arena)),
            ),
            Parameters::Lent(_) => Packed::Passing(g.lend_backward(weights, with_input, arena)),
        }
    }
}
