//! Weight-only products: how a kernel sees one, and the body for kernels that have none of their
//! own.
//!
//! A weight becomes f32 in a register and is multiplied there, or, for many rows, comes from a
//! panel that was expanded for all of them ([`Expansion`]), which changes no bit. Products of
//! neighbouring k go to separate sums, as many as the panel's layout offers in one vector. So no
//! lane crosses to another before the end of a group. The kernel decides how many sums there are,
//! never the tile: a row has the same bits whatever the rows beside it.

use crate::cpu::vectorize::Task;
use crate::kernel::nibble_tile::NibbleLine;

/// One tile: `sums[i][j] = sum_q scale[q][j] * sum_k a[i][k] * (b[k][j] - zero_point[q][j])` over
/// the scale groups q and the k of each, in f32.
#[derive(Debug)]
pub(crate) struct FloatTile<'t> {
    /// Row i starts at element `i * a_stride` and has as many readable elements as `groups` have k,
    /// and [`BEHIND`](Self::BEHIND) more. All elements are divided by the body's unit.
    pub(crate) a: &'t [f32],
    /// Elements between the starts of two rows.
    pub(crate) a_stride: usize,
    /// Rows of the tile, at least 1.
    pub(crate) rows: usize,
    /// A packed panel, as for [`Tile`](crate::kernel::strip::Tile).
    pub(crate) b: &'t [i8],
    /// A panel of 4-bit weights as it is packed, in place of `b`, for bodies that read it; empty
    /// for others.
    pub(crate) lines: &'t [NibbleLine],
    /// A panel as an [`Expansion`] left it, in place of `b`, for bodies that read it; empty for
    /// others. Its weights are less their zero points.
    #[allow(dead_code, reason = "targets without a body for `floats` never expand a panel")]
    pub(crate) floats: &'t [f32],
    /// The zero point of all its codes, if `zero_points` has none.
    #[allow(dead_code, reason = "targets without a body for `lines` expand them")]
    pub(crate) zero_point: i8,
    /// Columns of the panel.
    pub(crate) columns: usize,
    /// Groups of `kr` consecutive k.
    pub(crate) groups: usize,
    /// Consecutive k of a column that lie side by side.
    pub(crate) kr: usize,
    /// Groups that share a scale. The last scale covers those that remain.
    pub(crate) scale_groups: usize,
    /// `nr` entries for each group of scales; `columns` of them belong to this panel.
    pub(crate) scales: &'t [f32],
    /// As `scales`; empty if all are 0.
    pub(crate) zero_points: &'t [i8],
    /// The kernel's `nr`.
    pub(crate) nr: usize,
    /// `rows * columns` results, row by row.
    pub(crate) sums: &'t mut [f32],
    /// As many floats as a body that reads `floats` asks for, whatever they are.
    #[allow(dead_code, reason = "as for `floats`")]
    pub(crate) scratch: &'t mut [f32],
}

impl FloatTile<'_> {
    /// Elements behind a row that are readable, whatever they are. A body that takes every fourth
    /// one reads four at a time.
    pub(crate) const BEHIND: usize = 3;
}

/// A panel of bytes that becomes floats, for a body that reads them in an order of its own.
#[derive(Debug)]
#[allow(dead_code, reason = "targets without such a body never expand a panel")]
pub(crate) struct Expansion<'t> {
    /// The panel, as in a tile.
    pub(crate) b: &'t [i8],
    /// Its columns.
    pub(crate) columns: usize,
    /// Its k, with their padding.
    pub(crate) depth: usize,
    /// Consecutive k that share a scale.
    pub(crate) scale_depth: usize,
    /// As in a tile.
    pub(crate) zero_points: &'t [i8],
    /// As in a tile.
    pub(crate) nr: usize,
    /// All weights of the panel, less their zero points.
    pub(crate) to: &'t mut [f32],
}

/// Rows of a tile of the plain body.
pub(crate) const PLAIN_ROWS: usize = 4;

/// Products that the plain body computes side by side, from adjacent bytes of a panel.
const STRIP: usize = 16;

/// The body for any layout, in plain code.
pub(crate) struct Plain<'p, 't>(pub(crate) &'p mut FloatTile<'t>);

impl Task for Plain<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let tile = self.0;
        match (tile.columns, tile.kr) {
            // All k of a single column lie side by side.
            (1, _) => rows::<STRIP>(tile),
            (_, 16) => rows::<16>(tile),
            (_, 8) => rows::<8>(tile),
            (_, 4) => rows::<4>(tile),
            (_, 2) => rows::<2>(tile),
            _ => rows::<1>(tile),
        }
    }
}

#[inline(always)]
fn rows<const DEPTH: usize>(tile: &mut FloatTile<'_>) {
    match tile.rows {
        1 => body::<1, DEPTH>(tile),
        2 => body::<2, DEPTH>(tile),
        3 => body::<3, DEPTH>(tile),
        _ => body::<PLAIN_ROWS, DEPTH>(tile),
    }
}

