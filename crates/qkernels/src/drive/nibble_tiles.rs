//! Integer products of 4-bit weights with a scale for each group of k, tile by tile.

use core::ops::Range;

use crate::cpu::vectorize::Task;
use crate::drive::blocking::Extent;
use crate::drive::panel_walk::Tiles;
use crate::drive::part_sums::part_sums;
use crate::drive::parts::Part;
use crate::kernel::desc::ActivationForm;
use crate::kernel::nibble_tile::{NIBBLE_COLUMNS, NIBBLE_STEP, NibbleLine, NibbleTile, PLAIN_NIBBLE_ROWS};
use crate::kernel::part_sums::PartSums;
use crate::left::rows::{Source, copy_row, staggered};
use crate::matrix::workspace::{MOST_ROWS, PanelScratch, RowScratch, Tokens};
use crate::weights::entries::PanelEntries;
use crate::weights::nibbles::PackedNibbles;
use crate::weights::scaled::ScaledWeights;

/// A product of 4-bit weights.
pub(crate) struct NibbleProduct<'p, S> {
    pub(crate) a: &'p S,
    /// The scales and zero points of the rows, or those of all rows.
    pub(crate) tokens: &'p Tokens,
    pub(crate) w: &'p ScaledWeights,
    /// The codes of `w`.
    pub(crate) codes: &'p PackedNibbles,
}

/// A block of rows of i8.
pub(crate) struct NibbleRows<'r> {
    rows: Range<usize>,
    bytes: &'r [u8],
    stride: usize,
    /// As in a tile.
    terms: &'r [i32],
    /// As in a tile.
    part_sums: PartSums<'r>,
}

/// A panel of weights. The fields are those of a tile.
pub(crate) struct NibblePanel<'p> {
    lines: &'p [NibbleLine],
    entries: PanelEntries<'p>,
    column_terms: &'p [[i32; NIBBLE_COLUMNS]],
}

impl<S: Source> NibbleProduct<'_, S> {
    /// Lines that share a scale.
    fn group_steps(&self) -> usize {
        self.w.group_len().div_ceil(NIBBLE_STEP)
    }

    /// Lines of a part of a group, or of a group without parts.
    fn part_steps(&self) -> usize {
        self.w.entries().part_len.div_ceil(NIBBLE_STEP)
    }

    /// What the codes of all rows have more as i8.
    fn shift(&self) -> i32 {
        ActivationForm::I8.shift(self.a.shift())
    }

    /// What row `i` has more than the values that it stands for.
    fn origin(&self, i: usize) -> i32 {
        self.tokens.origin(self.shift(), i)
    }
}

