//! Products of a few numbers, read off the packed panels one after the other: calling a kernel takes longer than they do.

use crate::drive::nest::Product;
use crate::left::rows::Source;
use crate::output::operands::RowTerms;
use crate::output::store::{Place, Store};
use crate::output::target::Target;

/// The most products (m * n * k) that are computed so: 1 takes a third of the time that it takes by a kernel, 4 take half of it and 16
/// all (AMD Zen 4).
const MOST: usize = 4;

/// Whether a product of `m` x `n` x `k` is computed so.
pub(crate) fn fits(m: usize, n: usize, k: usize) -> bool {
    m <= MOST && n <= MOST && k <= MOST && m * n * k.max(1) <= MOST
}

/// Computes `product`, which [fits], into the whole of `target`. The sums of its channels begin with `bias`; its offsets
/// are not used.
pub(crate) fn run<S: Source>(product: &Product<'_, S>, bias: Option<&[i32]>, target: &mut Target<'_>) {
    let Product { a, w, first_channel, stage, row_terms } = product;
    let (m, n, k) = (a.rows(), stage.channel_sums.len(), a.cols());
    let (mut acc, mut row_sums) = ([0; MOST], [0; MOST]);
    for i in 0..m {
        let mut codes = [[0; 2]; MOST];
        a.copy_words(i, &mut codes[..k]);
        // Wrapping, as everywhere: a total fits int32, but a zero point alone may be as far off as it likes beside weights of 0.
        let distances = codes.map(|code| i32::from(i16::from_ne_bytes(code)).wrapping_sub(a.zero_point()));
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
    let row_terms = RowTerms { sums: row_sums, ..*row_terms };
    let mut store =
        Store { place: Place { stage, channels: 0..n, first_row: 0, row_terms, origin: (0, 0) }, target };
    store.apply(0, &acc[..m * n], n);
}
