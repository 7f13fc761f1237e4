//! The linear head, over blocks of rows.

use std::ops::Range;

use super::{Gradients, Network};
use crate::buffer::Buffer;
use crate::pass::{Pass, Source, States};
use crate::sequence::Element;
use crate::stack::Want;
use crate::steps::Steps;

/// Outputs of a block: what stays near in memory from the head to the loss and back. Fixed, as the
/// gradients' bits depend on it.
const BLOCK: usize = 1 << 22;

impl<E: Element> Network<E> {
    fn blocks(&self, seen: &[E]) -> impl Iterator<Item = Range<usize>> + use<E> {
        let rows = seen.len() / self.seen_columns().stride();
        let each = (BLOCK / self.output_stride()).max(64);
        // Without rows there is one empty block, whose gradients are zeros.
        (0..rows.max(1))
            .step_by(each)
            .map(move |start| start..(start + each).min(rows))
    }

    fn head(&self, seen: &[E], keep: bool) -> (Pass<E>, Buffer<E>) {
        let stride = self.seen_columns().stride();
        let mut x = self.stack.arena().take(seen.len());
        x.copy_from_slice(seen);
        let mut pass = self.top.forward(
            &self.weights[self.places.head.clone()],
            Steps::new(&vec![1; seen.len() / stride]),
            Source::Rows(x),
            States::none(),
            keep,
            None,
        );
        // Neither a head's own backward nor anybody else reads them again.
        let nothing = self.stack.arena().take(0);
        let outputs = std::mem::replace(&mut pass.layers[0].y, nothing);
        (pass, outputs)
    }

    /// Calls `take` with the outputs of rows that the head sees, block after block.
    pub(crate) fn outputs(&self, seen: &[E], mut take: impl FnMut(Range<usize>, &mut [E])) {
        let stride = self.seen_columns().stride();
        for block in self.blocks(seen) {
            let (_, mut outputs) =
                self.head(&seen[block.start * stride..block.end * stride], false);
            take(block, &mut outputs);
        }
    }

    /// The same for training: `judge` replaces outputs by their gradient. Turns `seen` into its
    /// gradient, and adds the head's.
    pub(super) fn learn_head(
        &self,
        seen: &mut [E],
        gradients: &mut Gradients<E>,
        mut judge: impl FnMut(Range<usize>, &mut [E]),
    ) {
        let stride = self.seen_columns().stride();
        for block in self.blocks(seen) {
            let seen = &mut seen[block.start * stride..block.end * stride];
            let (pass, mut outputs) = self.head(seen, true);
            judge(block, &mut outputs);
            let is_first = gradients.is_first_of_head();
            gradients.add(self.places.head.clone(), is_first, |head| {
                let want = Want {
                    input: true,
                    states: false,
                    outputs: false,
                    weights: true,
                };
                // A row is a sequence of one step, so that its output is its final state.
                let last = States {
                    hidden: Some(vec![outputs]),
                    memory: None,
                };
                let weights = &self.weights[self.places.head.clone()];
                let found = self.top.backward(weights, pass, None, last, want, head);
                seen.copy_from_slice(&found.dx.expect("the input's gradient was asked for"));
            });
        }
    }
}
