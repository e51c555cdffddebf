//! Output stages on sums in L1, in scalar code for the compiler to vectorize: the path that every kernel can take.

use core::ops::Range;

use qcore::{Code, Float, Q31Multiplier};

use crate::finish::{Codes, Finish, FixedPoint, FixedPointRounding, ResidualCodes, RowTerms, Store, Target};
use crate::view::MatMut;

impl Store<'_, '_> {
    /// Applies the stage to the sums `acc` of the rows from `first` on, which are `stride` apart.
    #[inline(always)]
    pub(crate) fn apply(&mut self, first: usize, acc: &[i32], stride: usize) {
        let Store { finish, channels, first_row, row_terms, target, origin } = self;
        let tile = FinishedTile {
            finish,
            channels: channels.clone(),
            first_row: *first_row,
            row_terms,
            origin: *origin,
            first,
            acc,
            stride,
        };
        match target {
            Target::I32(out) => tile.store(out, |e| e.sum),
            Target::F32(out) => tile.store_real(out),
            Target::F16(out) => tile.store_real(out),
            Target::Bf16(out) => tile.store_real(out),
            Target::I8(out) => tile.store_codes(out),
            Target::U8(out) => tile.store_codes(out),
        }
    }
}

/// Some rows of sums and what is to be done with them; the first fields are those of [`Store`].
struct FinishedTile<'s> {
    finish: &'s Finish<'s>,
    channels: Range<usize>,
    first_row: usize,
    row_terms: &'s RowTerms<'s>,
    origin: (usize, usize),
    first: usize,
    acc: &'s [i32],
    stride: usize,
}

/// One element on its way out.
#[derive(Clone, Copy)]
struct Element {
    /// Its sum, complete.
    sum: i32,
    /// Its channel's.
    factor: f32,
    bias: f32,
    multiplier: Q31Multiplier,
    /// Distance of the residual's code from its zero point.
    residual: i32,
}

