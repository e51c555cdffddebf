//! Integer products of 8-bit weights with a scale for each group of k, tile by tile.

use core::ops::Range;

use crate::drive::blocking::Extent;
use crate::drive::panel_walk::Tiles;
use crate::drive::part_sums::part_sums;
use crate::drive::parts::Part;
use crate::kernel::desc::ActivationForm;
use crate::kernel::part_sums::PartSums;
use crate::kernel::scaled_tile::ScaledTile;
use crate::kernel::strip::Rows;
use crate::left::rows::{self, Allowed, RowSums, Source};
use crate::matrix::workspace::{MOST_ROWS, PanelScratch, RowScratch, Tokens};
use crate::weights::entries::PanelEntries;
use crate::weights::scaled::{ScaledPanel, ScaledWeights};

/// A product with a scale for each group of k.
pub(crate) struct ScaledProduct<'p, S> {
    pub(crate) a: &'p S,
    /// The scales and zero points of the rows, or those of all rows.
    pub(crate) tokens: &'p Tokens,
    pub(crate) w: &'p ScaledWeights,
}

/// A block of rows in the form in which they are read.
pub(crate) struct Block<'b> {
    rows: Range<usize>,
    a: Rows<'b>,
    /// For each part of a group (or group without parts) the terms of all rows, as in a tile.
    row_terms: &'b [i32],
    /// In the same way the sums of the values that the rows stand for, if minimums need them.
    value_sums: PartSums<'b>,
}

/// A panel of weights.
pub(crate) struct Panel<'b> {
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

    fn weights(&self) -> &ScaledWeights {
        self.w
    }

    fn tile(&self) -> (usize, usize) {
        let desc = self.w.kernel().desc();
        (desc.mr, desc.nr)
    }

    fn even_tiles(&self) -> bool {
        self.w.kernel().desc().band == 1
    }

    fn extent(&self, part: &Part) -> Extent {
        part.extent(self.w.kernel().desc(), self.w.k())
    }

    fn rows<'r>(&'r self, rows: Range<usize>, scratch: &'r mut RowScratch) -> Block<'r> {
        let allowed = Allowed { form: self.form(), signed: false, ragged: false };
        let (a, _) = rows::load(self.a, rows.clone(), self.w.kernel(), allowed, &mut scratch.bytes);
        let RowScratch { sums, value_sums, pairs, .. } = scratch;
        self.sum_rows(&rows, a, sums, value_sums);
        let (entries, largest_value) = (self.w.entries(), self.a.largest_distance());
        let value_sums = part_sums(value_sums, rows.len(), entries, largest_value, pairs);
        Block { rows, a, row_terms: sums, value_sums }
    }

    fn panel<'p>(&'p self, p: usize, _: usize, scratch: &'p mut PanelScratch) -> Panel<'p> {
        let has_origins = self.tokens.has_origins(self.shift());
        let sums: &[i32] = if has_origins { self.w.column_terms(p, &mut scratch.sums) } else { &[] };
        Panel { panel: self.w.panel(p, &mut scratch.codes), sums }
    }

    fn compute(
        &self,
        block: &Block<'_>,
        tile: Range<usize>,
        panel: &Panel<'_>,
        y: &mut [f32],
        _: &mut [f32],
    ) {
        let &Panel { panel: ScaledPanel { codes, columns, entries }, sums } = panel;
        let PanelEntries { scales, zero_points, minimums, part_scales, part_minimums } = entries;
        let (desc, a) = (self.w.kernel().desc(), block.a.skip_rows(tile.start));
        if self.w.k() == 0 {
            return y.fill(0.0);
        }
        let token = block.rows.start + tile.start;
        let (mut same, mut origins) = ([0.0; MOST_ROWS], [0; MOST_ROWS]);
        for (i, to) in origins.iter_mut().enumerate() {
            *to = self.origin(token + i);
        }
        let (factors, factor_stride) = self.tokens.factors_of(token..token + tile.len(), &mut same);
        self.w.kernel().run_scaled(&mut ScaledTile {
            a: a.bytes,
            a_stride: a.stride,
            b: codes,
            columns,
            steps: desc.groups(self.w.k()),
            group_steps: desc.groups(self.w.group_len().min(self.w.k())),
            scales,
            nr: desc.nr,
            zero_points,
            row_terms: block.row_terms.get(tile.start..).unwrap_or_default(),
            term_stride: block.rows.len(),
            origins,
            column_terms: sums,
            part_steps: self.part_steps(),
            part_scales,
            minimums,
            part_minimums,
            part_sums: block.value_sums.skip_rows(tile.start),
            rows: tile.len(),
            factors,
            factor_stride,
            y,
        });
    }
}

impl<S: Source> ScaledProduct<'_, S> {
    /// The form in which rows are read.
    fn form(&self) -> ActivationForm {
        self.w.kernel().desc().scaled_form()
    }

    /// What this form adds to codes.
    fn shift(&self) -> i32 {
        self.form().shift(self.a.shift())
    }

    /// The groups of kr consecutive k that a part consists of, or a group without parts; the last
    /// one may be shorter.
    fn part_steps(&self) -> usize {
        self.w.kernel().desc().groups(self.w.entries().part_len.min(self.w.k()))
    }

    /// Sums rows in their form, part by part, if the weights have zero points or minimums, or are
    /// shifted. For minimums also the values that the rows stand for.
    fn sum_rows(&self, rows: &Range<usize>, a: Rows<'_>, sums: &mut Vec<i32>, value_sums: &mut Vec<i32>) {
        sums.clear();
        value_sums.clear();
        let entries = self.w.entries();
        let desc = self.w.kernel().desc();
        let weight_shift = desc.scaled.as_ref().map_or(0, |body| body.weight_shift);
        if !entries.has_zero_points_apart() && !entries.has_minimums() && weight_shift == 0 {
            return;
        }
        sums.resize(rows.len() * entries.parts, 0);
        self.w.kernel().vectorize(RowSums {
            rows: a,
            desc,
            form: self.form(),
            groups: 0..desc.groups(self.w.k()),
            part_groups: self.part_steps(),
            count: rows.len(),
            sums: &mut *sums,
        });
        if entries.has_minimums() {
            for (part, sums) in sums.chunks_exact(rows.len()).enumerate() {
                let len = entries.part_len.min(self.w.k() - part * entries.part_len) as i32;
                let values = |(sum, i): (&i32, usize)| sum.wrapping_sub(self.origin(i).wrapping_mul(len));
                value_sums.extend(sums.iter().zip(rows.clone()).map(values));
            }
        }
        if !entries.has_zero_points_apart() {
            sums.iter_mut().for_each(|sum| *sum = sum.wrapping_mul(-weight_shift));
        }
    }

    /// What row `i` has more than the values that it stands for.
    fn origin(&self, i: usize) -> i32 {
        self.tokens.origin(self.shift(), i)
    }
}
