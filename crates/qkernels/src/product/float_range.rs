//! Weight-only products whose sums leave the range of f32 on their way. A sum that is infinite
//! stays infinite, or becomes NaN if it meets the opposite infinity, whatever the result should be.
//!
//! Hardly any activations are large enough for that, and one look at each of them tells. A row that
//! is too large is computed by itself beforehand, to the very same bits. What is infinite in it is
//! computed once more in f64, so results that are right, infinities included, are never refused.

use qcore::Float;

use crate::cpu::threads::Threads;
use crate::cpu::vectorize::Task;
use crate::drive::float_tiles::FloatProduct;
use crate::drive::panel_walk::PanelWalk;
use crate::drive::parts;
use crate::left::float_rows::FloatRows;
use crate::left::floats::RowBlocks;
use crate::matrix::view::MatMut;
use crate::matrix::workspace::Workspace;
use crate::output::stage::FloatStage;
use crate::product::gemm::GemmError;
use crate::weights::scaled::ScaledWeights;

/// The part of f32's range that is reserved for the roundings of a sum. For 2^24 products they may
/// make it e times as large.
const MARGIN: f64 = 4.0;

/// The largest activations for which all sums, scaled or not, are finite in any order.
fn most(w: &ScaledWeights) -> f32 {
    let (depth, largest) = (w.k().max(1) as f64, &w.entries().largest);
    let at_least_one = |value: f32, of_part: u8| (f64::from(value) * f64::from(of_part)).max(1.0);
    let of_codes = w.largest_weight() as f64 * at_least_one(largest.scale, largest.part_scale);
    let has_minimums = w.entries().has_minimums();
    let of_minimums = if has_minimums { at_least_one(largest.minimum, largest.part_minimum) } else { 0.0 };
    let sums = MARGIN * (of_codes + of_minimums) * depth;
    // This rounds towards 0.
    ((f64::from(f32::MAX) / sums) as f32).next_down()
}

/// An error if a result of `a` is not the finite one that it should be. `a` has the depth of `w`.
pub(crate) fn check<A: Float>(
    a: FloatRows<'_, A>,
    w: &ScaledWeights,
    workspace: &mut Workspace,
) -> Result<(), GemmError> {
    let (kernel, most) = (w.kernel(), most(w));
    // The type (f16, for instance) may not reach that far. Quotients may.
    let out_of_reach = a.divisors().is_empty() && A::narrow(most).widen() == f32::INFINITY;
    if out_of_reach || kernel.vectorize(WithinAll { a: &a.without_repeats(), most }) {
        return Ok(());
    }
    for row in 0..a.rows() {
        let Some(one) = a.row_range(row..row + 1) else { break };
        let small = kernel.vectorize(WithinAll { a: &one, most });
        if small || !kernel.vectorize(WithinAll { a: &one, most: f32::MAX }) {
            continue;
        }
        if let Some(channel) = first_lost(one, w, workspace) {
            return Err(GemmError::FloatRange { row, channel });
        }
    }
    Ok(())
}

/// The first channel whose sum for the single row `a` is infinite, though it should be finite, or
/// is NaN.
fn first_lost<A: Float>(a: FloatRows<'_, A>, w: &ScaledWeights, workspace: &mut Workspace) -> Option<usize> {
    let n = w.n();
    let mut y = core::mem::take(&mut workspace.operands.results);
    y.clear();
    y.resize(n, 0.0f32);
    if let Ok(out) = MatMut::new(&mut y, 1, n) {
        let product = PanelWalk { product: FloatProduct { a, w }, stage: &FloatStage::new() };
        parts::run_whole(&product, (1, n, w.k()), out, Threads::Serial, &mut workspace.arenas);
    }
    // The caller's stage is left out: its ReLU would make 0 of a sum that went the wrong way.
    let lost = |(channel, y): (usize, &f32)| {
        y.is_nan() || y.is_infinite() && (exact(a, w, channel) as f32).is_finite()
    };
    let first = y.iter().enumerate().position(lost);
    workspace.operands.results = y;
    first
}

/// The sum of the single row `a` and a channel in f64. No such sum leaves the range of f64.
fn exact<A: Float>(a: FloatRows<'_, A>, w: &ScaledWeights, channel: usize) -> f64 {
    let input = |k: usize| w.input_order().map_or(k, |order| order[k] as usize);
    let term = |k: usize| a.get(0, input(k)).map_or(0.0, f64::from) * w.value(channel, k);
    (0..w.k()).map(term).sum()
}

/// Whether all elements of `a` are at most `most` in magnitude and none is NaN.
struct WithinAll<'t, 'a, A> {
    a: &'t FloatRows<'a, A>,
    most: f32,
}

impl<A: Float> Task for WithinAll<'_, '_, A> {
    type Output = bool;

    #[inline(always)]
    fn run(self) -> bool {
        let mut wide = None;
        for i in 0..self.a.rows() {
            let mut blocks = RowBlocks::new(self.a, i, &mut wide);
            while let Some(block) = blocks.next() {
                // There is no early exit from the block, so it is vector code.
                if !block.iter().fold(true, |all, x| all & (x.abs() <= self.most)) {
                    return false;
                }
            }
        }
        true
    }
}
