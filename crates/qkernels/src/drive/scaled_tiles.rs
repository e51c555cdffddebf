//! Integer products of 8-bit weights with a scale for each group of k, tile by tile. Each group of
//! a tile has sums of its own, which become a term of f32 sums while they are in L1.

use core::ops::Range;

use qcore::group_term;

use crate::cpu::vectorize::Task;
use crate::drive::blocking::Extent;
use crate::drive::panel_walk::Tiles;
use crate::drive::threads::Part;
use crate::kernel::scaled_tile::ScaledTile;
use crate::kernel::strip::{Rows, Strip};
use crate::kernel::token::Kernel;
use crate::left::rows::{self, Allowed, RowSums, Source};
use crate::matrix::workspace::{MOST_ROWS, PanelScratch, RowScratch, Tokens};
use crate::output::stage::FloatStage;
use crate::weights::packed::PackedWeights;
use crate::weights::scaled::{ScaledPanel, ScaledWeights};

/// A product with a scale for each group of k.
pub(crate) struct ScaledProduct<'p, S> {
    pub(crate) a: &'p S,
    /// The scales and zero points of the rows, or those of all rows.
    pub(crate) tokens: &'p Tokens,
    pub(crate) w: &'p ScaledWeights,
    /// The codes of `w`.
    pub(crate) codes: &'p PackedWeights,
    pub(crate) stage: &'p FloatStage<'p>,
}

/// A block of rows in the form of the kernel.
pub(crate) struct Block<'b> {
    rows: Range<usize>,
    a: Rows<'b>,
    /// What the form adds to codes.
    shift: i32,
    /// For each group of a scale the sums of all rows, if zero points of weights need them.
    row_sums: &'b [i32],
}

/// A panel of weights.
pub(crate) struct Panel<'b> {
    p: usize,
    panel: ScaledPanel<'b>,
    /// For each group of a scale the sums of a whole panel's columns less their zero points, if
    /// shifts or zero points of rows need them.
    sums: &'b [i32],
}

impl<S: Source> Tiles for ScaledProduct<'_, S> {
    type Rows<'r>
        = Block<'r>
    where
        Self: 'r;
    type Panel<'p>
        = Panel<'p>
    where
        Self: 'p;

    fn kernel(&self) -> Kernel {
        self.codes.kernel()
    }

    fn stage(&self) -> &FloatStage<'_> {
        self.stage
    }

    fn tile(&self) -> (usize, usize) {
        let desc = self.kernel().desc();
        (desc.mr, desc.nr)
    }

    fn even_tiles(&self) -> bool {
        self.kernel().desc().band == 1
    }

    fn columns(&self, p: usize) -> (usize, usize) {
        self.w.columns(p)
    }

    fn extent(&self, part: &Part) -> Extent {
        part.extent(self.kernel().desc(), self.w.k())
    }

    fn rows<'r>(&'r self, rows: Range<usize>, scratch: &'r mut RowScratch) -> Block<'r> {
        let allowed = Allowed { signed: false, ragged: false };
        let (a, _) = rows::load(self.a, rows.clone(), self.kernel(), allowed, &mut scratch.bytes);
        self.sum_rows(&rows, a, &mut scratch.sums);
        Block { rows, a, shift: self.shift(), row_sums: &scratch.sums }
    }

    fn panel<'p>(&'p self, p: usize, scratch: &'p mut PanelScratch) -> Panel<'p> {
        let has_origins = self.shift() != 0 || !self.tokens.zero_points.is_empty();
        let sums: &[i32] = if has_origins { self.w.column_terms(p, &mut scratch.sums) } else { &[] };
        Panel { p, panel: self.w.panel(p, &mut scratch.codes), sums }
    }

    /// Computes group by group the products, then their term.
    fn compute(
        &self,
        block: &Block<'_>,
        tile: Range<usize>,
        panel: &Panel<'_>,
        y: &mut [f32],
        acc: &mut [i32],
    ) {
        let &Panel { p, panel: ScaledPanel { codes, columns, scales, zero_points }, sums } = panel;
        let desc = self.kernel().desc();
        if self.w.groups() == 0 {
            return y.fill(0.0);
        }
        let a = block.a.skip_rows(tile.start);
        let token = block.rows.start + tile.start;
        let of_tile = |values: &'_ [i32], i: usize| values.get(token + i).or(values.first()).copied();
        let origin = |i: usize| block.shift + of_tile(&self.tokens.zero_points, i).unwrap_or(0);
        if zero_points.is_empty() {
            // A kernel may sum and scale by itself.
            let (mut same, mut origins) = ([0.0; MOST_ROWS], [0; MOST_ROWS]);
            for (i, to) in origins.iter_mut().enumerate() {
                *to = origin(i);
            }
            let factors = self.tokens.factors_of(token..token + tile.len(), &mut same);
            let mut scaled = ScaledTile {
                a: a.bytes,
                a_stride: a.stride,
                b: codes,
                columns,
                steps: desc.groups(self.w.k()),
                group_steps: self.steps(0).len(),
                scales,
                nr: desc.nr,
                origins,
                column_terms: sums,
                factors,
                y: &mut *y,
            };
            if factors.len() == tile.len() && self.kernel().run_scaled(&mut scaled) {
                return;
            }
        }
        let acc = &mut acc[..tile.len() * columns];
        for g in 0..self.w.groups() {
            acc.fill(0);
            let steps = self.steps(g);
            self.run_kernel(a, tile.len(), p, steps.start, steps, acc);
            let of_group = |start: usize, len: usize| start + g * len..start + (g + 1) * len;
            let column_terms = sums.get(of_group(0, desc.nr)).unwrap_or_default();
            let zero_points = zero_points.get(of_group(0, desc.nr)).unwrap_or_default();
            let row_sums = block.row_sums.get(of_group(0, block.rows.len())).unwrap_or_default();
            self.kernel().vectorize(AddTerm {
                is_first: g == 0,
                columns,
                scales: &scales[g * desc.nr..][..columns],
                zero_points: zero_points.get(..columns).unwrap_or_default(),
                column_terms,
                row_sums: row_sums.get(tile.clone()).unwrap_or_default(),
                factors: &self.tokens.factors,
                first_token: token,
                origin,
                acc,
                y,
            });
        }
    }
}

