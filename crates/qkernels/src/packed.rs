//! Prepacked weights: panels for one kernel, with the sums that zero points and the overflow bound need.

use core::fmt;
use core::ops::Range;

use qcore::{AccumulatorError, check_accumulator};

use crate::kernel::Kernel;
use crate::pack::{PanelLayout, Panels, pack, unpack};
use crate::sums::Sums;
use crate::vectorize::Task;
use crate::weights::{Weight, Weights};

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
    #[error(
        "sums over the k = {k} weights of channel {channel} leave 32 bits: sum of |w - zero point| is {abs_sum}"
    )]
    Overflow {
        /// The output channel.
        channel: usize,
        /// Depth.
        k: usize,
        /// Its sum of |w - zero point|.
        abs_sum: u64,
    },
    /// The number of zero points is not that of channels.
    #[error("expected n = {n} zero points, got {len}")]
    ZeroPoints {
        /// Output channels.
        n: usize,
        /// Zero points given.
        len: usize,
    },
    /// A zero point is no code of the weights' type.
    #[error("zero point {zero_point} of channel {channel} is not in {min}..={max}")]
    ZeroPoint {
        /// The output channel (0 for a zero point per tensor).
        channel: usize,
        /// The zero point.
        zero_point: i32,
        /// Smallest code.
        min: i32,
        /// Largest code.
        max: i32,
    },
}

/// Weights packed for one kernel: immutable, `Send + Sync`, to be shared by reference or `Arc`.
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
    /// Of the packed, signed weights; empty where all are 0.
    zero_points: Vec<i32>,
}

