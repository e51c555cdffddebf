//! Weights with minimums, or with groups in parts. The integer scale of a part multiplies its
//! weights as they are widened to words, which hold the product of two i8. So parts take one
//! instruction for each vector of weights, whatever the rows, and the sums of a group are one.

use super::super::nibbles256::part_sums::activation_sums;
use super::super::simd::{AHEAD, load_i8x8_as_i16_pairs, multiply_words, prefetch, store_i16x16};
use super::super::tile::{Lines, rows_apart};
use super::super::vec256;
use super::steps::{LANES, VECTOR_WEIGHTS, broadcast, load_weights, multiply_add};
use crate::kernel::scaled_tile::ScaledTile;

/// M rows, V vectors of columns.
#[target_feature(enable = "avx2")]
pub(super) fn scaled_parts<const M: usize, const V: usize>(tile: &mut ScaledTile<'_>) {
    if tile.part_scales.is_empty() { body::<M, V, false>(tile) } else { body::<M, V, true>(tile) }
}

/// SCALED if parts have scales.
#[inline(never)] // as in `tile_body`
#[expect(clippy::needless_range_loop, reason = "constant indices, which the compiler can unroll")]
#[target_feature(enable = "avx2")]
fn body<const M: usize, const V: usize, const SCALED: bool>(tile: &mut ScaledTile<'_>) {
    let (steps, nr) = (tile.steps, tile.nr);
    let rows = rows_apart::<M>(tile.a, tile.a_stride, 4 * steps);
    // Two steps at a time, as in `scaled_body`.
    let mut a: [&[[u8; 4]]; M] = [&[]; M];
    let mut a_pairs: [&[[[u8; 4]; 2]]; M] = [&[]; M];
    for i in 0..M {
        a[i] = rows[i].as_chunks::<4>().0;
        a_pairs[i] = &a[i].as_chunks::<2>().0[..steps / 2];
    }
    let b = &tile.b.as_chunks::<VECTOR_WEIGHTS>().0.as_chunks::<V>().0[..steps];
    let b_pairs = &b.as_chunks::<2>().0[..steps / 2];
    let of_all = &tile.factors[..M];
    // Adding -0.0 changes nothing.
    let Lines(y) = &mut Lines([[[-0.0f32; LANES]; V]; M]);
    let (mut start, mut part, mut g) = (0, 0, 0);
    while start < steps {
        let end = steps.min(start + tile.group_steps);
        // Before there are sums, which would make way for what a choice between two forms needs.
        let scales = vec256::load_floats::<V>(tile.scales, g * nr);
        let has_minimums = !tile.minimums.is_empty();
        let mut minimums = scales;
        if has_minimums {
            minimums = vec256::load_floats::<V>(tile.minimums, g * nr);
        }
        let factors =
            if tile.factor_stride == 0 { of_all } else { &tile.factors[g * tile.factor_stride..][..M] };
        let first_part = part;
        let mut acc = [[vec256::zero(); V]; M];
        while start < end {
            let stop = end.min(start + tile.part_steps);
            let Lines(times) = &mut Lines([[0i16; VECTOR_WEIGHTS]; V]);
            if SCALED {
                let of_columns = tile.part_scales[part * nr..][..V * LANES].as_chunks::<LANES>().0;
                for v in 0..V {
                    store_i16x16(&mut times[v], load_i8x8_as_i16_pairs(&of_columns[v]));
                }
            }
            macro_rules! add_step {
                ($b:expr, |$i:ident| $a:expr) => {
                    let mut w = [vec256::zero(); V];
                    for v in 0..V {
                        w[v] = load_weights(&$b[v]);
                        if SCALED {
                            w[v] = multiply_words(w[v], &times[v]);
                        }
                    }
                    for $i in 0..M {
                        let x = broadcast($a);
                        for v in 0..V {
                            acc[$i][v] = multiply_add(acc[$i][v], x, w[v]);
                        }
                    }
                };
            }
            for pair in start / 2..stop / 2 {
                prefetch(&b_pairs[pair], AHEAD);
                for u in 0..2 {
                    add_step!(b_pairs[pair][u], |i| a_pairs[i][pair][u]);
                }
            }
            if stop % 2 == 1 {
                add_step!(b[stop - 1], |i| a[i][stop - 1]);
            }
            if let Some(of_rows) = tile.row_terms.get(part * tile.term_stride..) {
                let zero_points = tile.zero_points.get(g * nr..g * nr + V * LANES).unwrap_or_default();
                for (v, zero_points) in zero_points.as_chunks().0.iter().enumerate() {
                    let mut of_columns = vec256::widen_i8s(zero_points);
                    if SCALED {
                        let times = &tile.part_scales[part * nr..].as_chunks().0[v];
                        let times = vec256::widen_i8s(times);
                        of_columns = vec256::add_product(vec256::zero(), of_columns, times);
                    }
                    for i in 0..M {
                        acc[i][v] = vec256::subtract_product(acc[i][v], of_rows[i], of_columns);
                    }
                }
            }
            (start, part) = (stop, part + 1);
        }
        if let Some(terms) = tile.column_terms.get(g * nr..g * nr + V * LANES) {
            let terms = vec256::load_i32s::<V>(terms);
            for i in 0..M {
                for v in 0..V {
                    acc[i][v] = vec256::subtract_product(acc[i][v], tile.origins[i], terms[v]);
                }
            }
        }
        // Loops of their own, which the compiler unrolls. One with choices in it, it does not.
        if !has_minimums {
            for i in 0..M {
                let factor = vec256::splat(factors[i]);
                for v in 0..V {
                    let term = vec256::scale(acc[i][v], vec256::multiply(factor, scales[v]));
                    vec256::add_to(&mut y[i][v], term);
                }
            }
        } else if tile.part_minimums.is_empty() {
            for i in 0..M {
                let value = tile.part_sums.of_row(i, first_part..part) as f32;
                let (factor, value) = (vec256::splat(factors[i]), vec256::splat(value));
                for v in 0..V {
                    let term = vec256::scale(acc[i][v], vec256::multiply(factor, scales[v]));
                    let minimum = vec256::multiply(vec256::multiply(factor, minimums[v]), value);
                    vec256::add_to(&mut y[i][v], vec256::add_f32s(term, minimum));
                }
            }
        } else {
            let values = activation_sums::<M, V>(&tile.part_sums, tile.part_minimums, g, first_part..part);
            for i in 0..M {
                let factor = vec256::splat(factors[i]);
                for v in 0..V {
                    let term = vec256::scale(acc[i][v], vec256::multiply(factor, scales[v]));
                    let minimum = vec256::scale(values[i][v], vec256::multiply(factor, minimums[v]));
                    vec256::add_to(&mut y[i][v], vec256::add_f32s(term, minimum));
                }
            }
        }
        g += 1;
    }
    let to = &mut tile.y.as_chunks_mut::<LANES>().0.as_chunks_mut::<V>().0[..M];
    to.copy_from_slice(y);
}
