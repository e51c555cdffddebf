//! 4-bit weights, two to a byte, in the order in which kernels read them.
//!
//! A panel has 16 columns on every kernel. Its steps are 8 consecutive k: a cache line, in which
//! byte `4 * column + t` has the code of k = t in its low half and that of k = 4 + t in its high
//! half. So the low halves of a line are four k of each column, as the dot products of all
//! instruction sets want them, and so are the high ones. k is padded to whole steps, n to whole
//! panels, both with codes 0.

use core::fmt;

use crate::cpu::vectorize::Task;
use crate::kernel::nibble_tile::{LARGEST_NIBBLE, NIBBLE_COLUMNS, NIBBLE_STEP, NibbleLine};
use crate::kernel::token::Kernel;
use crate::matrix::view::MatRef;
use crate::weights::operand::PackError;
use crate::weights::pack::Panels;

/// Weights of 4 bits, 0 to 15, packed for a kernel: two to a byte. They are immutable and
/// `Send + Sync`. With scales they become [`ScaledWeights`](crate::ScaledWeights).
///
/// ```
/// use qkernels::{Kernel, MatRef, PackedNibbles};
/// let w = [1u8, 15, 3, 4, 0, 6]; // (n = 2, k = 3)
/// let packed = PackedNibbles::from_nk(MatRef::new(&w, 2, 3)?, Kernel::select()?)?;
/// assert_eq!(packed.unpack(), w);
/// assert!(PackedNibbles::from_nk(MatRef::new(&[16u8], 1, 1)?, Kernel::select()?).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct PackedNibbles {
    kernel: Kernel,
    n: usize,
    k: usize,
    panels: Panels,
}

impl PackedNibbles {
    /// Packs codes stored (n, k): a row for each output channel. Any strides are allowed. Signed
    /// codes of -8 to 7 are these less a zero point of 8.
    ///
    /// # Errors
    /// [`PackError`] if a code is above 15, if the packed size overflows or there is no memory for
    /// it, or if `kernel` is for proven panels alone.
    pub fn from_nk(codes: MatRef<'_, u8>, kernel: Kernel) -> Result<Self, PackError> {
        kernel.check_any_weights()?;
        let (n, k) = (codes.rows(), codes.cols());
        // Without channels, or without depth, the other dimension may be anything.
        let lines =
            if n == 0 { Some(0) } else { n.div_ceil(NIBBLE_COLUMNS).checked_mul(k.div_ceil(NIBBLE_STEP)) };
        let bytes = lines.and_then(|lines| lines.checked_mul(size_of::<NibbleLine>()));
        let bytes = bytes.filter(|&bytes| bytes <= isize::MAX as usize - 64);
        let bytes = bytes.ok_or(PackError::TooLarge { n, k })?;
        let panels = Panels::zeroed(bytes, 0).ok_or(PackError::OutOfMemory { n, k })?;
        let mut packed = Self { kernel, n, k, panels };
        if n > 0 && k > 0 {
            packed.fill(codes)?;
        }
        Ok(packed)
    }

    /// Packs codes stored (k, n): a column for each output channel.
    ///
    /// # Errors
    /// As [`from_nk`](Self::from_nk).
    pub fn from_kn(codes: MatRef<'_, u8>, kernel: Kernel) -> Result<Self, PackError> {
        Self::from_nk(codes.transposed(), kernel)
    }

    fn fill(&mut self, codes: MatRef<'_, u8>) -> Result<(), PackError> {
        let steps = self.steps();
        let lines: &mut [NibbleLine] =
            bytemuck::must_cast_slice_mut::<i8, u8>(self.panels.as_mut_slice()).as_chunks_mut().0;
        for channel in 0..codes.rows() {
            let panel = &mut lines[channel / NIBBLE_COLUMNS * steps..][..steps];
            let column = channel % NIBBLE_COLUMNS;
            for (k, code) in codes.row_elements(channel).enumerate() {
                if code > LARGEST_NIBBLE {
                    return Err(PackError::Nibble { channel, k, code });
                }
                let (at, shift) = place(column, k % NIBBLE_STEP);
                panel[k / NIBBLE_STEP][at] |= code << shift;
            }
        }
        Ok(())
    }

    /// Output channels: columns of the product.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Depth: products summed for each output.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The kernel that these weights are packed for.
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// Bytes held, with their padding.
    pub fn bytes(&self) -> usize {
        self.panels.as_slice().len()
    }

    /// The codes (n, k), row-major.
    pub fn unpack(&self) -> Vec<u8> {
        let channels = if self.k == 0 { 0 } else { self.n };
        (0..channels).flat_map(|channel| (0..self.k).map(move |k| self.code(channel, k))).collect()
    }

    /// Steps of a panel.
    pub(crate) fn steps(&self) -> usize {
        self.k.div_ceil(NIBBLE_STEP)
    }

    /// A code.
    pub(crate) fn code(&self, channel: usize, k: usize) -> u8 {
        let line = &self.panel(channel / NIBBLE_COLUMNS)[k / NIBBLE_STEP];
        let (at, shift) = place(channel % NIBBLE_COLUMNS, k % NIBBLE_STEP);
        line[at] >> shift & LARGEST_NIBBLE
    }

    /// The steps of panel `p`.
    pub(crate) fn panel(&self, p: usize) -> &[NibbleLine] {
        let lines = bytemuck::must_cast_slice::<i8, u8>(self.panels.as_slice()).as_chunks().0;
        &lines[p * self.steps()..][..self.steps()]
    }

    /// Writes the codes of panel `p`, less `zero_point`, as a panel of bytes, with groups of four
    /// consecutive k.
    pub(crate) fn expand(&self, p: usize, zero_point: i8, to: &mut Vec<i8>) {
        let lines = self.panel(p);
        to.resize(2 * size_of_val(lines), 0);
        self.kernel.vectorize(Expand { lines, zero_point, to });
    }
}

/// k of a group of an expanded panel.
pub(crate) const QUAD: usize = NIBBLE_STEP / 2;

struct Expand<'t> {
    lines: &'t [NibbleLine],
    zero_point: i8,
    to: &'t mut [i8],
}

impl Task for Expand<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let halves = self.to.as_chunks_mut::<{ size_of::<NibbleLine>() }>().0.as_chunks_mut::<2>().0;
        for (line, [low, high]) in self.lines.iter().zip(halves) {
            for (at, pair) in line.iter().enumerate() {
                low[at] = (pair & LARGEST_NIBBLE).cast_signed() - self.zero_point;
                high[at] = (pair >> 4).cast_signed() - self.zero_point;
            }
        }
    }
}

/// The byte of a line, and the shift in it, of a column's code for one k of the step.
fn place(column: usize, k: usize) -> (usize, usize) {
    (4 * column + k % 4, k / 4 * 4)
}

impl fmt::Debug for PackedNibbles {
    /// Describes the weights, without the weights themselves.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, n, k, .. } = self;
        f.debug_struct("PackedNibbles")
            .field("kernel", kernel)
            .field("n", n)
            .field("k", k)
            .finish_non_exhaustive()
    }
}
