//! Prepacked weights: panels for one kernel, with the sums that zero points and the overflow bound need.

use core::fmt;

use crate::kernel::Kernel;
use crate::pack::{PanelLayout, Panels, pack, unpack};
use crate::vectorize::Task;
use crate::view::MatRef;

/// Why weights could not be packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The packed size does not fit memory.
    #[error("packed weights of n = {n} by k = {k} exceed the address space")]
    TooLarge {
        /// Output channels.
        n: usize,
        /// Depth.
        k: usize,
    },
    /// The weights of a channel are so many that their sums leave 32 bits.
    #[error("sums over the k = {k} weights of channel {channel} leave 32 bits: sum of |w| is {abs_sum}")]
    Overflow {
        /// The output channel.
        channel: usize,
        /// Depth.
        k: usize,
        /// Its sum of |w|.
        abs_sum: u64,
    },
}

/// i8 weights packed for one kernel: immutable, `Send + Sync`, to be shared by reference or `Arc`.
///
/// ```
/// use qkernels::{Kernel, MatRef, PackedWeights};
/// let w = [1i8, -2, 3, 4, 5, -6]; // (n = 2, k = 3), as `nn.Linear` stores them
/// let packed = PackedWeights::from_nk(MatRef::new(&w, 2, 3)?, Kernel::select()?)?;
/// assert_eq!(packed.channel_sums(), [2, 3]);
/// assert_eq!(packed.unpack(), w);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct PackedWeights {
    kernel: Kernel,
    layout: PanelLayout,
    panels: Panels,
    sums: Sums,
    largest_abs_sum: u32,
}

impl PackedWeights {
    /// Packs weights stored (n, k): a row for each output channel, as PyTorch's `nn.Linear` has them. Any strides.
    ///
    /// # Errors
    /// [`PackError`] if the packed size overflows, or a channel's sums leave 32 bits.
    pub fn from_nk(w: MatRef<'_, i8>, kernel: Kernel) -> Result<Self, PackError> {
        let (n, k) = (w.rows(), w.cols());
        let layout = PanelLayout::new(kernel.desc(), n, k);
        // What one allocation may have, for the panels and for the sums of n channels.
        let limit = isize::MAX as usize - 64;
        let bytes = layout.bytes().filter(|&bytes| bytes <= limit && n <= limit / 4);
        let bytes = bytes.ok_or(PackError::TooLarge { n, k })?;
        let (panels, sums) = kernel.vectorize(Pack { layout: &layout, bytes, w: &w })?;
        let largest_abs_sum = sums.magnitudes.iter().copied().max().unwrap_or(0);
        Ok(Self { kernel, layout, panels, sums, largest_abs_sum })
    }

    /// Packs weights stored (k, n): a column for each output channel, as ONNX `MatMul` has them. Any strides.
    ///
    /// # Errors
    /// As [`from_nk`](Self::from_nk).
    pub fn from_kn(w: MatRef<'_, i8>, kernel: Kernel) -> Result<Self, PackError> {
        Self::from_nk(w.transposed(), kernel)
    }

    /// Output channels: columns of the product.
    pub fn n(&self) -> usize {
        self.layout.n
    }

    /// Depth: products summed for each output.
    pub fn k(&self) -> usize {
        self.layout.k
    }

    /// The kernel that these weights are packed for, and that every product with them runs on.
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// `sum_k w[n][k]` of each output channel.
    pub fn channel_sums(&self) -> &[i32] {
        &self.sums.plain
    }

    /// `sum_k |w[n][k]|` of each output channel.
    pub fn channel_abs_sums(&self) -> &[u32] {
        &self.sums.magnitudes
    }

    /// The largest of the channels' sums of |w|.
    pub fn largest_abs_sum(&self) -> u32 {
        self.largest_abs_sum
    }

    /// Bytes held: the panels with their padding, and the sums.
    pub fn bytes(&self) -> usize {
        self.panels.as_slice().len() + 4 * (self.sums.plain.len() + self.sums.magnitudes.len())
    }

    /// The weights as they were, (n, k) and row-major. Exact, so that nothing else need be kept.
    pub fn unpack(&self) -> Vec<i8> {
        unpack(&self.layout, &self.panels)
    }

    pub(crate) fn layout(&self) -> &PanelLayout {
        &self.layout
    }

    /// The groups `groups` of panel `p`.
    pub(crate) fn panel(&self, p: usize, groups: core::ops::Range<usize>) -> &[i8] {
        &self.panels.as_slice()[self.layout.range(p, groups)]
    }
}

