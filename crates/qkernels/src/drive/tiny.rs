//! Products of a few numbers. They are computed one after the other from the packed panels, because
//! calling a kernel would take longer.

use crate::drive::nest::Product;
use crate::left::rows::Source;
use crate::matrix::view::MatMut;
use crate::output::curve;
use crate::output::operands::RowTerms;
use crate::output::stage::sealed::Stored;
use crate::output::target::Target;
use crate::output::tile::{Place, StoredTile};

/// The most products (m * n * k) that are computed this way. This takes a third of the time of a
/// kernel for 1 product, half of it for 4 and all of it for 16 (AMD Zen 4).
const MOST: usize = 4;

/// Whether a product of `m` x `n` x `k` is computed this way.
pub(crate) fn fits(m: usize, n: usize, k: usize) -> bool {
    m <= MOST && n <= MOST && k <= MOST && m * n * k.max(1) <= MOST
}

/// Computes `product`, which [fits], into the whole of `out`. The sums of its channels begin with
/// `bias`; its offsets are not used.
pub(crate) fn run<S: Source, T: Stored>(
    product: &Product<'_, S>,
    bias: Option<&[i32]>,
    mut out: MatMut<'_, T>,
) {
    let Product { a, w, first_channel, stage, row_terms } = *product;
    let (m, n, k) = (a.rows(), stage.channel_sums.len(), a.cols());
    let (mut acc, mut row_sums) = ([0; MOST], [0; MOST]);
    for i in 0..m {
        let mut codes = [[0; 2]; MOST];
        a.copy_words(i, &mut codes[..k]);
        // This wraps as everything else does. A total fits int32, but a zero point alone may be any
        // distance away if the weights beside it are 0.
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
    let row_terms = RowTerms { sums: row_sums, ..row_terms };
    let place = Place { stage, channels: 0..n, first_row: 0, row_terms, origin: (0, 0) };
    let tile = StoredTile::<true> { place: &place, first: 0, acc: &acc[..m * n], stride: n };
    if stage.function_fits_registers() {
        T::store(&tile, &mut out);
    } else {
        store_curve(&tile, &mut T::target(out));
    }
}

/// Never inlined. [`run`] is compiled for each type of activations and stage in each crate that
/// uses it, and would take all functions along.
#[inline(never)]
fn store_curve(tile: &StoredTile<'_, true>, target: &mut Target<'_>) {
    curve::store(tile, target);
}
