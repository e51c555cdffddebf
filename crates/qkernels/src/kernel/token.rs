//! The token that proves that the CPU can run a kernel, and the one place that calls it.

use core::fmt;

use crate::cpu::detect::{Feature, Features};
use crate::cpu::vectorize::Task;
use crate::kernel::desc::{FloatBody, FloatExpanded, KernelDesc};
use crate::kernel::float_tile::{Expansion, FloatTile, Plain};
use crate::kernel::nibble_tile::{NibbleTile, PlainNibbles};
use crate::kernel::plain_scaled::PlainScaled;
use crate::kernel::scaled_tile::ScaledTile;
use crate::kernel::strip::Strip;

/// Why there is no [`Kernel`] for a row of the table, or why nothing can be packed for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// This CPU lacks a feature that the kernel needs.
    #[error("kernel {name} needs {missing}, which this CPU lacks")]
    Unsupported {
        /// The kernel.
        name: &'static str,
        /// The first feature that the CPU lacks.
        missing: Feature,
    },
    /// The kernel sums in 16 bits, which saturate for most weights. It runs only panels that
    /// packing proves safe, and comes along with the kernel that runs all others.
    #[error("kernel {name} is for panels of proven weights alone, which packing for {base} finds")]
    ProvenPanelsOnly {
        /// The kernel.
        name: &'static str,
        /// The kernel that brings it along. Pack weights for that one.
        base: &'static str,
    },
    /// The kernel sums in 16 bits, too, and reads the k of a panel in an order of the panel's own.
    /// It runs only panels for which packing finds such an order.
    #[error("kernel {name} is for panels with an order of k alone, which packing for {base} finds")]
    OrderedPanelsOnly {
        /// The kernel.
        name: &'static str,
        /// The kernel that brings it along. Pack weights for that one.
        base: &'static str,
    },
}

/// A kernel that this CPU can run. Holding one is the proof: it is only made after every feature
/// was detected.
///
/// ```
/// let kernel = qkernels::Kernel::select()?;
/// println!("{kernel}: {} x {} tile", kernel.desc().mr, kernel.desc().nr);
/// # Ok::<(), qkernels::SelectError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Kernel(&'static KernelDesc);

impl Kernel {
    /// The token for `desc`, whatever weights it is for. The error is the first feature that this
    /// CPU lacks.
    pub(crate) fn supported(desc: &'static KernelDesc) -> Result<Self, Feature> {
        match Features::of_this_cpu().first_missing(desc.features) {
            Some(missing) => Err(missing),
            None => Ok(Self(desc)),
        }
    }

    /// The kernels that may run a panel in place of this one, fastest first.
    pub(crate) fn proven(self) -> impl Iterator<Item = Kernel> {
        self.0.proven.iter().filter_map(|&desc| Kernel::supported(desc).ok())
    }

    /// The kernel that may run a panel with an order in place of this one.
    pub(crate) fn ordered(self) -> Option<Kernel> {
        self.0.ordered.and_then(|desc| Kernel::supported(desc).ok())
    }

    /// The kernel's row of the table.
    pub fn desc(self) -> &'static KernelDesc {
        self.0
    }

    /// File stem and tile, for example `avx2_6x16`.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Sets up the calling thread for strips of this kernel, for as long as the result lives.
    pub(crate) fn set_up(self) -> SetUp {
        if let Some(state) = &self.0.state {
            // SAFETY: as for `run`.
            unsafe { (state.set_up)() };
        }
        SetUp(self)
    }

    /// Runs the body on a strip, on a thread that is [set up](Self::set_up) for it.
    pub(crate) fn run(self, strip: &mut Strip<'_, '_>) {
        // SAFETY: apart from its target features `run` is a safe function. Its row lists these in
        // `features`, and `self` exists only because `Kernel::supported` found all of them.
        unsafe { (self.0.run)(strip) }
    }

    /// Runs the body of weight-only products on one tile.
    pub(crate) fn run_float(self, tile: &mut FloatTile<'_>) {
        match self.0.float_body(tile.kr) {
            Some(FloatBody { nibbles: Some(body), .. }) if !tile.lines.is_empty() => {
                // SAFETY: as for `run`.
                unsafe { (body.run)(tile) }
            }
            Some(FloatBody { expanded: Some(body), .. }) if !tile.floats.is_empty() => {
                // SAFETY: as for `run`.
                unsafe { (body.run)(tile) }
            }
            // SAFETY: as for `run`.
            Some(body) => unsafe { (body.run)(tile) },
            None => self.vectorize(Plain(tile)),
        }
    }

    /// Expands a panel with groups of `kr` for the body of weight-only products on floats.
    pub(crate) fn expand_floats(self, kr: usize, expansion: &mut Expansion<'_>) {
        if let Some(FloatBody { expanded: Some(FloatExpanded { expand, .. }), .. }) = self.0.float_body(kr) {
            // SAFETY: as for `run`.
            unsafe { expand(expansion) }
        }
    }

    /// Runs the body of products with a scale for each group of k on one tile, on a thread that is
    /// [set up](Self::set_up) for it.
    pub(crate) fn run_scaled(self, tile: &mut ScaledTile<'_>) {
        match &self.0.scaled {
            // SAFETY: as for `run`.
            Some(body) => unsafe { (body.run)(tile) },
            None => self.vectorize(PlainScaled { tile, desc: self.0 }),
        }
    }

    /// Runs the body of products of 4-bit weights on one tile.
    pub(crate) fn run_nibbles(self, tile: &mut NibbleTile<'_>) {
        let body = self.0.nibbles.as_ref();
        let run = match body.and_then(|body| body.parts.as_ref()) {
            Some(parts) if !tile.is_plain() => Some(parts.run),
            None if !tile.is_plain() => None,
            _ => body.map(|body| body.run),
        };
        match run {
            // SAFETY: as for `run`.
            Some(run) => unsafe { run(tile) },
            None => self.vectorize(PlainNibbles(tile)),
        }
    }

    /// Runs `iterations` of the kernel's multiply instruction on independent registers, and returns
    /// the number of operations done (2 for a product and its addition). Timed, it gives the peak
    /// of this CPU for this kernel. The benches state that peak beside every figure.
    pub fn run_peak_loop(self, iterations: u64) -> u64 {
        let _set_up = self.set_up();
        // SAFETY: as for `run`.
        let sum = unsafe { (self.0.peak.run)(iterations) };
        core::hint::black_box(sum);
        iterations * self.0.peak.operations
    }

    /// Runs element-wise code compiled for this kernel's vector level.
    pub(crate) fn vectorize<T: Task>(self, task: T) -> T::Output {
        // SAFETY: the level's features are part of `features` (a test checks it), and `self` exists
        // only because `Kernel::supported` found all of them.
        unsafe { self.0.level.run(task) }
    }
}

/// Keeps a thread set up for the strips of a kernel until it is dropped.
pub(crate) struct SetUp(Kernel);

impl Drop for SetUp {
    fn drop(&mut self) {
        if let Some(state) = &self.0.desc().state {
            // SAFETY: as for `Kernel::run`.
            unsafe { (state.tear_down)() };
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kernel").field(&self.0.name).finish()
    }
}
