//! Writing groups of panels: kr elements of each column side by side, from weights whose columns or
//! whose rows are adjacent in memory. Both are transpositions of small blocks.

use core::ops::Range;

use crate::matrix::view::MatRef;
use crate::weights::operand::Weight;
use crate::weights::pack::transpose::{BYTES, Bytes, masked, request, row_starts, transposed};

/// Writes the groups of `k`, which begins with one, of a panel `width` columns wide. Its `columns`
/// are adjacent elements of `w` (n, k). `C` columns have `BYTES` bytes in a group.
#[inline(always)]
pub(crate) fn pack_rows<W: Weight, const KR: usize, const C: usize>(
    groups: &mut [[i8; KR]],
    width: usize,
    columns: Range<usize>,
    k: Range<usize>,
    w: &MatRef<'_, W>,
) {
    let row = |column: usize| &w.row_slice(columns.start + column).unwrap_or_default()[k.clone()];
    let abreast = columns.len() - columns.len() % C;
    for column in (0..abreast).step_by(C) {
        // This is a loop because a closure for `from_fn` would be called.
        let (mut rows, mut rests): ([&[[W; BYTES]]; C], [&[W]; C]) = ([&[]; C], [&[]; C]);
        for c in 0..C {
            (rows[c], rests[c]) = row(column + c).as_chunks();
        }
        let (count, rest) = (rows[0].len(), rests[0].len());
        let rows = rows.map(|chunks| &chunks[..count]);
        let mut place = column;
        for at in 0..count {
            let mut vectors = [[0; BYTES]; C];
            for (vector, chunks) in vectors.iter_mut().zip(&rows) {
                *vector = signed(&chunks[at]);
            }
            for group in transposed::<C, KR>(vectors) {
                let Some(to) = groups.get_mut(place..place + C) else { return };
                to.as_flattened_mut().copy_from_slice(&group);
                place += width;
            }
        }
        if rest > 0 {
            let mut vectors = [[0; BYTES]; C];
            for c in 0..C {
                for (to, from) in vectors[c].iter_mut().zip(rests[c]) {
                    *to = from.signed();
                }
            }
            for group in &transposed::<C, KR>(vectors)[..rest.div_ceil(KR)] {
                let Some(to) = groups.get_mut(place..place + C) else { return };
                to.as_flattened_mut().copy_from_slice(group);
                place += width;
            }
        }
    }
    for column in abreast..columns.len() {
        pack_row(groups, width, column, row(column));
    }
}

/// Writes the elements of one column, group by group. The last one may be short.
#[inline(always)]
fn pack_row<W: Weight, const KR: usize>(groups: &mut [[i8; KR]], width: usize, column: usize, row: &[W]) {
    let (whole, rest) = row.as_chunks::<KR>();
    let mut place = column;
    for from in whole {
        let Some(to) = groups.get_mut(place) else { return };
        *to = from.map(W::signed);
        place += width;
    }
    for (to, from) in groups.get_mut(place).into_iter().flatten().zip(rest) {
        *to = from.signed();
    }
}

/// Adjacent columns, as many as a vector has bytes or fewer, and where their groups are.
#[derive(Clone, Copy, Default)]
pub(crate) struct Place {
    /// The first of them.
    pub(crate) column: usize,
    /// How many there are. What a vector has behind them becomes zeros.
    pub(crate) count: usize,
    /// Where the next group of them is in the panels.
    pub(crate) at: usize,
    /// How far it is to the one after it.
    pub(crate) step: usize,
}

/// Writes the groups of `k`, all of them whole, of the columns at `place`, which moves on. These
/// are at most `MOST`, and the panel has room for so many. The rows of `w` (k, n) have those of all
/// columns.
///
/// The vectors of a row may reach past its end, into the next row, so a few columns take no longer
/// than a vector of them. Groups near the end of the last row are left to be written, from the k
/// that is returned.
#[inline(always)]
pub(crate) fn pack_columns<W: Weight, const KR: usize, const MOST: usize>(
    packed: &mut [i8],
    place: &mut Place,
    k: Range<usize>,
    w: &MatRef<'_, W>,
) -> usize {
    let Place { column, count, mut at, step, .. } = *place;
    let mut mask = [0; BYTES];
    for (i, mask) in mask.iter_mut().enumerate() {
        *mask = if i < count { -1 } else { 0 };
    }
    let (stride, mut first) = (w.row_stride(), k.start);
    let all = w.skip_rows(first).get(column..).unwrap_or_default();
    while first < k.end
        && let Some(rest) = all.get((first - k.start) * stride..)
        && let Some(rows) = row_starts::<W, KR, BYTES>(rest, stride)
    {
        // This is a loop because a closure for `map` would be called.
        let mut vectors = [[0; BYTES]; KR];
        for (r, vector) in vectors.iter_mut().enumerate() {
            *vector = masked(signed(rows[r]), mask);
        }
        let group = transposed::<KR, 1>(vectors);
        let to = packed.get_mut(at..).and_then(|to| to.as_chunks_mut::<KR>().0.first_chunk_mut::<MOST>());
        if let (Some(to), Some(from)) = (to, group.as_flattened().as_chunks().0.first_chunk()) {
            *to = *from;
        }
        at += step;
        first += KR;
    }
    place.at = at;
    first
}

