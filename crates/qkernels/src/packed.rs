//! Prepacked weights: panels for one kernel, with the sums that zero points and the overflow bound need.

use core::fmt;

use crate::kernel::Kernel;
use crate::pack::{PanelLayout, Panels, pack, unpack};
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
    channel_sums: Vec<i32>,
    channel_abs_sums: Vec<u32>,
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
        let (channel_sums, channel_abs_sums) = sums(&w)?;
        Ok(Self {
            kernel,
            layout,
            panels: pack(&layout, bytes, &w),
            largest_abs_sum: channel_abs_sums.iter().copied().max().unwrap_or(0),
            channel_sums,
            channel_abs_sums,
        })
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
        &self.channel_sums
    }

    /// `sum_k |w[n][k]|` of each output channel.
    pub fn channel_abs_sums(&self) -> &[u32] {
        &self.channel_abs_sums
    }

    /// The largest of the channels' sums of |w|.
    pub fn largest_abs_sum(&self) -> u32 {
        self.largest_abs_sum
    }

    /// Bytes held: the panels with their padding, and the sums.
    pub fn bytes(&self) -> usize {
        self.panels.as_slice().len() + 4 * (self.channel_sums.len() + self.channel_abs_sums.len())
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

/// For each channel, the sum of its weights and of their magnitudes.
fn sums(w: &MatRef<'_, i8>) -> Result<(Vec<i32>, Vec<u32>), PackError> {
    let k = w.cols();
    let mut sums = Vec::with_capacity(w.rows());
    let mut abs_sums = Vec::with_capacity(w.rows());
    for channel in 0..w.rows() {
        let (mut sum, mut abs_sum) = (0i64, 0u64);
        for weight in w.row_elements(channel) {
            sum += i64::from(weight);
            abs_sum += u64::from(weight.unsigned_abs());
        }
        let overflow = PackError::Overflow { channel, k, abs_sum };
        sums.push(i32::try_from(sum).map_err(|_| overflow)?);
        abs_sums.push(u32::try_from(abs_sum).map_err(|_| overflow)?);
    }
    Ok((sums, abs_sums))
}
