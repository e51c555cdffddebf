//! The output stage as the driver and the kernels see it: per-channel operands and a destination, whatever the caller's
//! types, and the scalar path that every kernel can take.
//!
//! A kernel may apply the stage to its registers; the others leave their sums in L1, and [`store_tile`] applies qcore's
//! scalar functions to them, compiled for the kernel's vector level. Both give the same bits (the differential tests run
//! both), so which one runs is a matter of speed alone.

use core::ops::Range;

use qcore::Code;

use crate::view::MatMut;

/// What becomes of the sums of each channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finish<'p> {
    /// Added to the sums, wrapping: bias, zero point and shift. One for each channel, as all of these.
    pub(crate) offsets: &'p [i32],
    /// Scale or multiplier. Unused by int32 output.
    pub(crate) factors: &'p [f32],
    /// Added to the scaled sums.
    pub(crate) float_bias: Option<&'p [f32]>,
    /// Whether negative f32 results become 0.
    pub(crate) relu: bool,
    /// The code for 0, the lowest and the highest code of requantized output.
    pub(crate) codes: Codes,
}

/// The integers of a requantization.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Codes {
    pub(crate) zero_point: i32,
    pub(crate) low: i32,
    pub(crate) high: i32,
}

/// Where results go; the element type decides what is done to the sums.
#[derive(Debug)]
pub(crate) enum Target<'o> {
    /// `acc`
    I32(MatMut<'o, i32>),
    /// `f32(acc) * factor + float_bias`, ReLU
    F32(MatMut<'o, f32>),
    /// `clamp(round(f32(acc) * factor) + zero_point)`
    I8(MatMut<'o, i8>),
    /// As `I8`.
    U8(MatMut<'o, u8>),
}

impl<'o> Target<'o> {
    /// The rows before `row` and those from it on; `None` if there are fewer.
    pub(crate) fn split_at_row(self, row: usize) -> Option<(Self, Self)> {
        Some(match self {
            Target::I32(out) => both(out.split_at_row(row)?, Target::I32),
            Target::F32(out) => both(out.split_at_row(row)?, Target::F32),
            Target::I8(out) => both(out.split_at_row(row)?, Target::I8),
            Target::U8(out) => both(out.split_at_row(row)?, Target::U8),
        })
    }

    /// The columns before `column` and those from it on; `None` if there are fewer.
    pub(crate) fn split_at_col(self, column: usize) -> Option<(Self, Self)> {
        Some(match self {
            Target::I32(out) => both(out.split_at_col(column)?, Target::I32),
            Target::F32(out) => both(out.split_at_col(column)?, Target::F32),
            Target::I8(out) => both(out.split_at_col(column)?, Target::I8),
            Target::U8(out) => both(out.split_at_col(column)?, Target::U8),
        })
    }

    /// The elements of `rows` and `columns`; `None` where they reach outside.
    pub(crate) fn block(&mut self, rows: Range<usize>, columns: Range<usize>) -> Option<Target<'_>> {
        Some(match self {
            Target::I32(out) => Target::I32(out.block(rows, columns)?),
            Target::F32(out) => Target::F32(out.block(rows, columns)?),
            Target::I8(out) => Target::I8(out.block(rows, columns)?),
            Target::U8(out) => Target::U8(out.block(rows, columns)?),
        })
    }
}

fn both<T, U>((first, second): (T, T), wrap: impl Fn(T) -> U) -> (U, U) {
    (wrap(first), wrap(second))
}

/// A finished tile's way out: its channels, and just its elements of the output.
#[derive(Debug)]
pub(crate) struct Store<'t> {
    pub(crate) finish: &'t Finish<'t>,
    pub(crate) channels: Range<usize>,
    pub(crate) target: Target<'t>,
}

impl Store<'_> {
    /// Applies the stage to the sums `acc`, whose rows are `stride` apart, in scalar code.
    #[inline(always)]
    pub(crate) fn apply(self, acc: &[i32], stride: usize) {
        let Store { finish, channels, target } = self;
        let Codes { zero_point, low, high } = finish.codes;
        let code = |sum, factor| qcore::requantize(sum, factor, zero_point, low, high);
        match target {
            Target::I32(out) => store_tile(finish, &channels, acc, stride, out, |sum, _, _| sum),
            Target::F32(out) => {
                let relu = |y: f32| if finish.relu && y < 0.0 { 0.0 } else { y };
                if finish.float_bias.is_some() {
                    store_tile(finish, &channels, acc, stride, out, |sum, factor, bias| {
                        relu(qcore::dequantize_acc_bias(sum, factor, bias))
                    });
                } else {
                    store_tile(finish, &channels, acc, stride, out, |sum, factor, _| {
                        relu(qcore::dequantize_acc(sum, factor))
                    });
                }
            }
            Target::I8(out) => {
                store_tile(finish, &channels, acc, stride, out, |sum, factor, _| {
                    Code::from_clamped(code(sum, factor))
                });
            }
            Target::U8(out) => {
                store_tile(finish, &channels, acc, stride, out, |sum, factor, _| {
                    Code::from_clamped(code(sum, factor))
                });
            }
        }
    }
}

