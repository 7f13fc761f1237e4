//! From torch's matrices to packed panels, and back for gradients.

use crate::simd::Real;

/// How the columns of a matrix lie in a padded row: `segments` runs of `width`, `padded` apart.
///
/// A layer's input has one segment; the output of a bidirectional layer has two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Columns {
    pub segments: usize,
    pub width: usize,
    pub padded: usize,
}

impl Columns {
    /// Columns of the matrix.
    pub fn real(self) -> usize {
        self.segments * self.width
    }
    /// Numbers of a padded row.
    pub fn stride(self) -> usize {
        self.segments * self.padded
    }
    /// Numbers of a padded row up to its last column.
    pub fn extent(self) -> usize {
        (self.segments - 1) * self.padded + self.width
    }
    /// The same columns with nothing between them.
    pub fn unpadded(self) -> Self {
        Columns {
            padded: self.width,
            ..self
        }
    }
    /// The numbers of padded rows, without the padding.
    pub fn unpad<E: Copy>(self, rows: &[E]) -> Vec<E> {
        let segments = rows.chunks_exact(self.padded);
        let real = segments.flat_map(|segment| &segment[..self.width]);
        real.copied().collect()
    }
    /// Writes the numbers of rows into padded ones, and leaves the padding.
    pub fn pad<E: Copy>(self, numbers: &[E], rows: &mut [E]) {
        let segments = rows.chunks_exact_mut(self.padded);
        for (to, from) in segments.zip(numbers.chunks_exact(self.width)) {
            to[..self.width].copy_from_slice(from);
        }
    }
    /// The matrix's column at a position of the padded row, unless that is padding.
    pub fn column(self, position: usize) -> Option<usize> {
        let (segment, offset) = (position / self.padded, position % self.padded);
        (offset < self.width).then_some(segment * self.width + offset)
    }
}

/// One gate's rows of a weight matrix: H rows of `columns.real()` numbers.
#[derive(Clone, Copy)]
pub(crate) struct GateRows<'a, E> {
    pub rows: &'a [E],
    pub columns: Columns,
}

/// Packs one panel of several gates for forward, `[k][gate][lanes]`, k up to the last column of the
/// padded row, with padding zero.
///
/// `first` is the panel's first unit, `units` the number of units there are in all.
pub(crate) fn pack_forward<E: Real>(
    gates: &[GateRows<E>],
    (first, units): (usize, usize),
    lanes: usize,
    out: &mut [E],
) {
    const BLOCK: usize = 16;
    let (transpose, to_row) = (E::transposer(lanes), gates.len() * lanes);
    for (g, gate) in gates.iter().enumerate() {
        let Columns {
            segments,
            width,
            padded,
        } = gate.columns;
        let real = gate.columns.real();
        for segment in 0..segments {
            let (base, before) = (segment * padded, segment * width);
            // Whole blocks, where registers have so many lanes; then what is left.
            let blocks = match transpose {
                Some(_) if first + lanes <= units => width / lanes,
                _ => 0,
            };
            let done = blocks * lanes;
            if let (Some(transpose), 1..) = (transpose, blocks) {
                let from = &gate.rows[first * real + before..][..(lanes - 1) * real + done];
                let to = &mut out[base * to_row + g * lanes..][..(done - 1) * to_row + lanes];
                let (from, to) = (from.as_ptr(), to.as_mut_ptr());
                // SAFETY: `from` has the panel's rows up to column `done`, and `to` their places.
                unsafe { transpose(from, real, to, to_row, blocks) };
            }
            for start in (done..width).step_by(BLOCK) {
                for lane in 0..lanes {
                    let unit = first + lane;
                    for k in start..(start + BLOCK).min(width) {
                        out[(base + k) * to_row + g * lanes + lane] = if unit < units {
                            gate.rows[unit * real + before + k]
                        } else {
                            E::ZERO
                        };
                    }
                }
            }
            let end = (base + padded).min(gate.columns.extent());
            for position in base + width..end {
                let at = position * to_row + g * lanes;
                out[at..at + lanes].fill(E::ZERO);
            }
        }
    }
}

/// Packs one column panel for backward, `[unit panel][gate][unit][lanes]`, with padding zero.
pub(crate) fn pack_backward<E: Real>(
    gates: &[GateRows<E>],
    column_panel: usize,
    units: usize,
    lanes: usize,
    out: &mut [E],
) {
    const RUN: usize = 4;
    let mut rows = out.chunks_exact_mut(lanes);
    for panel in 0..units.div_ceil(lanes) {
        for gate in gates {
            for lane in 0..lanes {
                let unit = panel * lanes + lane;
                let to = rows.next().expect("the caller sized the panel");
                let columns = gate.columns;
                let position = column_panel * lanes;
                let (segment, offset) = (position / columns.padded, position % columns.padded);
                let count = columns.width.saturating_sub(offset).min(lanes);
                if unit >= units || count == 0 {
                    to.fill(E::ZERO);
                    continue;
                }
                let first = unit * columns.real() + segment * columns.width + offset;
                let from = &gate.rows[first..][..count];
                if count == lanes && lanes.is_multiple_of(RUN) {
                    // Without a call for each line.
                    for (to, from) in to.chunks_exact_mut(RUN).zip(from.chunks_exact(RUN)) {
                        to.copy_from_slice(from);
                    }
                } else {
                    to[..count].copy_from_slice(from);
                    to[count..].fill(E::ZERO);
                }
            }
        }
    }
}
