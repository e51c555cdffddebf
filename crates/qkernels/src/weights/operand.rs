//! The right operand as the caller has it: i8 or u8 weights with their zero points.

use bytemuck::Pod;
use qcore::{Code, CodeRange};

use crate::cpu::threads::Threads;
use crate::kernel::token::KernelError;
use crate::matrix::signs::{largest_byte, shift};
use crate::matrix::view::MatRef;
use crate::weights::order;
use crate::weights::order::k_orders::KOrders;
use crate::weights::order::panel::Source;

mod sealed {
    pub trait Sealed {}
    impl Sealed for i8 {}
    impl Sealed for u8 {}
}

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
    /// There is no memory for the packed weights.
    #[error("no memory for packed weights of n = {n} by k = {k}")]
    OutOfMemory {
        /// Output channels.
        n: usize,
        /// Depth.
        k: usize,
    },
    /// A code of 4-bit weights is above 15.
    #[error("the code of channel {channel} and k = {k} is {code}; codes of 4 bits are 0 to 15")]
    Nibble {
        /// The output channel.
        channel: usize,
        /// The place along k.
        k: usize,
        /// The code.
        code: u8,
    },
    /// The kernel is exact only for some weights, so none are packed for it.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A channel has so many weights that their sums leave 32 bits.
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
    /// The orders of k are those of other weights.
    #[error("orders of k are of n = {orders_n} by k = {orders_k} weights, not of n = {n} by k = {k}")]
    Orders {
        /// Output channels.
        n: usize,
        /// Depth.
        k: usize,
        /// The output channels that the orders are for.
        orders_n: usize,
        /// The depth that they are for.
        orders_k: usize,
    },
    /// The number of zero points differs from the number of channels.
    #[error("expected n = {n} zero points, got {len}")]
    ZeroPoints {
        /// Output channels.
        n: usize,
        /// Zero points given.
        len: usize,
    },
    /// A zero point is not a code of the weights' type.
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

/// Element type of weights: i8 or u8. Sealed.
///
/// Kernels multiply by i8. A u8 weight w is packed as `w - 128`, and its zero point z as `z - 128`,
/// which gives the same value.
pub trait Weight: Code + Pod + sealed::Sealed {
    /// The amount subtracted from a weight and its zero point: 0 or 128.
    #[doc(hidden)]
    const SHIFT: i32;

    /// The weight minus `SHIFT`.
    #[doc(hidden)]
    fn signed(self) -> i8;
}

impl Weight for i8 {
    const SHIFT: i32 = 0;

    #[inline(always)]
    fn signed(self) -> i8 {
        self
    }
}

impl Weight for u8 {
    const SHIFT: i32 = 128;

    #[inline(always)]
    fn signed(self) -> i8 {
        (self ^ 0x80).cast_signed()
    }
}

/// The code that stands for 0, one for each output channel or one for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroPoints<'a> {
    /// One zero point.
    PerTensor(i32),
    /// A zero point for each of the n channels.
    PerChannel(&'a [i32]),
}

impl ZeroPoints<'_> {
    /// The zero point of `channel`; 0 for a channel that has none.
    pub(crate) fn of(&self, channel: usize) -> i32 {
        match self {
            ZeroPoints::PerTensor(zero_point) => *zero_point,
            ZeroPoints::PerChannel(zero_points) => zero_points.get(channel).copied().unwrap_or(0),
        }
    }

    /// The zero points as a slice: one, or one for each channel.
    pub(crate) fn values(&self) -> &[i32] {
        match self {
            ZeroPoints::PerTensor(zero_point) => core::slice::from_ref(zero_point),
            ZeroPoints::PerChannel(zero_points) => zero_points,
        }
    }

    /// Checks that there are `n`, if there is one for each channel, and that all are codes of `W`.
    pub(crate) fn check<W: Weight>(&self, n: usize) -> Result<(), PackError> {
        let values = self.values();
        if let ZeroPoints::PerChannel(zero_points) = self
            && zero_points.len() != n
        {
            return Err(PackError::ZeroPoints { n, len: zero_points.len() });
        }
        match values.iter().position(|&zero_point| !W::RANGE.contains(zero_point)) {
            None => Ok(()),
            Some(channel) => Err(PackError::ZeroPoint {
                channel,
                zero_point: values[channel],
                min: W::RANGE.min(),
                max: W::RANGE.max(),
            }),
        }
    }
}

/// Weights to be packed, and their zero points: the real value of an element q is
/// `scale * (q - zero_point)`.
///
/// A plain [`MatRef`] converts into weights with zero point 0.
///
/// ```
/// use qkernels::{Kernel, MatRef, PackedWeights, Weights, ZeroPoints};
/// let q = [130u8, 128, 255, 0]; // (n = 2, k = 2)
/// let w = Weights::new(MatRef::new(&q, 2, 2)?, ZeroPoints::PerChannel(&[128, 100]));
/// let packed = PackedWeights::from_nk(w, Kernel::select()?)?;
/// assert_eq!(packed.channel_sums(), [2, 55]); // of q - zero_point
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a, W> {
    pub(crate) view: MatRef<'a, W>,
    pub(crate) zero_points: ZeroPoints<'a>,
    /// The largest byte of the activations that the weights will meet.
    pub(crate) largest_byte: u8,
    pub(crate) effort: PackEffort,
    orders: Option<&'a KOrders>,
    pub(crate) threads: Threads<'a>,
}