/// Stores a tile: each sum plus its channel's offset (wrapping; the bound was checked), with its factor and f32 bias,
/// goes through `step`.
///
/// Channels go through in chunks of fixed length, so that each step becomes whole vectors, also in the last columns of a
/// matrix.
#[inline(always)]
fn store_tile<T>(
    finish: &Finish<'_>,
    channels: &Range<usize>,
    acc: &[i32],
    stride: usize,
    mut out: MatMut<'_, T>,
    step: impl Fn(i32, f32, f32) -> T,
) {
    let mut j = 0;
    while j + 16 <= channels.len() {
        store_columns::<16, T>(finish, channels.start + j, acc, stride, j, &mut out, &step);
        j += 16;
    }
    if j + 8 <= channels.len() {
        store_columns::<8, T>(finish, channels.start + j, acc, stride, j, &mut out, &step);
        j += 8;
    }
    if j + 4 <= channels.len() {
        store_columns::<4, T>(finish, channels.start + j, acc, stride, j, &mut out, &step);
        j += 4;
    }
    while j < channels.len() {
        store_columns::<1, T>(finish, channels.start + j, acc, stride, j, &mut out, &step);
        j += 1;
    }
}

/// Columns `j..j + L` of the tile, which are the channels from `channel` on.
#[inline(always)]
fn store_columns<const L: usize, T>(
    finish: &Finish<'_>,
    channel: usize,
    acc: &[i32],
    stride: usize,
    j: usize,
    out: &mut MatMut<'_, T>,
    step: &impl Fn(i32, f32, f32) -> T,
) {
    let offset: [i32; L] = entries(finish.offsets, channel);
    let factor: [f32; L] = entries(finish.factors, channel);
    let bias: [f32; L] = finish.float_bias.map_or([0.0; L], |bias| entries(bias, channel));
    for (i, acc) in acc.chunks_exact(stride).enumerate() {
        let out = out.row_mut(i).and_then(|row| row.get_mut(j..)?.first_chunk_mut::<L>());
        if let (Some(acc), Some(out)) = (acc.get(j..).and_then(<[i32]>::first_chunk::<L>), out) {
            *out = core::array::from_fn(|j| step(acc[j].wrapping_add(offset[j]), factor[j], bias[j]));
        }
    }
}

/// Entries `first..first + L` of a per-channel operand; zeros where it has none because its stage does not use it.
#[inline(always)]
fn entries<T: Copy + Default, const L: usize>(values: &[T], first: usize) -> [T; L] {
    values.get(first..).and_then(|values| values.first_chunk()).copied().unwrap_or([T::default(); L])
}