/// Writes the groups of `k`, `G` at a time, of whole vectors of adjacent columns at `places`, which
/// move on. The rows of `w` (k, n) have those of all columns. Lines `AHEAD` bytes behind them are
/// requested, if that is not 0.
#[inline(always)]
pub(crate) fn pack_wide<W: Weight, const KR: usize, const G: usize, const AHEAD: usize>(
    packed: &mut [i8],
    places: &mut [Place],
    k: Range<usize>,
    w: &MatRef<'_, W>,
) {
    let column = places.first().map_or(0, |place| place.column);
    for first in k.step_by(G * KR) {
        // These are loops because closures for `from_fn` would be called.
        let mut rows: [[&[[W; BYTES]]; KR]; G] = [[&[]; KR]; G];
        for (g, rows) in rows.iter_mut().enumerate() {
            for (r, chunks) in rows.iter_mut().enumerate() {
                let row = w.row_slice(first + g * KR + r).unwrap_or_default();
                *chunks = &row[column..].as_chunks().0[..places.len()];
            }
        }
        for (v, Place { at, step, .. }) in places.iter_mut().enumerate() {
            for rows in &rows {
                let mut vectors = [[0; BYTES]; KR];
                for (vector, chunks) in vectors.iter_mut().zip(rows) {
                    *vector = signed(&chunks[v]);
                    if AHEAD > 0 {
                        request(&chunks[v], AHEAD);
                    }
                }
                if let Some(to) = packed[*at..].as_chunks_mut().0.first_chunk_mut::<KR>() {
                    *to = transposed::<KR, 1>(vectors);
                }
                *at += *step;
            }
        }
    }
}

/// Writes the groups of `k`, which begins with one, of a panel `width` columns wide, the first of
/// which is `column`. The rows of `w` (k, n) have `columns` of them.
#[inline(always)]
pub(crate) fn pack_any_columns<W: Weight, const KR: usize>(
    groups: &mut [[i8; KR]],
    width: usize,
    columns: Range<usize>,
    k: Range<usize>,
    w: &MatRef<'_, W>,
) {
    let row = |k: usize| &w.row_slice(k).unwrap_or_default()[columns.clone()];
    for (first, group) in k.clone().step_by(KR).zip(groups.chunks_mut(width)) {
        let group = &mut group[..columns.len()];
        if first + KR <= k.end {
            // This is a loop because a closure for `from_fn` would be called.
            let mut rows: [&[W]; KR] = [&[]; KR];
            for (r, of_row) in rows.iter_mut().enumerate() {
                *of_row = row(first + r);
            }
            interleave(rows, group);
        } else {
            for r in 0..k.end - first {
                for (to, from) in group.iter_mut().zip(row(first + r)) {
                    to[r] = from.signed();
                }
            }
        }
    }
}

/// Writes groups of one element of each row. Few rows are treated as words, whose shifts are vector
/// code; bytes side by side would not be.
#[inline(always)]
fn interleave<W: Weight, const KR: usize>(rows: [&[W]; KR], to: &mut [[i8; KR]]) {
    let byte = |r: usize, column: usize| u32::from(rows[r][column].signed().cast_unsigned());
    if KR == 4 && rows.iter().all(|row| row.len() == to.len()) {
        for (column, to) in to.iter_mut().enumerate() {
            let word = byte(0, column) | byte(1, column) << 8 | byte(2, column) << 16 | byte(3, column) << 24;
            to.copy_from_slice(&word.to_le_bytes().map(u8::cast_signed));
        }
    } else {
        for (column, to) in to.iter_mut().enumerate() {
            for (to, row) in to.iter_mut().zip(rows) {
                *to = row[column].signed();
            }
        }
    }
}

#[inline(always)]
fn signed<W: Weight>(weights: &[W; BYTES]) -> Bytes {
    let mut bytes = [0; BYTES];
    for (to, from) in bytes.iter_mut().zip(weights) {
        *to = from.signed();
    }
    bytes
}
