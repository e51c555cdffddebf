//! Integer products of 8-bit weights with a scale for each group of k, tile by tile. Each group of
//! a tile has sums of its own, which become a term of f32 sums while they are in L1.

use core::ops::Range;

use crate::drive::blocking::Extent;
use crate::drive::group_terms::{AddPart, AddTerm, part_sums};
use crate::drive::panel_walk::Tiles;
use crate::drive::threads::Part;
use crate::kernel::desc::ActivationForm;
use crate::kernel::part_sums::PartSums;
use crate::kernel::scaled_tile::ScaledTile;
use crate::kernel::strip::{Rows, Strip};
use crate::kernel::token::Kernel;
use crate::left::rows::{self, Allowed, RowSums, Source};
use crate::matrix::workspace::{MOST_ROWS, PanelScratch, RowScratch, Tokens};
use crate::output::stage::FloatStage;
use crate::weights::entries::PanelEntries;
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
    p: usize,
    panel: ScaledPanel<'b>,
    /// Scales and minimums as f32; empty where the kernel has a body for the panel.
    floats: [&'b [f32]; 2],
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
        let allowed = Allowed { form: self.form(), signed: false, ragged: false };
        let (a, _) = rows::load(self.a, rows.clone(), self.kernel(), allowed, &mut scratch.bytes);
        let RowScratch { sums, value_sums, pairs, .. } = scratch;
        self.sum_rows(&rows, a, sums, value_sums);
        let (entries, largest_value) = (self.w.entries(), self.a.largest_distance());
        let value_sums = part_sums(value_sums, rows.len(), entries, largest_value, pairs);
        Block { rows, a, row_terms: sums, value_sums }
    }

    fn panel<'p>(&'p self, p: usize, _: usize, scratch: &'p mut PanelScratch) -> Panel<'p> {
        let has_origins = self.tokens.has_origins(self.shift());
        let sums: &[i32] = if has_origins { self.w.column_terms(p, &mut scratch.sums) } else { &[] };
        let panel = self.w.panel(p, &mut scratch.codes);
        let PanelEntries { scales, minimums, .. } = panel.entries;
        let floats = match self.kernel().desc().scaled {
            Some(_) => [&[][..]; 2],
            None => [scales.widened(&mut scratch.scales), minimums.widened(&mut scratch.minimums)],
        };
        Panel { p, panel, floats, sums }
    }

    fn compute(
        &self,
        block: &Block<'_>,
        tile: Range<usize>,
        panel: &Panel<'_>,
        y: &mut [f32],
        acc: &mut [i32],
    ) {
        if self.w.k() == 0 {
            return y.fill(0.0);
        }
        match self.kernel().desc().scaled {
            Some(_) => self.compute_at_once(block, tile, panel, y),
            None => self.compute_by_groups(block, tile, panel, y, acc),
        }
    }
}

/// The sums of a tile's rows in a part, where there are any.
fn rows_of<'s>(sums: &'s [i32], part: usize, rows: usize, tile: &Range<usize>) -> &'s [i32] {
    sums.get(part * rows + tile.start..part * rows + tile.end).unwrap_or_default()
}

/// The entries of one group or part of a panel, where there are any.
fn of_columns<T>(entries: &[T], index: usize, nr: usize, columns: usize) -> &[T] {
    entries.get(index * nr..index * nr + columns).unwrap_or_default()
}

