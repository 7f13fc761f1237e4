//! Where an epoch stands, in plain numbers.

use std::ops::Range;

use super::Run;
use super::run::Place;
use crate::error::{Error, Result};
use crate::loss::Score;
use crate::network::Network;
use crate::pass::States;
use crate::sequence::Element;

/// Where an epoch stands between two updates. With the same examples, options, weights and state of
/// the optimizer it goes on from there to the same bits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Position<E> {
    /// Groups of batches that are done.
    pub group: usize,
    /// Pieces of the next group's sequences that are done.
    pub piece: usize,
    /// Updates made.
    pub updates: usize,
    /// Seeds drawn.
    pub draws: u64,
    /// The score so far, as its parts.
    pub score: Vec<f64>,
    /// The sum of the gradients' norms.
    pub norms: f64,
    /// Steps that the sequences had.
    pub steps: u64,
    /// Seconds that it took.
    pub seconds: f64,
    /// The states that the next piece starts from: of each batch of the group, the hidden states
    /// of each layer, (rows, H), then the memories.
    pub states: Vec<E>,
}

impl<E: Element> Run<'_, E> {
    /// Where it stands.
    pub fn position(&self, network: &Network<E>) -> Position<E> {
        let mut states = Vec::new();
        for found in self.states.iter().flatten() {
            for part in [&found.hidden, &found.memory].into_iter().flatten() {
                for (i, rows) in part.iter().enumerate() {
                    states.extend(network.state_columns(i).unpad(rows));
                }
            }
        }
        Position {
            group: self.place.group,
            piece: self.place.piece,
            updates: self.place.updates,
            draws: self.place.draws,
            score: self.score.to_parts(),
            norms: self.norms,
            steps: self.steps,
            seconds: self.seconds,
            states,
        }
    }

    /// Goes to where another run of the same examples and options stood.
    ///
    /// # Errors
    /// [`Error::Value`] naming `position` if such a run cannot have stood there.
    pub fn resume(&mut self, network: &Network<E>, position: &Position<E>) -> Result<()> {
        let config = network.config();
        let misfit = |what: String| Error::value("position", "one of this epoch", what);
        let &Position { group, piece, .. } = position;
        let is_inside = match self.groups.len() {
            len if group < len => piece < self.pieces(group),
            len => group == len && piece == 0,
        };
        if !is_inside {
            return Err(misfit(format!("group {group}, piece {piece}")));
        }
        // As many seeds as batches had a part of the pieces that are done.
        let (mut updates, mut draws) = (0, 0);
        for (i, batches) in self.groups.iter().enumerate().take(group + 1) {
            let pieces = if i < group { self.pieces(i) } else { piece };
            updates += pieces;
            let parts = batches.iter().map(|batch| {
                let done = (0..pieces).filter(|&piece| self.span(batch, piece).is_some());
                done.count() as u64
            });
            draws += parts.sum::<u64>();
        }
        if (updates, draws) != (position.updates, position.draws) {
            let Position { updates, draws, .. } = position;
            return Err(misfit(format!("{updates} updates, {draws} draws")));
        }
        let score = Score::from_parts(config.loss, config.n_outputs, &position.score)
            .map_err(|_| misfit(format!("a score of {} parts", position.score.len())))?;
        let mut states = Vec::new();
        let mut rest = &*position.states;
        if piece > 0 {
            for batch in &self.groups[group] {
                let rows = self.span(batch, piece).map(|span| span.batch.len());
                let found = rows.map(|rows| {
                    take_states(network, rows, &mut rest).ok_or_else(|| {
                        misfit(format!("{} numbers of states", position.states.len()))
                    })
                });
                states.push(found.transpose()?);
            }
        }
        if !rest.is_empty() {
            return Err(misfit(format!(
                "{} numbers of states",
                position.states.len()
            )));
        }
        self.place = Place {
            group,
            piece,
            updates,
            draws,
        };
        self.score = score;
        (self.norms, self.steps) = (position.norms, position.steps);
        (self.seconds, self.states) = (position.seconds, states);
        Ok(())
    }
}

/// States for some rows from the front of `rest`, if there are so many numbers.
fn take_states<E: Element>(
    network: &Network<E>,
    rows: usize,
    rest: &mut &[E],
) -> Option<States<E>> {
    let mut part = |places: Range<usize>| {
        places
            .map(|i| {
                let columns = network.state_columns(i);
                let (numbers, after) = rest.split_at_checked(rows * columns.width)?;
                *rest = after;
                let mut to = network.arena().zeros(rows * columns.stride());
                columns.pad(numbers, &mut to);
                Some(to)
            })
            .collect::<Option<Vec<_>>>()
    };
    let count = network.state_count();
    let hidden = Some(part(0..count)?);
    let memory = if network.config().stack.cell.signature().has_memory() {
        Some(part(0..count)?)
    } else {
        None
    };
    Some(States { hidden, memory })
}