impl fmt::Debug for PackedWeights {
    /// What they are, without the weights themselves.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (n, k) = (self.n(), self.k());
        f.debug_struct("PackedWeights")
            .field("kernel", &self.kernel)
            .field("n", &n)
            .field("k", &k)
            .finish_non_exhaustive()
    }
}

/// The panels and the sums of weights.
struct Pack<'t, 'w> {
    layout: &'t PanelLayout,
    bytes: usize,
    w: &'t MatRef<'w, i8>,
}

impl Task for Pack<'_, '_> {
    type Output = Result<(Panels, Sums), PackError>;

    #[inline(always)]
    fn run(self) -> Self::Output {
        let sums = Sums::of(self.w)?;
        Ok((pack(self.layout, self.bytes, self.w), sums))
    }
}

/// For each channel, the sum of its weights and of their magnitudes.
#[derive(Clone)]
struct Sums {
    plain: Vec<i32>,
    magnitudes: Vec<u32>,
}

impl Sums {
    #[inline(always)]
    fn of(w: &MatRef<'_, i8>) -> Result<Self, PackError> {
        let (n, k) = (w.rows(), w.cols());
        let (mut plain, mut magnitudes) = (vec![0i64; n], vec![0u64; n]);
        if w.col_stride() != 1 && w.row_stride() == 1 {
            add_rows(&w.transposed(), &mut plain, &mut magnitudes);
        } else {
            for (channel, (sum, magnitude)) in plain.iter_mut().zip(&mut magnitudes).enumerate() {
                (*sum, *magnitude) = match w.row_slice(channel) {
                    Some(row) => row_sums(row),
                    None => w.row_elements(channel).fold((0, 0), |(sum, magnitude), w| {
                        (sum + i64::from(w), magnitude + u64::from(w.unsigned_abs()))
                    }),
                };
            }
        }
        let overflow = |channel: usize| PackError::Overflow { channel, k, abs_sum: magnitudes[channel] };
        let narrow = |(channel, &sum): (usize, &i64)| i32::try_from(sum).map_err(|_| overflow(channel));
        let plain = plain.iter().enumerate().map(narrow).collect::<Result<_, _>>()?;
        let narrow = |(channel, &sum): (usize, &u64)| u32::try_from(sum).map_err(|_| overflow(channel));
        Ok(Sums { plain, magnitudes: magnitudes.iter().enumerate().map(narrow).collect::<Result<_, _>>()? })
    }
}

/// Weights whose sums 32 bits hold for certain, and with them vector code.
const SUMMABLE: usize = 1 << 16;

#[inline(always)]
fn row_sums(row: &[i8]) -> (i64, u64) {
    row.chunks(SUMMABLE).fold((0, 0), |(sum, magnitude), chunk| {
        let (mut chunk_sum, mut chunk_magnitude) = (0i32, 0u32);
        for &w in chunk {
            chunk_sum += i32::from(w);
            chunk_magnitude += u32::from(w.unsigned_abs());
        }
        (sum + i64::from(chunk_sum), magnitude + u64::from(chunk_magnitude))
    })
}

/// Adds up the rows of `w` (k, n), a channel for each column.
#[inline(always)]
fn add_rows(w: &MatRef<'_, i8>, plain: &mut [i64], magnitudes: &mut [u64]) {
    /// Channels that are summed together, in registers.
    const CHANNELS: usize = 64;
    /// Rows that are summed for all channels before the next ones are, while the TLB reaches them.
    const ROWS: usize = 256;
    for first_row in (0..w.rows()).step_by(ROWS) {
        for first in (0..w.cols()).step_by(CHANNELS) {
            let channels = first..w.cols().min(first + CHANNELS);
            let (mut sums, mut abs_sums) = ([0i32; CHANNELS], [0u32; CHANNELS]);
            for p in first_row..w.rows().min(first_row + ROWS) {
                let row = &w.row_slice(p).unwrap_or_default()[channels.clone()];
                for ((sum, abs_sum), &w) in sums.iter_mut().zip(&mut abs_sums).zip(row) {
                    *sum += i32::from(w);
                    *abs_sum += u32::from(w.unsigned_abs());
                }
            }
            for (i, channel) in channels.enumerate() {
                plain[channel] += i64::from(sums[i]);
                magnitudes[channel] += u64::from(abs_sums[i]);
            }
        }
    }
}
