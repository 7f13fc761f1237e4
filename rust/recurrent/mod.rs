//! A recurrent stack with its weights, over ndarray views: the crate's layer for users.

#[cfg_attr(
    not(feature = "python"),
    expect(dead_code, reason = "the bindings' alone")
)]
mod handed;
mod shapes;
mod tape;

use ndarray::{ArrayView3, ArrayViewMut3, Axis};

use crate::boundary::{Axes, Lent, Rows, RowsMut, gather_state, gathered, scatter, scatter_state};
use crate::buffer::Buffer;
use crate::dropout::Drawn;
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::kernel::pack::Columns;
use crate::params::Layout;
use crate::pass::{Ends, Feed, StateRows, States, View};
use crate::sequence::Element;
#[cfg(feature = "python")]
use crate::simd::Isa;
use crate::stack::{Config, Parameters, Stack, Want};
use crate::steps::{Steps, Strides};

use shapes::{expect_rows, expect_shape};
pub use tape::{Gradients, Inputs, Tape};
pub(crate) use tape::{Keep, Outside};

/// A recurrent stack and its weights.
pub struct Recurrent<E: 'static> {
    stack: Stack<E>,
    weights: Vec<E>,
    id: Identity,
    version: u64,
}

fn foreign(actual: &str) -> Error {
    Error::TapeForeign {
        actual: actual.to_owned(),
    }
}

impl<E: Element> Recurrent<E> {
    /// A stack whose weights are all zero, for the current instruction set.
    ///
    /// # Errors
    /// As [`Stack::new`] and [`Recurrent::from_stack`].
    pub fn new(config: Config) -> Result<Self> {
        Self::from_stack(Stack::new(config)?)
    }

    /// The same for a stack that is there already.
    ///
    /// # Errors
    /// [`Error::Value`] naming `hidden_sizes` if layers differ in size, as their states have one
    /// array; [`Error::OutOfMemory`] if there is no room for the weights.
    pub fn from_stack(stack: Stack<E>) -> Result<Self> {
        let sizes = &stack.config().hidden_sizes;
        if sizes.iter().any(|size| *size != sizes[0]) {
            let actual = format!("{sizes:?}");
            return Err(Error::value("hidden_sizes", "layers of one size", actual));
        }
        Ok(Recurrent {
            weights: stack.layout().zeros()?,
            stack,
            id: Identity::default(),
            version: 0,
        })
    }

    /// What the stack is made of.
    pub fn config(&self) -> &Config {
        self.stack.config()
    }
    /// The instruction set that it was made for.
    #[cfg(feature = "python")]
    pub(crate) fn isa(&self) -> Isa {
        self.stack.isa()
    }
    /// Names, shapes and places of the weights.
    pub fn layout(&self) -> &Layout {
        self.stack.layout()
    }
    /// All weights.
    pub fn weights(&self) -> &[E] {
        &self.weights
    }
    /// What tells it from every other model.
    pub fn id(&self) -> &Identity {
        &self.id
    }

    /// Lets `change` write the weights. Tapes recorded before can no longer be used, even if it
    /// fails.
    ///
    /// # Errors
    /// Whatever `change` returns.
    pub fn update<R>(&mut self, change: impl FnOnce(&mut [E]) -> Result<R>) -> Result<R> {
        self.version += 1;
        self.stack.weights_changed();
        change(&mut self.weights)
    }

    fn check_owner(&self, tape: &Tape<E>) -> Result<()> {
        if tape.owner == self.id {
            return Ok(());
        }
        Err(foreign("one of another stack"))
    }

    fn gather_states(&self, from: ArrayView3<E>, steps: &Steps, columns: Columns) -> StateRows<E> {
        from.axis_iter(Axis(0))
            .map(|from| {
                let mut to = self.stack.arena().take(steps.batch() * columns.stride());
                gather_state(from, steps, columns, &mut to);
                to
            })
            .collect()
    }

    fn gather_both(
        &self,
        (hidden, memory): (Option<ArrayView3<E>>, Option<ArrayView3<E>>),
        steps: &Steps,
    ) -> States<E> {
        let stack = &self.stack;
        States {
            hidden: hidden.map(|from| self.gather_states(from, steps, stack.state_columns(0))),
            memory: memory.map(|from| self.gather_states(from, steps, stack.memory_columns(0))),
        }
    }

