//! The rounds in which a direction goes back, and where what one leaves lies.
//!
//! A round is some steps: first the gradients of their slots are found, then what follows from
//! these is taken, the gradients of the input and of the weights, while they are in cache. They
//! take the place of what forward saved. Where that is nothing, they lie in a ring with room for a
//! round and for the step after it, from which the next one goes on.

use std::ops::Range;

use super::Geometry;
use crate::kernel::weight::DEPTH;
use crate::steps::Steps;

/// Rows of a round, about: as many as keep products efficient, and threads from waiting often.
const ROWS: usize = 512;
/// Bytes of gradients of a round in the ring, about, where that is more rows.
const BYTES: usize = 1 << 19;
/// Bytes of a round where forward saved something: a part of the cache that cores share.
const SHARED: usize = 4 << 20;

/// The rounds of a direction over a batch.
pub(crate) struct Rounds {
    /// Runs of steps in the order in which backward comes to them. Sums go through them in this
    /// order, and forwards in each, however many are a round.
    pieces: Vec<Range<usize>>,
    /// The steps of each round, and its pieces.
    rounds: Vec<(Range<usize>, Range<usize>)>,
    /// Where each step's rows begin.
    places: Vec<usize>,
    /// Rows for which there is room.
    rows: usize,
}

impl Rounds {
    /// Those of a direction.
    pub fn new<E>(g: &Geometry, steps: &Steps, reverse: bool) -> Self {
        let row = (g.hidden * g.signature.slots * size_of::<E>()).max(1);
        if g.saved_row() == 0 {
            return Self::cut(steps, reverse, ROWS.max(BYTES / row));
        }
        // The gradients of matrices larger than a round would go to and fro with each, which is more
        // than a round keeps from memory: 8 % of the pass back at 1024 units.
        let columns = g.input.real() + g.width;
        let matrices = g.signature.gates * g.hidden * columns * size_of::<E>();
        if matrices > SHARED {
            return Self::whole(steps, reverse);
        }
        Rounds {
            places: (0..steps.longest())
                .map(|step| steps.offset(step))
                .collect(),
            rows: steps.rows(),
            ..Self::cut(steps, reverse, SHARED / row)
        }
    }

    /// All steps as one round, whose rows lie in packed order.
    pub fn whole(steps: &Steps, reverse: bool) -> Self {
        Self::cut(steps, reverse, usize::MAX / 2)
    }

