//! Prepacked weights: panels for one kernel, with the sums that zero points and the overflow bound
//! need.

use core::fmt;
use core::ops::Range;

use qcore::{AccumulatorError, check_accumulator};

use crate::cpu::vectorize::Task;
use crate::kernel::desc::PanelKind;
use crate::kernel::panel_order::Orders;
use crate::kernel::token::Kernel;
use crate::output::channels::Bits;
use crate::weights::operand::{PackError, Weight, Weights};
use crate::weights::order;
use crate::weights::order::counts::WindowCounts;
use crate::weights::order::panel::restore;
use crate::weights::pack::{PanelLayout, Panels, pack, unpack};
use crate::weights::panel_kernels::PanelKernels;
use crate::weights::regroup::pairs_of_quads;
use crate::weights::sums::Sums;

/// Weights packed for one kernel. They are immutable and `Send + Sync`, to be shared by reference
/// or `Arc`.
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
    /// The kernel that each panel is packed for and runs on.
    panel_kernels: PanelKernels,
    layout: PanelLayout,
    panels: Panels,
    sums: Sums,
    largest_abs_sum: u32,
    /// The largest byte of activations that the proofs assume.
    largest_byte: u8,
    /// Zero points of the packed, signed weights; empty if all are 0.
    zero_points: Vec<i32>,
}