impl FinishedTile<'_> {
    #[inline(always)]
    fn store_real<T: Float>(&self, out: &mut MatMut<'_, T>) {
        let Finish { float_bias, relu, .. } = *self.finish;
        let relu = |y: f32| if relu && y < 0.0 { 0.0 } else { y };
        if float_bias.is_some() {
            self.store(out, |e| T::narrow(relu(qcore::dequantize_acc_bias(e.sum, e.factor, e.bias))));
        } else {
            self.store(out, |e| T::narrow(relu(qcore::dequantize_acc(e.sum, e.factor))));
        }
    }

    #[inline(always)]
    fn store_codes<C: Code>(&self, out: &mut MatMut<'_, C>) {
        let Finish { codes: Codes { zero_point, low, high }, fixed_point, residual, .. } = *self.finish;
        match (fixed_point, residual) {
            (None, None) => self
                .store(out, |e| C::from_clamped(qcore::requantize(e.sum, e.factor, zero_point, low, high))),
            (None, Some(residual)) => self.store(out, |e| {
                let step = residual.multiplier;
                C::from_clamped(qcore::requantize_residual(
                    e.sum, e.factor, e.residual, step, zero_point, low, high,
                ))
            }),
            (Some(FixedPoint { rounding: FixedPointRounding::Double, .. }), _) => self.store(out, |e| {
                C::from_clamped(qcore::requantize_double_rounding(e.sum, e.multiplier, zero_point, low, high))
            }),
            (Some(FixedPoint { rounding: FixedPointRounding::Single, .. }), _) => self.store(out, |e| {
                C::from_clamped(qcore::requantize_single_rounding(e.sum, e.multiplier, zero_point, low, high))
            }),
        }
    }

    /// Stores `step` of every element. Channels go through in chunks of fixed length, so that each step becomes whole
    /// vectors, also in the last columns of a matrix.
    #[inline(always)]
    fn store<T: Copy>(&self, out: &mut MatMut<'_, T>, step: impl Fn(Element) -> T) {
        let columns = self.channels.len();
        let mut j = 0;
        while j + 16 <= columns {
            self.store_columns::<16, T>(j, out, &step);
            j += 16;
        }
        if j + 8 <= columns {
            self.store_columns::<8, T>(j, out, &step);
            j += 8;
        }
        if j + 4 <= columns {
            self.store_columns::<4, T>(j, out, &step);
            j += 4;
        }
        while j < columns {
            self.store_columns::<1, T>(j, out, &step);
            j += 1;
        }
    }

    /// Columns `j..j + L` of the tile.
    #[inline(always)]
    fn store_columns<const L: usize, T: Copy>(
        &self,
        j: usize,
        out: &mut MatMut<'_, T>,
        step: &impl Fn(Element) -> T,
    ) {
        let Self { finish, channels, row_terms, origin, .. } = self;
        let channel = channels.start + j;
        let channel_sum: [i32; L] = entries(finish.channel_sums, channel);
        let zero_point: [i32; L] = entries(finish.zero_points, channel);
        let factor: [f32; L] = entries(finish.factors, channel);
        let bias: [f32; L] = finish.float_bias.map_or([0.0; L], |bias| entries(bias, channel));
        let multipliers = finish.fixed_point.map_or(&[][..], |fixed_point| fixed_point.multipliers);
        let multiplier: [Q31Multiplier; L] = entries(multipliers, channel);
        for (i, acc) in (self.first..).zip(self.acc.chunks_exact(self.stride)) {
            let out = out.row_mut(origin.0 + i);
            let out = out.and_then(|row| row.get_mut(origin.1 + j..)?.first_chunk_mut::<L>());
            let (Some(acc), Some(out)) = (acc.get(j..).and_then(<[i32]>::first_chunk::<L>), out) else {
                continue;
            };
            let mut sum = *acc;
            if let Some(&row_sum) = row_terms.sums.get(i) {
                for j in 0..L {
                    sum[j] = sum[j].wrapping_sub(row_sum.wrapping_mul(zero_point[j]));
                }
            }
            if let Some(&row_zero) = row_terms.zero_points.get(i) {
                for j in 0..L {
                    sum[j] = sum[j].wrapping_sub(row_zero.wrapping_mul(channel_sum[j]));
                }
            }
            // Times 1 changes nothing.
            let row_factor = row_terms.factors.get(i).copied().unwrap_or(1.0);
            let residual: [i32; L] = self.residual(i, j);
            for j in 0..L {
                out[j] = step(Element {
                    sum: sum[j],
                    factor: row_factor * factor[j],
                    bias: bias[j],
                    multiplier: multiplier[j],
                    residual: residual[j],
                });
            }
        }
    }

    /// The residual's distances from its zero point beside row `i` from column `j` on; zeros where there is none.
    #[inline(always)]
    fn residual<const L: usize>(&self, i: usize, j: usize) -> [i32; L] {
        let Some(residual) = self.finish.residual else { return [0; L] };
        let (row, column) = (self.first_row + i, self.channels.start + j);
        match residual.codes {
            ResidualCodes::I8(codes) => distances(codes.row_slice(row), column, residual.zero_point),
            ResidualCodes::U8(codes) => distances(codes.row_slice(row), column, residual.zero_point),
        }
    }
}

#[inline(always)]
fn distances<C: Code, const L: usize>(row: Option<&[C]>, column: usize, zero_point: i32) -> [i32; L] {
    let codes: [C; L] = entries(row.unwrap_or_default(), column);
    codes.map(|code| code.widen().saturating_sub(zero_point))
}

/// Entries `first..first + L` of an operand; zeros where it has none because its stage does not use it.
#[inline(always)]
fn entries<T: Copy + Default, const L: usize>(values: &[T], first: usize) -> [T; L] {
    values.get(first..).and_then(|values| values.first_chunk()).copied().unwrap_or([T::default(); L])
}