    pub(crate) fn cut(steps: &Steps, reverse: bool, most: usize) -> Self {
        let mut pieces: Vec<_> = steps.cut(DEPTH).collect();
        // The same whether the direction comes to the first or to the last of them first.
        let mut ends = vec![0];
        for (i, piece) in pieces.iter().enumerate() {
            let start = pieces[ends[ends.len() - 1]].start;
            if steps.rows_of(&(start..piece.end)).len() > most / 4 * 3 || i + 1 == pieces.len() {
                ends.push(i + 1);
            }
        }
        let count = pieces.len();
        if !reverse {
            pieces.reverse();
            ends.reverse();
            ends.iter_mut().for_each(|end| *end = count - *end);
        }
        let round = |ends: &[usize]| {
            let (one, other) = (&pieces[ends[0]], &pieces[ends[1] - 1]);
            let steps = one.start.min(other.start)..one.end.max(other.end);
            (steps, ends[0]..ends[1])
        };
        let rounds: Vec<_> = ends.windows(2).map(round).collect();
        let of = |(round, _): &(Range<usize>, _)| steps.rows_of(round).len();
        let rows = match rounds.len() {
            1 => steps.rows(),
            // With the step after, and with what is left before the ring's end, less than a step.
            _ => rounds.iter().map(of).max().unwrap_or(0) + 2 * steps.batch(),
        };
        Rounds {
            pieces,
            rounds,
            places: ring(steps, reverse, rows),
            rows,
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.rounds.len()
    }

    /// The steps of a round.
    pub fn steps(&self, round: usize) -> Range<usize> {
        self.rounds[round].0.clone()
    }

    /// The runs of steps of a round by which sums go through it.
    pub fn pieces(&self, round: usize) -> &[Range<usize>] {
        &self.pieces[self.rounds[round].1.clone()]
    }

    /// Rows for which there is room.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Where each step's rows begin.
    pub fn places(&self) -> &[usize] {
        &self.places
    }
}

/// Where each step's rows begin in a ring with room for some: one after another in the order in which
/// backward comes to the steps, and so that those of neighbours follow each other in packed order.
fn ring(steps: &Steps, reverse: bool, rows: usize) -> Vec<usize> {
    let mut places = vec![0; steps.longest()];
    let mut used = 0;
    for i in 0..places.len() {
        let step = if reverse { i } else { places.len() - 1 - i };
        let count = steps.count(step);
        if used + count > rows {
            used = 0;
        }
        // Steps that come from the last to the first fill it from its end.
        places[step] = if reverse { used } else { rows - used - count };
        used += count;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::CellKind;

    #[test]
    fn what_was_saved_is_replaced_where_it_lies() {
        let of = |hidden| {
            let input = Geometry::columns(1, 64, 16);
            Geometry::new(CellKind::Gru, input, (hidden, hidden), 16)
        };
        let steps = Steps::new(&[400; 64]);
        for reverse in [false, true] {
            let small = Rounds::new::<f32>(&of(128), &steps, reverse);
            assert!(small.count() > 5);
            // Matrices of nearly a round's bytes.
            let middle = Rounds::new::<f64>(&of(384), &steps, reverse);
            assert!(middle.count() > 20);
            let large = Rounds::new::<f32>(&of(1024), &steps, reverse);
            assert_eq!(large.count(), 1);
            for rounds in [small, middle, large] {
                assert_eq!(rounds.rows(), steps.rows());
                assert!((0..400).all(|step| rounds.places()[step] == steps.offset(step)));
            }
        }
    }

    /// The steps of a range in the order in which backward comes to them.
    fn descending(steps: Range<usize>, reverse: bool) -> Vec<usize> {
        match reverse {
            true => steps.collect(),
            false => steps.rev().collect(),
        }
    }

    #[test]
    fn a_round_and_the_step_after_it_are_all_there() {
        for lengths in [
            vec![],
            vec![0],
            vec![7],
            vec![400; 3],
            vec![5000; 2],
            vec![9, 3000, 17, 1200, 1200, 4],
            vec![30; 100],
            vec![3; 1000],
        ] {
            let steps = Steps::new(&lengths);
            for reverse in [false, true] {
                for most in [1, 500, 2000, 100_000] {
                    let rounds = Rounds::cut(&steps, reverse, most);
                    let mut order: Vec<usize> = Vec::new();
                    // Who wrote each row of the ring last.
                    let mut owner = vec![usize::MAX; rounds.rows()];
                    let mut after = None;
                    for round in 0..rounds.count() {
                        let mut there = descending(rounds.steps(round), reverse);
                        let pieces = rounds.pieces(round).iter().cloned();
                        let pieces = pieces.flat_map(|piece| descending(piece, reverse));
                        assert!(pieces.eq(there.iter().copied()));
                        order.extend(&there);
                        let last = there.last().copied();
                        let rows = |step: usize| {
                            let place = rounds.places()[step];
                            place..place + steps.count(step)
                        };
                        for &step in &there {
                            owner[rows(step)].fill(step);
                        }
                        there.extend(after);
                        for step in there {
                            assert!(owner[rows(step)].iter().all(|&owner| owner == step));
                        }
                        after = last;
                    }
                    assert_eq!(order, descending(0..steps.longest(), reverse));
                }
            }
        }
    }

    #[test]
    fn few_rows_are_one_round_and_many_take_little_room() {
        let rounds = Rounds::cut(&Steps::new(&[50; 32]), false, 2048);
        assert_eq!((rounds.count(), rounds.rows()), (1, 1600));
        let rounds = Rounds::whole(&Steps::new(&[400; 64]), false);
        assert_eq!((rounds.count(), rounds.places()[7]), (1, 7 * 64));
        let rounds = Rounds::cut(&Steps::new(&[400; 64]), false, 1024);
        assert!(rounds.count() > 20 && rounds.rows() <= 1024 + 256 + 2 * 64);
    }
}
