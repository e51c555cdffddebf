//! Orders of k that packing need not search for: found before, and kept, as in files.

use crate::kernel::panel_order::{ORDERED_COLUMNS, WINDOW};

/// Why bytes are no orders of k.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KOrdersError {
    /// The number of bytes is not that of such weights.
    #[error("orders of k of n = {n} by k = {k} weights have {expected} bytes, got {got}")]
    Length {
        /// Output channels.
        n: usize,
        /// Depth.
        k: usize,
        /// The bytes of their orders.
        expected: u128,
        /// The bytes given.
        got: usize,
    },
    /// A window has a k twice.
    #[error("the order of window {window} of channels {channel}.. has k = {k} of the window twice")]
    Twice {
        /// The first channel of the panel.
        channel: usize,
        /// The window of the panel.
        window: usize,
        /// The k, counted from the window's first.
        k: usize,
    },
}

/// For each window of 16 consecutive k of each panel of 16 channels, an order in which `avx2`
/// multiplies its weights faster ([`PackEffort`](crate::PackEffort) says how).
///
/// To search for them takes longer than all else that packing does. A file that has them beside the
/// weights is packed at once ([`Weights::with_orders`](crate::Weights::with_orders)). They do not
/// depend on the CPU: any machine finds them, and finds the same. Nothing relies on them: packing
/// proves what it makes of them, and all results are exact whatever they are.
///
/// As [`bytes`](Self::as_bytes), panel after panel, each has ten for a window (0.04 for a weight):
///
/// - the k of the 16 places, counted from the window's first, the first of two in the low half of a
///   byte;
/// - 16 bits, little-endian: bit i says whether the window's k i is flipped, which is to multiply
///   255 less the activation by the negative of the weight.
///
/// The last panel and the last windows are as long as others.
///
/// ```
/// use qkernels::{KOrders, Kernel, MatRef, PackEffort, PackedWeights, Weights};
/// let w: Vec<i8> = (0..16 * 128).map(|at| [3i8, -7, 100, 120][at % 4]).collect();
/// let w = Weights::from(MatRef::new(&w, 16, 128)?);
/// let kernel = Kernel::select()?;
/// let orders = KOrders::find(w.with_effort(PackEffort::Thorough), kernel)?;
/// let read = KOrders::from_bytes(16, 128, orders.as_bytes())?; // of a file
/// let packed = PackedWeights::from_nk(w.with_orders(&read), kernel)?;
/// assert_eq!(packed.unpack(), PackedWeights::from_nk(w, kernel)?.unpack());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KOrders {
    n: usize,
    k: usize,
    bytes: Vec<u8>,
}

/// Bytes of a window.
pub(super) const BYTES: usize = WINDOW / 2 + 2;

impl KOrders {
    /// Room for the orders of weights (n, k), which are none yet; `None` if there is no memory.
    pub(super) fn zeroed(n: usize, k: usize) -> Option<Self> {
        let len = usize::try_from(len(n, k)).ok()?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).ok()?;
        bytes.resize(len, 0);
        Some(Self { n, k, bytes })
    }

    /// The windows of all panels.
    pub(super) fn windows_mut(&mut self) -> &mut [[u8; BYTES]] {
        self.bytes.as_chunks_mut().0
    }

    /// The orders of weights (n, k) that [`as_bytes`](Self::as_bytes) gave. The bytes are not
    /// trusted.
    ///
    /// # Errors
    /// [`KOrdersError`] if there are not as many as such weights have, or a window is in no order.
    pub fn from_bytes(n: usize, k: usize, bytes: impl Into<Vec<u8>>) -> Result<Self, KOrdersError> {
        let (bytes, expected) = (bytes.into(), len(n, k));
        if bytes.len() as u128 != expected {
            return Err(KOrdersError::Length { n, k, expected, got: bytes.len() });
        }
        for (at, window) in bytes.as_chunks().0.iter().enumerate() {
            let (ks, _) = parts(window);
            let twice = (0..WINDOW).find(|&at| ks[..at].contains(&ks[at]));
            if let Some(twice) = twice {
                let windows = k.div_ceil(WINDOW);
                let (channel, window) = (at / windows * ORDERED_COLUMNS, at % windows);
                return Err(KOrdersError::Twice { channel, window, k: ks[twice].into() });
            }
        }
        Ok(Self { n, k, bytes })
    }

    /// Output channels of the weights.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Depth of the weights.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The orders as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The k of each place of a panel's window, and which are flipped.
    #[inline(always)]
    pub(super) fn window(&self, panel: usize, window: usize) -> Option<([u8; WINDOW], u16)> {
        let windows = self.k.div_ceil(WINDOW);
        self.bytes.as_chunks().0.get(panel * windows + window).map(parts)
    }
}

/// The bytes of the orders of weights (n, k).
fn len(n: usize, k: usize) -> u128 {
    n.div_ceil(ORDERED_COLUMNS) as u128 * k.div_ceil(WINDOW) as u128 * BYTES as u128
}

/// The k of each place of a window, and which are flipped.
#[inline(always)]
fn parts(window: &[u8; BYTES]) -> ([u8; WINDOW], u16) {
    let mut ks = [0; WINDOW];
    for (ks, byte) in ks.as_chunks_mut().0.iter_mut().zip(window) {
        *ks = [byte & 15, byte >> 4];
    }
    (ks, u16::from_le_bytes([window[WINDOW / 2], window[WINDOW / 2 + 1]]))
}