impl<S: Source> Tiles for NibbleProduct<'_, S> {
    type Rows<'r>
        = NibbleRows<'r>
    where
        Self: 'r;
    type Panel<'p>
        = NibblePanel<'p>
    where
        Self: 'p;

    fn weights(&self) -> &ScaledWeights {
        self.w
    }

    fn tile(&self) -> (usize, usize) {
        let body = self.w.kernel().desc().nibbles.as_ref();
        let rows = if self.w.has_minimums_or_parts() {
            body.and_then(|body| body.parts.as_ref()).map(|parts| parts.rows)
        } else {
            body.map(|body| body.rows)
        };
        (rows.unwrap_or(PLAIN_NIBBLE_ROWS), NIBBLE_COLUMNS)
    }

    fn even_tiles(&self) -> bool {
        true
    }

    fn extent(&self, part: &Part) -> Extent {
        Extent {
            rows: part.rows.len(),
            panels: part.panels.len(),
            groups: self.codes.steps(),
            group_bytes: NIBBLE_STEP,
            panel_group_bytes: size_of::<NibbleLine>(),
            mr: self.tile().0,
            rows_far: false,
        }
    }

    fn rows<'r>(&'r self, rows: Range<usize>, scratch: &'r mut RowScratch) -> NibbleRows<'r> {
        let RowScratch { bytes, sums, value_sums, pairs, .. } = scratch;
        let entries = self.w.entries();
        let row_bytes = self.codes.steps() * NIBBLE_STEP;
        let stride = staggered(row_bytes);
        // The leftovers of the last use are overwritten, so only growth writes zeros here.
        if bytes.len() < rows.len() * stride {
            bytes.resize(rows.len() * stride, 0);
        }
        sums.resize(rows.len() * entries.parts, 0);
        value_sums.resize(if entries.has_minimums() { sums.len() } else { 0 }, 0);
        self.w.kernel().vectorize(CopyRows {
            source: self.a,
            rows: rows.clone(),
            row_bytes,
            stride,
            part_len: entries.part_len,
            zero_point: entries.common_zero_point.unwrap_or(1).into(),
            origin: |i| self.origin(i),
            bytes,
            sums,
            value_sums,
        });
        let part_sums = part_sums(value_sums, rows.len(), entries, self.a.largest_distance(), pairs);
        NibbleRows { rows, bytes, stride, terms: sums, part_sums }
    }

    fn panel<'p>(&'p self, p: usize, _: usize, scratch: &'p mut PanelScratch) -> NibblePanel<'p> {
        let lines = self.codes.panel(p);
        let entries = self.w.entries().panel(p);
        let column_terms: &[i32] = if self.tokens.has_origins(self.shift()) {
            self.w.column_terms(p, &mut scratch.sums)
        } else {
            &[]
        };
        NibblePanel { lines, entries, column_terms: column_terms.as_chunks().0 }
    }

    fn compute(
        &self,
        block: &NibbleRows<'_>,
        tile: Range<usize>,
        panel: &NibblePanel<'_>,
        y: &mut [f32],
        _: &mut [f32],
    ) {
        if panel.lines.is_empty() {
            return y.fill(0.0);
        }
        let tokens = block.rows.start + tile.start..block.rows.start + tile.end;
        let (mut same, mut origins) = ([0.0; MOST_ROWS], [0; MOST_ROWS]);
        let (factors, factor_stride) = self.tokens.factors_of(tokens.clone(), &mut same);
        let has_origins = !panel.column_terms.is_empty();
        for (origin, i) in origins.iter_mut().zip(tokens) {
            *origin = self.origin(i);
        }
        self.w.kernel().run_nibbles(&mut NibbleTile {
            a: &block.bytes[tile.start * block.stride..],
            a_stride: block.stride,
            b: panel.lines,
            group_steps: self.group_steps(),
            scales: panel.entries.scales,
            zero_points: panel.entries.zero_points.as_chunks().0,
            row_terms: &block.terms[tile.start..],
            term_stride: block.rows.len(),
            origins: if has_origins { &origins[..tile.len()] } else { &[] },
            column_terms: panel.column_terms,
            has_row_terms: self.w.entries().common_zero_point != Some(0),
            part_steps: self.part_steps(),
            part_scales: panel.entries.part_scales.as_chunks().0,
            minimums: panel.entries.minimums,
            part_minimums: panel.entries.part_minimums.as_chunks().0,
            part_sums: block.part_sums.skip_rows(tile.start),
            rows: tile.len(),
            factors,
            factor_stride,
            y: y.as_chunks_mut().0,
        });
    }
}

/// Copies rows as i8, and sums the parts of each.
struct CopyRows<'t, S, O> {
    source: &'t S,
    rows: Range<usize>,
    row_bytes: usize,
    stride: usize,
    part_len: usize,
    /// What sums are multiplied by.
    zero_point: i32,
    /// What a row has more than the values that it stands for.
    origin: O,
    bytes: &'t mut [u8],
    sums: &'t mut [i32],
    /// The sums of the values; empty if nothing needs them.
    value_sums: &'t mut [i32],
}

impl<S: Source, O: Fn(usize) -> i32> Task for CopyRows<'_, S, O> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let (count, cols) = (self.rows.len(), self.source.cols());
        let parts = self.sums.len() / count.max(1);
        for i in 0..count {
            let row = &mut self.bytes[i * self.stride..][..self.row_bytes];
            copy_row(self.source, self.rows.start + i, ActivationForm::I8, row);
            let origin = (self.origin)(self.rows.start + i);
            for p in 0..parts {
                // Behind the values there are zeros.
                let start = (p * self.part_len).min(cols);
                let part = &row[start..cols.min(start.saturating_add(self.part_len))];
                let sum = part.iter().fold(0i32, |sum, code| sum.wrapping_add(code.cast_signed().into()));
                self.sums[p * count + i] = sum.wrapping_mul(self.zero_point);
                if let Some(value_sum) = self.value_sums.get_mut(p * count + i) {
                    *value_sum = sum.wrapping_sub(origin.wrapping_mul(part.len() as i32));
                }
            }
        }
    }
}