    /// Runs a batch. With `keep`, the tape can go into [`Recurrent::backward`]; `dropout_seed`
    /// turns dropout between layers on.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Value`] naming `x`, `h0`, `c0` or `lengths`;
    /// [`Error::OutOfMemory`] if there is no room for the pass.
    pub fn forward(
        &self,
        inputs: Inputs<E>,
        keep: bool,
        dropout_seed: Option<u64>,
    ) -> Result<Tape<E>> {
        let axes = match inputs.x {
            Rows::Padded(_) => Axes::Steps,
            Rows::Packed(_) => Axes::Packed,
        };
        let keep = if keep { Keep::All } else { Keep::Nothing };
        self.forward_for(self.own(), inputs, axes, keep, dropout_seed)
    }

    /// The stack's own weights.
    pub(crate) fn own(&self) -> Parameters<'_, E> {
        Parameters::Own(&self.weights)
    }

    /// The same for a caller whose arrays of rows have these axes, with weights that may be others.
    pub(crate) fn forward_for(
        &self,
        weights: Parameters<E>,
        inputs: Inputs<E>,
        axes: Axes,
        keep: Keep,
        dropout_seed: Option<u64>,
    ) -> Result<Tape<E>> {
        let is_kept = keep != Keep::Nothing;
        let (steps, total) = self.steps(&inputs, is_kept)?;
        let is_lent = matches!(weights, Parameters::Lent(_));
        let batch = steps.batch();
        let [h0, c0] = [&inputs.h0, &inputs.c0].map(|state| state.as_ref().map(|s| s.shape()));
        self.expect_states(batch, [("h0", h0), ("c0", c0)])?;
        self.stack.check_room(steps.rows(), is_kept)?;
        let (columns, arena) = (self.stack.input_columns(), self.stack.arena());
        let copied = (keep == Keep::All).then(|| gathered(inputs.x, &steps, columns, arena));
        let lent;
        let x = match &copied {
            Some(x) => View::packed(x, columns.stride()),
            None => {
                lent = Lent::new(inputs.x, &steps, columns, false, arena);
                lent.view()
            }
        };
        let outputs = self.stack.output_columns();
        let y_strides = axes
            .strides(&steps, total, outputs.real())
            .filter(|_| keep.gives_output() && outputs.stride() == outputs.real())
            .unwrap_or(Strides::packed(outputs.stride()));
        let initial = self.gather_both((inputs.h0, inputs.c0), &steps);
        let pass = self.stack.forward(
            weights,
            steps.clone(),
            Feed::Rows(x),
            initial,
            is_kept,
            y_strides,
            dropout_seed.map(Drawn::new),
        );
        Ok(Tape {
            pass: Some(pass),
            x: copied,
            steps,
            total,
            axes,
            keep,
            gave_output: false,
            is_lent,
            owner: self.id.clone(),
            version: self.version,
        })
    }

    /// Takes a tape back: gradients of a loss with respect to everything that went in, given those
    /// with respect to the output `dy` (T, B, D·W) or (R, D·W) and the final states `dh` (L·D, B,
    /// W) and `dc` (L·D, B, H). An absent one is zero.
    ///
    /// # Errors
    /// [`Error::TapeUsed`] the second time, [`Error::TapeForeign`] if the weights have changed
    /// since or the tape is another model's, [`Error::Shape`] naming `d_output`, `d_h` or `d_c`,
    /// [`Error::Value`] naming `d_c` if the cell has no memory. The tape stays usable after an error.
    pub fn backward(
        &self,
        tape: &mut Tape<E>,
        dy: Option<Rows<E>>,
        dh: Option<ArrayView3<E>>,
        dc: Option<ArrayView3<E>>,
    ) -> Result<Gradients<E>> {
        let outside = Outside {
            x: None,
            output: None,
            d_output: dy,
        };
        self.backward_for(self.own(), tape, outside, (dh, dc), Want::ALL)
    }

    /// The same for some of the gradients: others are left out, those of weights empty. A tape that
    /// did not keep the input or the output, or was made with lent weights, is given them again.
    pub(crate) fn backward_for(
        &self,
        weights: Parameters<E>,
        tape: &mut Tape<E>,
        outside: Outside<E>,
        (dh, dc): (Option<ArrayView3<E>>, Option<ArrayView3<E>>),
        want: Want,
    ) -> Result<Gradients<E>> {
        self.check_owner(tape)?;
        if tape.keep == Keep::Nothing {
            return Err(foreign("one of inference, which keeps nothing"));
        }
        if tape.version != self.version {
            return Err(foreign("one recorded before the weights changed"));
        }
        if tape.is_lent != matches!(weights, Parameters::Lent(_)) {
            return Err(foreign("one of other weights"));
        }
        let steps = &tape.steps;
        let (columns, outputs) = (self.stack.input_columns(), self.stack.output_columns());
        let Outside {
            x,
            output,
            d_output,
        } = outside;
        for (name, rows, columns) in [
            ("x", &x, columns),
            ("output", &output, outputs),
            ("d_output", &d_output, outputs),
        ] {
            if let Some(rows) = rows {
                expect_rows(name, tape, rows.shape(), columns)?;
            }
        }
        if tape.pass.is_some() {
            if x.is_none() && tape.x.is_none() {
                return Err(foreign("one without its input"));
            }
            if output.is_none() && tape.gave_output {
                return Err(foreign("one without its output"));
            }
        }
        let [d_h, d_c] = [&dh, &dc].map(|state| state.as_ref().map(|state| state.shape()));
        self.expect_states(steps.batch(), [("d_h", d_h), ("d_c", d_c)])?;
        let pass = tape.pass.take().ok_or(Error::TapeUsed)?;
        let arena = self.stack.arena();
        let x = match (tape.x.take(), x) {
            (Some(x), _) => Lent::Copied(x, Strides::packed(columns.stride())),
            (None, Some(x)) => Lent::new(x, steps, columns, true, arena),
            (None, None) => return Err(Error::TapeUsed),
        };
        let y = output.filter(|_| tape.gave_output);
        let y = y.map(|y| Lent::new(y, steps, outputs, true, arena));
        let dy = d_output.map(|dy| Lent::new(dy, steps, outputs, true, arena));
        let last = self.gather_both((dh, dc), steps);
        let wanted = if want.weights { self.weights.len() } else { 0 };
        let mut found = arena.take(wanted);
        if want.from_layer > 0 {
            // Those of the layers beneath are not written.
            found.fill(E::ZERO);
        }
        let there = tape.axes.strides(steps, tape.total, columns.real());
        let (dx_strides, dx_columns) = match there {
            Some(strides) => (strides, columns.unpadded()),
            None => (Strides::packed(columns.stride()), columns),
        };
        let want = Want {
            input_strides: there,
            ..want
        };
        let ends = Ends {
            x: Feed::Rows(x.view()),
            y: y.as_ref().map(Lent::view),
            dy: dy.as_ref().map(Lent::view),
        };
        let inputs = self
            .stack
            .backward(weights, pass, ends, last, want, &mut found);
        Ok(Gradients {
            owner: self.id.clone(),
            inputs,
            dx_strides,
            dx_columns,
            steps: steps.clone(),
            total: tape.total,
            axes: tape.axes,
            weights: found,
        })
    }

    /// Writes a pass's output, (T, B, D·W), zero after a sequence's end, or (R, D·W).
    ///
    /// # Errors
    /// [`Error::Shape`] naming `output`; [`Error::TapeUsed`] after backward;
    /// [`Error::TapeForeign`] if the tape is another model's.
    pub fn output<'a>(&self, tape: &Tape<E>, to: impl Into<RowsMut<'a, E>>) -> Result<()> {
        let to = to.into();
        self.check_owner(tape)?;
        let pass = tape.pass.as_ref().ok_or(Error::TapeUsed)?;
        let columns = self.stack.output_columns();
        expect_rows("output", tape, to.shape(), columns)?;
        let layer = pass.layers.last().ok_or(Error::TapeUsed)?;
        scatter(&layer.y, layer.y_strides, &tape.steps, columns, to);
        Ok(())
    }

    /// Writes a pass's final hidden states, (L·D, B, W), and memories, (L·D, B, H), if `memory` is
    /// given.
    ///
    /// # Errors
    /// [`Error::Shape`] naming `hidden` or `memory`; [`Error::Value`] naming `memory` if the cell has
    /// none; [`Error::TapeUsed`] after backward; [`Error::TapeForeign`] if the tape is another
    /// model's.
    pub fn states(
        &self,
        tape: &Tape<E>,
        mut hidden: ArrayViewMut3<E>,
        memory: Option<ArrayViewMut3<E>>,
    ) -> Result<()> {
        self.check_owner(tape)?;
        let pass = tape.pass.as_ref().ok_or(Error::TapeUsed)?;
        let batch = tape.steps.batch();
        let of_memory = memory.as_ref().map(|memory| memory.shape());
        self.expect_states(
            batch,
            [("hidden", Some(hidden.shape())), ("memory", of_memory)],
        )?;
        let directions = self.config().directions();
        let columns = self.stack.state_columns(0);
        let mut rows: Buffer<E> = self.stack.arena().take(batch * columns.stride());
        for (i, to) in hidden.axis_iter_mut(Axis(0)).enumerate() {
            pass.final_hidden(i / directions, i % directions, columns.stride(), &mut rows);
            scatter_state(&rows, &tape.steps, columns, to);
        }
        let Some(mut memory) = memory else {
            return Ok(());
        };
        let columns = self.stack.memory_columns(0);
        let mut rows: Buffer<E> = self.stack.arena().take(batch * columns.stride());
        for (i, to) in memory.axis_iter_mut(Axis(0)).enumerate() {
            pass.final_memory(i / directions, i % directions, &mut rows);
            scatter_state(&rows, &tape.steps, columns, to);
        }
        Ok(())
    }

    /// Writes the gradients of the input (T, B, I) or (R, I) and of the initial states, (L·D, B, W)
    /// and (L·D, B, H).
    ///
    /// # Errors
    /// [`Error::Shape`] naming `dx`, `dh0` or `dc0`; [`Error::Value`] naming `dc0` if the cell has no
    /// memory, or `gradients` if they are another stack's.
    pub fn input_gradients<'a>(
        &self,
        gradients: &Gradients<E>,
        dx: impl Into<RowsMut<'a, E>>,
        dh0: ArrayViewMut3<E>,
        dc0: Option<ArrayViewMut3<E>>,
    ) -> Result<()> {
        self.read_gradients(gradients, Some(dx.into()), Some(dh0), dc0)
    }

    /// The same for some of them.
    pub(crate) fn read_gradients(
        &self,
        gradients: &Gradients<E>,
        dx: Option<RowsMut<E>>,
        dh0: Option<ArrayViewMut3<E>>,
        dc0: Option<ArrayViewMut3<E>>,
    ) -> Result<()> {
        let Gradients { inputs, steps, .. } = gradients;
        if gradients.owner != self.id {
            let expected = "those of this stack";
            return Err(Error::value("gradients", expected, "those of another"));
        }
        let [of_hidden, of_memory] = [&dh0, &dc0].map(|to| to.as_ref().map(|to| to.shape()));
        self.expect_states(steps.batch(), [("dh0", of_hidden), ("dc0", of_memory)])?;
        if let Some(dx) = dx {
            let width = self.config().input_size;
            match dx.shape() {
                [total, _, _] => {
                    let total = *total.max(&steps.longest());
                    expect_shape("dx", dx.shape(), &[total, steps.batch(), width])?;
                }
                _ => expect_shape("dx", dx.shape(), &[steps.rows(), width])?,
            }
            if let Some(rows) = &inputs.dx {
                scatter(rows, gradients.dx_strides, steps, gradients.dx_columns, dx);
            }
        }
        let states = [
            (dh0, &inputs.dh0, self.stack.state_columns(0)),
            (dc0, &inputs.dmemory0, self.stack.memory_columns(0)),
        ];
        for (to, from, columns) in states {
            let Some(mut to) = to else { continue };
            for (rows, to) in from.iter().zip(to.axis_iter_mut(Axis(0))) {
                scatter_state(rows, steps, columns, to);
            }
        }
        Ok(())
    }
}