impl<S: Source> ScaledProduct<'_, S> {
    /// What the kernel's form adds to codes.
    fn shift(&self) -> i32 {
        self.kernel().desc().form.shift(self.a.shift())
    }

    /// The k of group `g` of a scale.
    fn group(&self, g: usize) -> Range<usize> {
        let (len, k) = (self.w.group_len(), self.w.k());
        g * len..(g + 1).saturating_mul(len).min(k)
    }

    /// The groups of kr consecutive k that group `g` of a scale consists of.
    fn steps(&self, g: usize) -> Range<usize> {
        let (k, desc) = (self.group(g), self.kernel().desc());
        // The length of all groups but the last is a multiple of kr.
        desc.groups(k.start)..desc.groups(k.end)
    }

    /// Sums rows in the kernel's form, group by group, if the weights have zero points.
    fn sum_rows(&self, rows: &Range<usize>, a: Rows<'_>, sums: &mut Vec<i32>) {
        sums.clear();
        if !self.w.has_zero_points() {
            return;
        }
        sums.resize(rows.len() * self.w.groups(), 0);
        for (g, sums) in sums.chunks_exact_mut(rows.len()).enumerate() {
            let desc = self.kernel().desc();
            self.kernel().vectorize(RowSums { rows: a, desc, groups: self.steps(g), sums });
        }
    }

    /// Adds the products of some rows and a panel over `steps` groups of kr consecutive k to `acc`.
    /// The rows hold these groups from group `first` on.
    fn run_kernel(
        &self,
        a: Rows<'_>,
        rows: usize,
        p: usize,
        first: usize,
        steps: Range<usize>,
        acc: &mut [i32],
    ) {
        let (weights, desc) = (self.codes, self.kernel().desc());
        self.kernel().run(&mut Strip {
            shape: desc.tile_shape(),
            a,
            rows,
            done: 0,
            tiles: 0,
            first_group: first,
            groups: steps.len(),
            panels: 1,
            columns: weights.layout().columns(p),
            b: weights.panel(p, steps.start * desc.kr..steps.end * desc.kr),
            panel_stride: 0,
            acc,
            slot_stride: 0,
            offsets: None,
            channel_sums: &[],
            store: None,
        });
    }
}

/// Turns the sums of one group into a term of `y`.
struct AddTerm<'t, O> {
    is_first: bool,
    columns: usize,
    scales: &'t [f32],
    /// Empty if there are none.
    zero_points: &'t [i8],
    /// The sums of the weights less their zero points; empty if no row has an origin.
    column_terms: &'t [i32],
    /// The sums of the rows in the kernel's form; empty if there are no zero points.
    row_sums: &'t [i32],
    /// Scales of all rows, or the one that they share.
    factors: &'t [f32],
    /// The tile's first row among them.
    first_token: usize,
    /// What row i has more than the values that it stands for: its shift and its zero point.
    origin: O,
    acc: &'t mut [i32],
    y: &'t mut [f32],
}

impl<O: Fn(usize) -> i32> Task for AddTerm<'_, O> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let columns = self.columns;
        for i in 0..self.y.len() / columns {
            let acc = &mut self.acc[i * columns..][..columns];
            let y = &mut self.y[i * columns..][..columns];
            let origin = (self.origin)(i);
            // x * w - x * zero_point - origin * (w - zero_point), each summed by itself. The sum
            // fits i32, though not all of these do.
            if let Some(terms) = self.column_terms.get(..columns) {
                for j in 0..columns {
                    acc[j] = acc[j].wrapping_sub(origin.wrapping_mul(terms[j]));
                }
            }
            if let (Some(zero_points), Some(row_sum)) =
                (self.zero_points.get(..columns), self.row_sums.get(i))
            {
                for j in 0..columns {
                    acc[j] = acc[j].wrapping_sub(row_sum.wrapping_mul(zero_points[j].into()));
                }
            }
            let factors = self.factors;
            let Some(&factor) = factors.get(self.first_token + i).or(factors.first()) else { return };
            let scales = &self.scales[..columns];
            if self.is_first {
                for j in 0..columns {
                    y[j] = group_term(factor, scales[j], acc[j]);
                }
            } else {
                for j in 0..columns {
                    y[j] += group_term(factor, scales[j], acc[j]);
                }
            }
        }
    }
}