/// How long packing may look for an order of k in which a kernel multiplies the weights faster.
///
/// `avx2` sums products in 16 bits where packing proves that they cannot saturate. As weights lie,
/// large ones meet in nearly every panel. In an order of their own they need not, and products of
/// several rows are up to 1.4 times as fast. (All results are exact in any order. Other kernels
/// need no order, and search for none.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PackEffort {
    /// No search, for weights that are used once or seldom.
    Fast,
    /// 3 to 15 ns for each weight on one thread.
    #[default]
    Usual,
    /// Up to 25 times as long for windows that the usual search leaves without an order.
    Thorough,
}

impl PackEffort {
    /// The tests for each window; `None` for no search.
    pub(crate) fn tests(self) -> Option<usize> {
        match self {
            PackEffort::Fast => None,
            PackEffort::Usual => Some(order::TESTS),
            PackEffort::Thorough => Some(order::THOROUGH_TESTS),
        }
    }
}

impl<'a, W: Weight> Weights<'a, W> {
    /// The codes of `view` with these zero points, which must be codes of `W`.
    pub fn new(view: MatRef<'a, W>, zero_points: ZeroPoints<'a>) -> Self {
        Self {
            view,
            zero_points,
            largest_byte: u8::MAX,
            effort: PackEffort::Usual,
            orders: None,
            threads: Threads::Serial,
        }
    }

    /// Packs for activations whose codes all lie in `codes`, as with PyTorch's `reduce_range`. If
    /// the codes have 7 bits, `avx2` needs no further proof to multiply any weights in its faster
    /// form. Products take activations that are known not to exceed the largest of these codes
    /// ([`Activations::within`](crate::Activations::within), or floats that are quantized to them).
    /// They refuse all others, whatever the kernel. (The proof needs no lower bound.)
    ///
    /// Codes below 0 are those of i8 activations, which are compared as the u8 that they become,
    /// 128 more: -64..=63 is at most 191.
    ///
    /// ```
    /// use qcore::CodeRange;
    /// use qkernels::{Kernel, MatRef, PackedWeights, Weights};
    /// let w = Weights::from(MatRef::new(&[127i8; 64], 4, 16)?).for_activations(CodeRange::unsigned(7)?);
    /// let w = PackedWeights::from_nk(w, Kernel::select()?)?;
    /// let proofs = w.kernel().name() == "avx2_6x16";
    /// assert_eq!(w.proven_columns(), if proofs { 4 } else { 0 });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn for_activations(self, codes: CodeRange) -> Self {
        // Codes that no byte holds are refused elsewhere. Here they count as the whole range.
        let largest_byte = shift(codes).map_or(u8::MAX, |shift| largest_byte(codes, shift));
        Self { largest_byte, ..self }
    }

    /// Packs with this effort.
    ///
    /// ```
    /// use qkernels::{Kernel, MatRef, PackEffort, PackedWeights, Weights};
    /// let w: Vec<i8> = (0..16 * 128).map(|at| [3i8, -7, 100, 120][at % 4]).collect();
    /// let w = Weights::from(MatRef::new(&w, 16, 128)?);
    /// let kernel = Kernel::select()?;
    /// let usual = PackedWeights::from_nk(w, kernel)?;
    /// let fast = PackedWeights::from_nk(w.with_effort(PackEffort::Fast), kernel)?;
    /// if kernel.name() == "avx2_6x16" {
    ///     // 100 and 120 of a channel are too much for one word, 100 and 3 are not.
    ///     assert_eq!((usual.proven_columns(), fast.proven_columns()), (16, 0));
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_effort(self, effort: PackEffort) -> Self {
        Self { effort, ..self }
    }

    /// Packs with these orders of k, instead of a search. They are best found for the same
    /// activations ([`for_activations`](Self::for_activations)). An order that does not suit its
    /// weights is not used. Packing refuses those of a matrix of another shape.
    pub fn with_orders(self, orders: &'a KOrders) -> Self {
        Self { orders: Some(orders), ..self }
    }

    /// Searches for orders of k on these threads. What is found does not depend on them.
    pub fn with_threads(self, threads: Threads<'a>) -> Self {
        Self { threads, ..self }
    }

    /// Where orders of k come from, if they are wanted.
    pub(crate) fn order_source(&self) -> Result<Option<Source<'a>>, PackError> {
        let Some(orders) = self.orders else { return Ok(self.effort.tests().map(Source::Search)) };
        let ((n, k), (orders_n, orders_k)) = ((self.view.rows(), self.view.cols()), (orders.n(), orders.k()));
        if (orders_n, orders_k) == (n, k) {
            Ok(Some(Source::Given(orders)))
        } else {
            Err(PackError::Orders { n, k, orders_n, orders_k })
        }
    }

    /// The same weights with rows and columns exchanged.
    pub(crate) fn transposed(self) -> Self {
        Self { view: self.view.transposed(), ..self }
    }
}

impl<'a, W: Weight> From<MatRef<'a, W>> for Weights<'a, W> {
    fn from(view: MatRef<'a, W>) -> Self {
        Self::new(view, ZeroPoints::PerTensor(0))
    }
}