impl PackedWeights {
    /// Packs weights stored (n, k): a row for each output channel, as PyTorch's `nn.Linear` has them. Any strides.
    ///
    /// # Errors
    /// [`PackError`] if the packed size overflows, a channel's sums leave 32 bits, or the zero points do not fit the
    /// weights.
    pub fn from_nk<'a, W: Weight>(w: impl Into<Weights<'a, W>>, kernel: Kernel) -> Result<Self, PackError> {
        let w = w.into();
        let (n, k) = (w.view.rows(), w.view.cols());
        w.zero_points.check::<W>(n)?;
        let layout = PanelLayout::new(kernel.desc(), n, k);
        // What one allocation may have, for the panels and for the sums of n channels.
        let limit = isize::MAX as usize - 64;
        let bytes = layout.bytes().filter(|&bytes| bytes <= limit && n <= limit / 4);
        let bytes = bytes.ok_or(PackError::TooLarge { n, k })?;
        let (panels, sums) = kernel.vectorize(Pack { layout: &layout, bytes, w: &w })?;
        let largest_abs_sum = sums.magnitudes.iter().copied().max().unwrap_or(0);
        let zero_points: Vec<_> = (0..n).map(|channel| w.zero_points.of(channel) - W::SHIFT).collect();
        let zero_points = if zero_points.iter().all(|&z| z == 0) { Vec::new() } else { zero_points };
        Ok(Self { kernel, layout, panels, sums, largest_abs_sum, zero_points })
    }

    /// Packs weights stored (k, n): a column for each output channel, as ONNX `MatMul` has them. Any strides.
    ///
    /// # Errors
    /// As [`from_nk`](Self::from_nk).
    pub fn from_kn<'a, W: Weight>(w: impl Into<Weights<'a, W>>, kernel: Kernel) -> Result<Self, PackError> {
        Self::from_nk(w.into().transposed(), kernel)
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

    /// `sum_k (w[n][k] - zero_point[n])` of each output channel.
    pub fn channel_sums(&self) -> &[i32] {
        &self.sums.plain
    }

    /// `sum_k |w[n][k] - zero_point[n]|` of each output channel.
    pub fn channel_abs_sums(&self) -> &[u32] {
        &self.sums.magnitudes
    }

    /// The largest of [`channel_abs_sums`](Self::channel_abs_sums).
    pub fn largest_abs_sum(&self) -> u32 {
        self.largest_abs_sum
    }

    /// Whether the sums of every channel fit int32, by qcore's bound: `largest_input` is the largest distance of an activation
    /// from its zero point, `bias` what is added to each channel's sums.
    ///
    /// ```
    /// use qkernels::{Kernel, MatRef, PackedWeights};
    /// let w = PackedWeights::from_nk(MatRef::new(&[100i8, -100], 2, 1)?, Kernel::select()?)?;
    /// assert!(w.check_accumulators(255, None).is_ok());
    /// assert_eq!(w.check_accumulators(255, Some(&[0, i32::MAX])).unwrap_err().channel, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`AccumulatorError`] with the first channel whose sums might not fit.
    pub fn check_accumulators(
        &self,
        largest_input: u32,
        bias: Option<&[i32]>,
    ) -> Result<(), AccumulatorError> {
        self.check_columns(0..self.n(), largest_input, bias)
    }

    /// [`check_accumulators`](Self::check_accumulators) of some channels.
    pub(crate) fn check_columns(
        &self,
        columns: Range<usize>,
        largest_input: u32,
        bias: Option<&[i32]>,
    ) -> Result<(), AccumulatorError> {
        // One test for all channels nearly always suffices; only its failure asks which channel it is. The bits that any bias has
        // bound them all, and are found faster than the largest.
        let bias = bias.unwrap_or_default();
        let bits = bias.iter().fold(0, |bits, bias| bits | bias.unsigned_abs());
        let suffices =
            |bias| check_accumulator(0, largest_input, u64::from(self.largest_abs_sum), bias).is_ok();
        if i32::try_from(bits).is_ok_and(suffices) {
            return Ok(());
        }
        for channel in columns {
            let abs_sum = u64::from(self.sums.magnitudes[channel]);
            check_accumulator(channel, largest_input, abs_sum, bias.get(channel).copied().unwrap_or(0))?;
        }
        Ok(())
    }

    /// All columns, cut into at most `parts` ranges of about the same size, none of them empty, that
    /// [`gemm_columns`](crate::gemm_columns) can compute on their own.
    pub fn column_ranges(&self, parts: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let (n, nr, panels) = (self.n(), self.kernel.desc().nr, self.layout.panels());
        let parts = parts.min(panels);
        let column = move |part: usize| n.min(part * panels / parts * nr);
        (0..parts).map(move |part| column(part)..column(part + 1))
    }

    /// Bytes held: the panels with their padding, the sums and the zero points.
    pub fn bytes(&self) -> usize {
        let entries = self.sums.plain.len() + self.sums.magnitudes.len() + self.zero_points.len();
        self.panels.as_slice().len() + 4 * entries
    }

    /// The zero point of each output channel in the signed form that kernels multiply, 128 less than given for u8 weights;
    /// empty where all are 0.
    pub fn zero_points(&self) -> &[i32] {
        &self.zero_points
    }

    /// The weights (n, k), row-major, in signed form: i8 weights as they were, u8 weights less 128. Exact, so that nothing
    /// else need be kept.
    pub fn unpack(&self) -> Vec<i8> {
        unpack(&self.layout, &self.panels)
    }

    pub(crate) fn layout(&self) -> &PanelLayout {
        &self.layout
    }

    /// The groups `groups` of panel `p`.
    pub(crate) fn panel(&self, p: usize, groups: Range<usize>) -> &[i8] {
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
struct Pack<'t, 'w, W> {
    layout: &'t PanelLayout,
    bytes: usize,
    w: &'t Weights<'w, W>,
}

impl<W: Weight> Task for Pack<'_, '_, W> {
    type Output = Result<(Panels, Sums), PackError>;

    #[inline(always)]
    fn run(self) -> Self::Output {
        let sums = Sums::of(self.w)?;
        Ok((pack(self.layout, self.bytes, &self.w.view), sums))
    }
}
