//! The sums of each channel that packing computes in passing. Zero points and the overflow bound
//! need them.

use bytemuck::try_zeroed_vec;

use crate::weights::operand::{PackError, Weight, Weights};

/// For each channel, the sum of `w - zero_point` and of its magnitude.
#[derive(Clone)]
pub(crate) struct Sums {
    pub(crate) plain: Vec<i32>,
    pub(crate) magnitudes: Vec<u32>,
}

impl Sums {
    /// The sums of n channels without weights. They come from the allocator as zeros and are not
    /// written. So channels that have nothing cost only addresses, however many there are.
    pub(crate) fn zeroed(n: usize) -> Option<Self> {
        Some(Self { plain: try_zeroed_vec(n).ok()?, magnitudes: try_zeroed_vec(n).ok()? })
    }

    /// The sums of `w` (n, k), neither of them 0.
    #[inline(always)]
    pub(crate) fn of<W: Weight>(w: &Weights<'_, W>) -> Result<Self, PackError> {
        let Weights { view, zero_points, .. } = w;
        let (n, k) = (view.rows(), view.cols());
        let no_memory = |()| PackError::OutOfMemory { n, k };
        let mut narrowed = Self::zeroed(n).ok_or(PackError::OutOfMemory { n, k })?;
        let mut plain: Vec<i64> = try_zeroed_vec(n).map_err(no_memory)?;
        let mut magnitudes: Vec<u64> = try_zeroed_vec(n).map_err(no_memory)?;
        if view.col_stride() != 1 && view.row_stride() == 1 {
            add_rows(w.transposed(), &mut plain, &mut magnitudes);
        } else {
            for (channel, (sum, magnitude)) in plain.iter_mut().zip(&mut magnitudes).enumerate() {
                let zero_point = zero_points.of(channel);
                (*sum, *magnitude) = match view.row_slice(channel) {
                    Some(row) => row_sums(row, zero_point),
                    None => view.row_elements(channel).fold((0, 0), |(sum, magnitude), w| {
                        let w = w.widen() - zero_point;
                        (sum + i64::from(w), magnitude + u64::from(w.unsigned_abs()))
                    }),
                };
            }
        }
        let overflow = |channel: usize| PackError::Overflow { channel, k, abs_sum: magnitudes[channel] };
        for (channel, (to, &sum)) in narrowed.plain.iter_mut().zip(&plain).enumerate() {
            *to = i32::try_from(sum).map_err(|_| overflow(channel))?;
        }
        for (channel, (to, &sum)) in narrowed.magnitudes.iter_mut().zip(&magnitudes).enumerate() {
            *to = u32::try_from(sum).map_err(|_| overflow(channel))?;
        }
        Ok(narrowed)
    }
}

/// The number of weights whose sums certainly fit 32 bits, and so are vector code. Each weight is
/// at most 255 from its zero point.
const SUMMABLE: usize = 1 << 16;

#[inline(always)]
fn row_sums<W: Weight>(row: &[W], zero_point: i32) -> (i64, u64) {
    row.chunks(SUMMABLE).fold((0, 0), |(sum, magnitude), chunk| {
        let (mut chunk_sum, mut chunk_magnitude) = (0i32, 0u32);
        for &w in chunk {
            let w = w.widen() - zero_point;
            chunk_sum += w;
            chunk_magnitude += w.unsigned_abs();
        }
        (sum + i64::from(chunk_sum), magnitude + u64::from(chunk_magnitude))
    })
}

/// Adds up the rows of `w` (k, n), whose zero points belong to its columns.
#[inline(always)]
fn add_rows<W: Weight>(w: Weights<'_, W>, plain: &mut [i64], magnitudes: &mut [u64]) {
    /// Channels that are summed together, in registers.
    const CHANNELS: usize = 32;
    /// Rows that are summed for all channels before the next ones are, while the TLB reaches them.
    const ROWS: usize = 256;
    let Weights { view, zero_points, .. } = w;
    for first_row in (0..view.rows()).step_by(ROWS) {
        for first in (0..view.cols()).step_by(CHANNELS) {
            let channels = first..view.cols().min(first + CHANNELS);
            let mut zeros = [0i32; CHANNELS];
            for (zero_point, channel) in zeros.iter_mut().zip(channels.clone()) {
                *zero_point = zero_points.of(channel);
            }
            let (mut sums, mut abs_sums) = ([0i32; CHANNELS], [0u32; CHANNELS]);
            let mut add = |i: usize, w: W| {
                let w = w.widen() - zeros[i];
                sums[i] += w;
                abs_sums[i] += w.unsigned_abs();
            };
            let rows = (first_row..view.rows().min(first_row + ROWS))
                .map(|p| &view.row_slice(p).unwrap_or_default()[channels.clone()]);
            if channels.len() == CHANNELS {
                // With this number of channels the compiler keeps the sums in registers.
                for row in rows.filter_map(<[W]>::first_chunk::<CHANNELS>) {
                    for (i, w) in row.iter().enumerate() {
                        add(i, *w);
                    }
                }
            } else {
                for row in rows {
                    for (i, w) in row.iter().enumerate() {
                        add(i, *w);
                    }
                }
            }
            for (i, channel) in channels.enumerate() {
                plain[channel] += i64::from(sums[i]);
                magnitudes[channel] += u64::from(abs_sums[i]);
            }
        }
    }
}
