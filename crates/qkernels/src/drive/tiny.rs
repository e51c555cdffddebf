//! Products of a few numbers. They are computed one after the other from the packed panels, because
//! calling a kernel would take longer.

use crate::drive::nest::Product;
use crate::left::rows::Source;
use crate::output::operands::{RowTerms, StageOperands};
use crate::output::store::Store;
use crate::output::target::Target;
use crate::output::tile::Place;
use crate::weights::packed::PackedWeights;

/// The most products (m * n * k) that are computed this way. This takes a third of the time of a
/// kernel for 1 product, half of it for 4 and all of it for 16 (AMD Zen 4).
const MOST: usize = 4;

/// Whether a product of `m` x `n` x `k` is computed this way.
pub(crate) fn fits(m: usize, n: usize, k: usize) -> bool {
    m <= MOST && n <= MOST && k <= MOST && m * n * k.max(1) <= MOST
}

/// Computes `product`, which [fits], into the whole of `target`. The sums of its channels begin
/// with `bias`; its offsets are not used.
pub(crate) fn run<S: Source>(product: &Product<'_, S>, bias: Option<&[i32]>, target: &mut Target<'_>) {
    let Product { a, w, first_channel, stage, row_terms } = *product;
    let mut codes = [[[0; 2]; MOST]; MOST];
    for (i, row) in codes.iter_mut().enumerate().take(a.rows()) {
        a.copy_words(i, &mut row[..a.cols()]);
    }
    let rows = Rows { codes: &codes[..a.rows()], k: a.cols(), zero_point: a.zero_point() };
    multiply(rows, w, first_channel, bias, stage, row_terms, target);
}

/// The rows of a product, as words.
struct Rows<'t> {
    codes: &'t [[[u8; 2]; MOST]],
    k: usize,
    zero_point: i32,
}

/// Never inlined: [`run`] is compiled for each type of activations in each crate that uses it, and
/// each copy would include all output stages.
#[inline(never)]
fn multiply(
    rows: Rows<'_>,
    w: &PackedWeights,
    first_channel: usize,
    bias: Option<&[i32]>,
    stage: &StageOperands<'_>,
    row_terms: RowTerms<'_>,
    target: &mut Target<'_>,
) {
    let (m, n, k) = (rows.codes.len(), stage.channel_sums.len(), rows.k);
    let (mut acc, mut row_sums) = ([0; MOST], [0; MOST]);
    for (i, codes) in rows.codes.iter().enumerate() {
        // Wrapping, as everywhere. The total fits int32, but a zero point alone may be arbitrarily
        // far off if the weights beside it are 0.
        let distances = codes.map(|code| i32::from(i16::from_ne_bytes(code)).wrapping_sub(rows.zero_point));
        row_sums[i] = distances[..k].iter().fold(0i32, |sum, &distance| sum.wrapping_add(distance));
        for j in 0..n {
            let channel = first_channel + j;
            let start = bias.map_or(0, |bias| bias[channel]);
            acc[i * n + j] = distances[..k].iter().enumerate().fold(start, |sum, (k, distance)| {
                sum.wrapping_add(distance.wrapping_mul(i32::from(w.weight(channel, k))))
            });
        }
    }
    let row_sums = if stage.zero_points.is_empty() { &[] } else { &row_sums[..m] };
    let row_terms = RowTerms { sums: row_sums, ..row_terms };
    let place = Place { stage, channels: 0..n, first_row: 0, row_terms, origin: (0, 0) };
    Store { place, target }.apply(0, &acc[..m * n], n);
}