impl<S: Source> ScaledProduct<'_, S> {
    /// Computes a tile with the kernel's body for groups.
    fn compute_at_once(&self, block: &Block<'_>, tile: Range<usize>, panel: &Panel<'_>, y: &mut [f32]) {
        let &Panel { panel: ScaledPanel { codes, columns, entries }, sums, .. } = panel;
        let PanelEntries { scales, zero_points, minimums, part_scales, part_minimums } = entries;
        let (desc, a) = (self.kernel().desc(), block.a.skip_rows(tile.start));
        let token = block.rows.start + tile.start;
        let (mut same, mut origins) = ([0.0; MOST_ROWS], [0; MOST_ROWS]);
        for (i, to) in origins.iter_mut().enumerate() {
            *to = self.origin(token + i);
        }
        let (factors, factor_stride) = self.tokens.factors_of(token..token + tile.len(), &mut same);
        self.kernel().run_scaled(&mut ScaledTile {
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
            part_steps: self.steps(0).len(),
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

    /// Computes a tile group by group: the products, then their term.
    fn compute_by_groups(
        &self,
        block: &Block<'_>,
        tile: Range<usize>,
        panel: &Panel<'_>,
        y: &mut [f32],
        acc: &mut [i32],
    ) {
        let &Panel { p, panel: ScaledPanel { columns, entries, .. }, floats, sums } = panel;
        let PanelEntries { zero_points, part_scales, part_minimums, .. } = entries;
        let (desc, a) = (self.kernel().desc(), block.a.skip_rows(tile.start));
        let token = block.rows.start + tile.start;
        let origin = |i: usize| self.origin(token + i);
        let in_parts = self.w.has_minimums_or_parts();
        let ([scales, minimums], count) = (floats, tile.len() * columns);
        let (acc, rest) = acc.split_at_mut(count);
        let (group, rest) = rest.split_at_mut(count);
        let activation_sums = &mut rest[..count];
        for g in 0..self.w.groups() {
            let zero_points = of_columns(zero_points, g, desc.nr, columns);
            let row_sums_of = |sums, part| rows_of(sums, part, block.rows.len(), &tile);
            let mut term = AddTerm {
                is_first: g == 0,
                columns,
                scales: &scales[g * desc.nr..][..columns],
                zero_points,
                column_terms: of_columns(sums, g, desc.nr, columns),
                row_sums: row_sums_of(block.row_terms, g),
                minimums: of_columns(minimums, g, desc.nr, columns),
                activation_sums,
                factors: self.tokens.factors_from(g),
                first_token: token,
                origin,
                acc: &mut *acc,
                y: &mut *y,
            };
            if in_parts {
                group.fill(0);
                term.activation_sums.fill(0);
                for part in self.w.entries().parts_of(g) {
                    let acc = &mut *term.acc;
                    acc.fill(0);
                    let steps = self.steps(part);
                    self.run_kernel(a, tile.len(), p, steps.start, steps, acc);
                    self.kernel().vectorize(AddPart {
                        columns,
                        part_scales: of_columns(part_scales, part, desc.nr, columns),
                        part_minimums: of_columns(part_minimums, part, desc.nr, columns),
                        zero_points,
                        row_sums: row_sums_of(block.row_terms, part),
                        value_sums: block.value_sums.skip_rows(tile.start).of_part(part, tile.len()),
                        acc,
                        sums: &mut *group,
                        activation_sums: &mut *term.activation_sums,
                    });
                }
                // The parts were corrected one by one.
                (term.acc, term.zero_points) = (&mut *group, &[]);
            } else {
                term.acc.fill(0);
                let steps = self.steps(g);
                self.run_kernel(a, tile.len(), p, steps.start, steps, &mut *term.acc);
            }
            self.kernel().vectorize(term);
        }
    }

    /// The form in which rows are read.
    fn form(&self) -> ActivationForm {
        self.kernel().desc().scaled_form()
    }

    /// What this form adds to codes.
    fn shift(&self) -> i32 {
        self.form().shift(self.a.shift())
    }

    /// The k of a part of a group, or of a group without parts.
    fn part(&self, part: usize) -> Range<usize> {
        let (len, k) = (self.w.entries().part_len, self.w.k());
        part * len..(part + 1).saturating_mul(len).min(k)
    }

    /// The groups of kr consecutive k that a part consists of.
    fn steps(&self, part: usize) -> Range<usize> {
        let (k, desc) = (self.part(part), self.kernel().desc());
        // The length of all parts but the last is a multiple of kr.
        desc.groups(k.start)..desc.groups(k.end)
    }

    /// Sums rows in their form, part by part, if the weights have zero points or minimums, or are
    /// shifted. For minimums also the values that the rows stand for.
    fn sum_rows(&self, rows: &Range<usize>, a: Rows<'_>, sums: &mut Vec<i32>, value_sums: &mut Vec<i32>) {
        sums.clear();
        value_sums.clear();
        let entries = self.w.entries();
        let desc = self.kernel().desc();
        let weight_shift = desc.scaled.as_ref().map_or(0, |body| body.weight_shift);
        if !entries.has_zero_points_apart() && !entries.has_minimums() && weight_shift == 0 {
            return;
        }
        sums.resize(rows.len() * entries.parts, 0);
        self.kernel().vectorize(RowSums {
            rows: a,
            desc,
            form: self.form(),
            groups: 0..desc.groups(self.w.k()),
            part_groups: self.steps(0).len(),
            count: rows.len(),
            sums: &mut *sums,
        });
        if entries.has_minimums() {
            for (part, sums) in sums.chunks_exact(rows.len()).enumerate() {
                let len = self.part(part).len() as i32;
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