impl PackedWeights {
    /// Packs weights stored (n, k): a row for each output channel, as PyTorch's `nn.Linear` has
    /// them. Any strides are allowed. n and k may be 0: a product without depth is the output stage
    /// applied to sums of 0, and one without channels writes nothing.
    ///
    /// # Errors
    /// [`PackError`] if the packed size overflows or there is no memory for it, if a channel's sums
    /// leave 32 bits, if the zero points or orders of k do not fit the weights, or if `kernel` is
    /// one of those that [`column_kernels`](Self::column_kernels) gives for proven panels.
    pub fn from_nk<'a, W: Weight>(w: impl Into<Weights<'a, W>>, kernel: Kernel) -> Result<Self, PackError> {
        kernel.check_any_weights()?;
        let w = w.into();
        let (n, k) = (w.view.rows(), w.view.cols());
        w.zero_points.check::<W>(n)?;
        let layout = PanelLayout::new(kernel.desc(), n, k);
        // The most bytes of one allocation. It limits the panels and the sums of n channels.
        let limit = isize::MAX as usize - 64;
        let bytes = layout.bytes().filter(|&bytes| bytes <= limit && n <= limit / 4);
        let bytes = bytes.ok_or(PackError::TooLarge { n, k })?;
        let orders = w.order_source()?;
        let windows = PanelKernels::windows(kernel, &layout, orders).ok_or(PackError::TooLarge { n, k })?;
        // Weights that a stride of 0 repeats need memory here that the caller's do not, so the
        // memory is requested before any weight is read.
        let no_memory = PackError::OutOfMemory { n, k };
        let mut packed = Self {
            kernel,
            panel_kernels: PanelKernels::default(),
            layout,
            panels: Panels::zeroed(bytes, windows).ok_or(no_memory)?,
            sums: Sums { plain: Vec::new(), magnitudes: Vec::new() },
            largest_abs_sum: 0,
            largest_byte: w.largest_byte,
            zero_points: Vec::new(),
        };
        if n == 0 || k == 0 {
            // The other dimension may then be anything, and the loops below would run through all
            // of it.
            packed.sums = Sums::zeroed(n).ok_or(no_memory)?;
            return Ok(packed);
        }
        packed.sums = kernel.vectorize(Pack { layout: &layout, w: &w, panels: &mut packed.panels })?;
        let panels = &mut packed.panels;
        packed.panel_kernels = PanelKernels::find(kernel, &layout, panels, w.largest_byte, orders, w.threads)
            .map_err(|_| no_memory)?;
        packed.largest_abs_sum = packed.sums.magnitudes.iter().copied().max().unwrap_or(0);
        if w.zero_points.values().iter().any(|&zero_point| zero_point != W::SHIFT) {
            packed.zero_points.try_reserve_exact(n).map_err(|_| no_memory)?;
            packed.zero_points.extend((0..n).map(|channel| w.zero_points.of(channel) - W::SHIFT));
        }
        Ok(packed)
    }

    /// Packs weights stored (k, n): a column for each output channel, as ONNX `MatMul` has them.
    /// Any strides are allowed.
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

    /// The kernel that these weights are packed for. Every product with them runs on it, except for
    /// the columns that [`column_kernels`](Self::column_kernels) gives to a faster form of it.
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// The columns in order, with the kernel that they run on. A kernel may have forms that sum
    /// products in 16 bits. Such a form runs a panel if packing proves that no activations can make
    /// these sums saturate with the panel's weights. (All results are exact on any kernel; this is
    /// what the proof is for.)
    ///
    /// ```
    /// use qkernels::{Kernel, MatRef, PackedWeights};
    /// let (n, k) = (512, 64);
    /// let w: Vec<i8> = (0..n * k).map(|at| if at < n * k / 2 { (at % 128) as i8 } else { (at % 15) as i8 - 7 }).collect();
    /// let w = PackedWeights::from_nk(MatRef::new(&w, n, k)?, Kernel::select()?)?;
    /// for (columns, kernel) in w.column_kernels() {
    ///     println!("{columns:?} on {kernel}"); // with `avx2`: 0..256 on avx2_6x16, 256..512 on avx2_maddubs4_6x16
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn column_kernels(&self) -> impl Iterator<Item = (Range<usize>, Kernel)> {
        let all = (self.panel_kernels.all().is_empty() && self.n() > 0).then_some((0..self.n(), self.kernel));
        all.into_iter().chain(self.panel_runs())
    }

    /// As [`column_kernels`](Self::column_kernels), but empty if all panels run on `kernel`.
    fn panel_runs(&self) -> impl Iterator<Item = (Range<usize>, Kernel)> {
        let (n, nr) = (self.n(), self.kernel.desc().nr);
        let runs = self.panel_kernels.all().chunk_by(|a, b| a == b);
        runs.scan(0, move |first, run| {
            let columns = *first..n.min(*first + run.len() * nr);
            *first = columns.end;
            Some((columns, run[0]))
        })
    }

    /// The columns that run on another kernel than `kernel`, with that kernel.
    pub(crate) fn proven_runs(&self) -> impl Iterator<Item = (Range<usize>, Kernel)> {
        self.panel_runs().filter(|(_, kernel)| kernel.desc().narrow_groups > 0)
    }

    /// How many of the n columns are proven and run on a faster form of the kernel. 0 for kernels
    /// that have no such form.
    ///
    /// ```
    /// use qkernels::{Kernel, MatRef, PackedWeights};
    /// let small = PackedWeights::from_nk(MatRef::new(&[7i8; 64], 4, 16)?, Kernel::select()?)?;
    /// let large = PackedWeights::from_nk(MatRef::new(&[-128i8; 64], 4, 16)?, Kernel::select()?)?;
    /// let proofs = small.kernel().name() == "avx2_6x16";
    /// assert_eq!((small.proven_columns(), large.proven_columns()), (if proofs { 4 } else { 0 }, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn proven_columns(&self) -> usize {
        self.proven_runs().map(|(columns, _)| columns.len()).sum()
    }

    /// How the windows of those panels that have an order and any of `columns` are summed. (A panel
    /// has an order if [`column_kernels`](Self::column_kernels) gives it to the kernel's
    /// [`ordered`](crate::KernelDesc::ordered) form.) Columns from n on are in no panel. A panel
    /// that is in two ranges counts in both; those of `column_kernels` and
    /// [`column_ranges`](Self::column_ranges) are whole panels.
    ///
    /// ```
    /// use qkernels::{Kernel, MatRef, PackedWeights};
    /// let w: Vec<i8> = (0..32 * 128).map(|at| [3i8, -7, 100, 120][at % 4]).collect();
    /// let w = PackedWeights::from_nk(MatRef::new(&w, 32, 128)?, Kernel::select()?)?;
    /// for (columns, kernel) in w.column_kernels() {
    ///     let windows = w.window_counts(columns.clone());
    ///     println!("{columns:?} on {kernel}, windows: {windows}"); // with `avx2`: 16 of fours
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn window_counts(&self, columns: Range<usize>) -> WindowCounts {
        let (nr, end) = (self.kernel.desc().nr, columns.end.min(self.n()));
        if columns.start >= end {
            return WindowCounts::default();
        }
        let orders = self.panel_kernels.panel_orders().get(columns.start / nr..end.div_ceil(nr));
        orders.unwrap_or_default().iter().map(WindowCounts::of).sum()
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

    /// Checks by qcore's bound that the sums of every channel fit int32. `largest_input` is the
    /// largest distance of an activation from its zero point, and `bias` is added to each channel's
    /// sums.
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
        // One test for all channels nearly always suffices. Only if it fails is the channel looked
        // for.
        let bits = bias.map_or(0, |bias| self.kernel.vectorize(Bits(bias)));
        let bias = bias.unwrap_or_default();
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

    /// All columns, cut into at most `parts` ranges of about the same size. None of them is empty,
    /// and [`gemm_columns`](crate::gemm_columns) can compute each on its own.
    pub fn column_ranges(&self, parts: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let (n, nr, panels) = (self.n(), self.kernel.desc().nr, self.layout.panels());
        let parts = parts.min(panels);
        // This is in 128 bits: without depth there may be so many channels that their square
        // overflows.
        let panel = move |part: usize| (part as u128 * panels as u128 / parts as u128) as usize;
        let column = move |part: usize| n.min(panel(part) * nr);
        (0..parts).map(move |part| column(part)..column(part + 1))
    }

    /// Bytes held: the panels with their padding and their kernels, the sums and the zero points.
    pub fn bytes(&self) -> usize {
        let entries = self.sums.plain.len() + self.sums.magnitudes.len() + self.zero_points.len();
        self.layout.bytes().unwrap_or_default()
            + self.panel_kernels.bytes()
            + if self.panel_kernels.panel_orders().is_empty() {
                0
            } else {
                size_of_val(self.panels.windows())
            }
            + 4 * entries
    }

    /// The zero point of each output channel in the signed form that kernels multiply, which is 128
    /// less than given for u8 weights. Empty if all are 0, and if k is.
    pub fn zero_points(&self) -> &[i32] {
        &self.zero_points
    }

    /// The weights (n, k), row-major, in signed form: i8 weights as they were, and 128 less for u8
    /// weights. They are exact, so nothing else need be kept.
    pub fn unpack(&self) -> Vec<i8> {
        if !self.panel_kernels.panel_orders().is_empty() {
            return self.clone().without_proofs().unpack();
        }
        unpack(&self.layout, &self.panels, |p| self.panel_kernel(p).desc().kr)
    }

    /// The same weights with all panels packed for [`kernel`](Self::kernel) itself.
    pub(crate) fn without_proofs(mut self) -> Self {
        let (layout, (panels, windows)) = (&self.layout, self.panels.with_windows_mut());
        let orders = self.panel_kernels.orders(windows);
        for (p, kernel) in self.panel_kernels.all().iter().enumerate() {
            let (panel, columns) = (&mut panels[layout.panel(p)], layout.columns(p));
            match kernel.desc().kind {
                PanelKind::Any => {}
                PanelKind::Proven => pairs_of_quads(panel, columns),
                PanelKind::Ordered => {
                    if let Some((order, windows)) = orders.of(p, layout.windows()) {
                        restore(panel, columns, order, windows);
                    }
                }
            }
        }
        self.panel_kernels = PanelKernels::default();
        self
    }

    /// The largest byte (an activation in u8 form) that these weights may be multiplied by.
    pub(crate) fn largest_byte(&self) -> u8 {
        self.largest_byte
    }

    pub(crate) fn layout(&self) -> &PanelLayout {
        &self.layout
    }

    /// The kernel that panel `p` is packed for.
    pub(crate) fn panel_kernel(&self, p: usize) -> Kernel {
        self.panel_kernels.get(p).unwrap_or(self.kernel)
    }

    /// The kernel of the first of `columns`, which begins a panel, and the end of the columns that
    /// run on it.
    pub(crate) fn kernel_of(&self, columns: Range<usize>) -> (usize, Kernel) {
        let kernels = self.panel_kernels.all();
        if kernels.is_empty() {
            return (columns.end, self.kernel);
        }
        let nr = self.kernel.desc().nr;
        let first = columns.start / nr;
        let end = self.end_of_kernel(first, kernels.len());
        (columns.end.min(end * nr), kernels[first])
    }

    /// A weight in signed form.
    pub(crate) fn weight(&self, channel: usize, k: usize) -> i8 {
        let (p, column) = (channel / self.kernel.desc().nr, channel % self.kernel.desc().nr);
        let kernel = self.panel_kernel(p).desc();
        if let (PanelKind::Ordered, Some(order)) = (kernel.kind, self.orders().of(p, self.layout.windows())) {
            let panel = &self.panels.as_slice()[self.layout.panel(p)];
            return order::panel::weight(panel, self.layout.columns(p), order, column, k);
        }
        let kr = kernel.kr;
        self.panels.as_slice()[self.layout.place(channel, k, kr)]
    }

    /// A kernel that runs any of `panels`, for each [`PanelKind`](crate::kernel::desc::PanelKind).
    pub(crate) fn kinds(&self, panels: Range<usize>) -> [Option<Kernel>; 3] {
        let Some(kernels) = self.panel_kernels.of(panels) else { return [Some(self.kernel), None, None] };
        let mut kinds = [None; 3];
        for kernel in kernels {
            kinds[kernel.desc().kind as usize] = Some(*kernel);
        }
        kinds
    }

    /// The end of the panels from `first` on, before `end`, that have its kernel and its columns.
    pub(crate) fn end_of_run(&self, first: usize, end: usize) -> usize {
        let columns = self.layout.columns(first);
        // Only the last panel may be narrower than the others.
        let end = if self.layout.columns(end - 1) == columns { end } else { end - 1 };
        self.end_of_kernel(first, end)
    }

    /// The end of the panels from `first` on, before `end`, that have its kernel.
    fn end_of_kernel(&self, first: usize, end: usize) -> usize {
        let Some(kernels) = self.panel_kernels.of(first..end) else { return end };
        first + kernels.iter().take_while(|kernel| **kernel == kernels[0]).count()
    }

    /// The orders of all panels.
    #[inline(always)]
    pub(crate) fn orders(&self) -> Orders<'_> {
        self.panel_kernels.orders(self.panels.windows())
    }

    /// The panels from panel `p` on, beginning at its `k`.
    pub(crate) fn panels_from(&self, p: usize, k: usize) -> &[i8] {
        &self.panels.as_slice()[self.layout.range(p, k..k).start..]
    }

    /// The bytes of panel `p` that hold `k`, whole groups of its kernel.
    pub(crate) fn panel(&self, p: usize, k: Range<usize>) -> &[i8] {
        &self.panels.as_slice()[self.layout.range(p, k)]
    }
}

impl fmt::Debug for PackedWeights {
    /// Describes the weights, without the weights themselves.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (n, k) = (self.n(), self.k());
        f.debug_struct("PackedWeights")
            .field("kernel", &self.kernel)
            .field("n", &n)
            .field("k", &k)
            .finish_non_exhaustive()
    }
}

/// Writes the panels of weights, and finds their sums.
struct Pack<'t, 'w, W> {
    layout: &'t PanelLayout,
    w: &'t Weights<'w, W>,
    panels: &'t mut Panels,
}

impl<W: Weight> Task for Pack<'_, '_, W> {
    type Output = Result<Sums, PackError>;

    #[inline(always)]
    fn run(self) -> Self::Output {
        pack(self.layout, self.w, self.panels)
    }
}