/// `DEPTH` consecutive k of a column lie side by side, and each has a sum of its own.
#[inline(always)]
fn body<const M: usize, const DEPTH: usize>(tile: &mut FloatTile<'_>) {
    let (columns, depth) = (tile.columns, tile.groups * tile.kr);
    let scale_depth = tile.scale_groups.saturating_mul(tile.kr);
    tile.sums.fill(0.0);
    for (q, first) in (0..depth).step_by(scale_depth.max(1)).enumerate() {
        let last = depth.min(first.saturating_add(scale_depth));
        let a: [&[f32]; M] = core::array::from_fn(|i| &tile.a[i * tile.a_stride..][first..last]);
        let b = &tile.b[first * columns..last * columns];
        let scales = &tile.scales[q * tile.nr..];
        let zero_points = (!tile.zero_points.is_empty()).then(|| &tile.zero_points[q * tile.nr..]);
        // As many whole columns as fit a strip.
        let strip = STRIP / DEPTH;
        for j in (0..columns).step_by(strip) {
            let used = strip.min(columns - j);
            let mut zeros = [0i32; STRIP];
            if let Some(zero_points) = zero_points {
                for (zeros, &zero_point) in zeros.chunks_exact_mut(DEPTH).zip(&zero_points[j..j + used]) {
                    zeros.fill(i32::from(zero_point));
                }
            }
            let acc = strip_sums::<M, DEPTH>(a, b, columns, j, used, &zeros);
            for (i, acc) in acc.iter().enumerate() {
                let sums = &mut tile.sums[i * columns + j..][..used];
                for ((sum, acc), scale) in sums.iter_mut().zip(acc.chunks_exact(DEPTH)).zip(&scales[j..]) {
                    *sum += tree(acc) * scale;
                }
            }
        }
    }
}

/// The sums of `used` columns from `j` on, `DEPTH` sums for each column.
#[inline(always)]
fn strip_sums<const M: usize, const DEPTH: usize>(
    a: [&[f32]; M],
    b: &[i8],
    columns: usize,
    j: usize,
    used: usize,
    zeros: &[i32; STRIP],
) -> [[f32; STRIP]; M] {
    let mut acc = [[0.0; STRIP]; M];
    let steps = a[0].len() / DEPTH;
    let a_steps: [&[[f32; DEPTH]]; M] = core::array::from_fn(|i| &a[i].as_chunks().0[..steps]);
    for (step, b) in (0..steps).zip(b.chunks_exact(columns * DEPTH)) {
        let a = core::array::from_fn(|i| &a_steps[i][step]);
        let b = &b[j * DEPTH..];
        match b.first_chunk() {
            Some(weights) if used * DEPTH == STRIP => add(&mut acc, weights, zeros, a),
            _ => {
                // Lanes beyond the panel are summed with the rest, but not used.
                let mut weights = [0; STRIP];
                weights.iter_mut().zip(&b[..used * DEPTH]).for_each(|(to, from)| *to = *from);
                add(&mut acc, &weights, zeros, a);
            }
        }
    }
    // A remainder is left only for a single column, where `DEPTH` exceeds the layout's groups.
    let rest = a[0].len() - steps * DEPTH;
    if rest > 0 {
        let (mut weights, mut last) = ([0; STRIP], [[0.0; DEPTH]; M]);
        weights.iter_mut().zip(&b[steps * DEPTH..]).for_each(|(to, from)| *to = *from);
        for i in 0..M {
            last[i][..rest].copy_from_slice(&a[i][steps * DEPTH..]);
        }
        add(&mut acc, &weights, zeros, core::array::from_fn(|i| &last[i]));
    }
    acc
}

/// Adds the products of a strip.
#[inline(always)]
fn add<const M: usize, const DEPTH: usize>(
    acc: &mut [[f32; STRIP]; M],
    weights: &[i8; STRIP],
    zeros: &[i32; STRIP],
    a: [&[f32; DEPTH]; M],
) {
    let w: [f32; STRIP] = core::array::from_fn(|lane| (i32::from(weights[lane]) - zeros[lane]) as f32);
    for (acc, a) in acc.iter_mut().zip(a) {
        for (lane, acc) in acc.iter_mut().enumerate() {
            *acc += w[lane] * a[lane % DEPTH];
        }
    }
}

/// The sum of `values`, whose number is a power of two, neighbours first.
#[inline(always)]
fn tree(values: &[f32]) -> f32 {
    let mut sums = [0.0; STRIP];
    sums[..values.len()].copy_from_slice(values);
    let mut len = values.len();
    while len > 1 {
        len /= 2;
        for i in 0..len {
            sums[i] = sums[2 * i] + sums[2 * i + 1];
        }
    }
    sums[0]
}
