//! From a kernel's accumulators to the output, in registers. These are the loops for all
//! architectures; the formulas are in their `vec512`, `vec256` and `vec128`.

use core::ops::Range;

use crate::matrix::view::MatMut;
pub(super) use crate::output::tile::Place;

/// Repeats the block once for each `$i` below `$bound`, a constant of at most 8.
///
/// The compiler keeps an array in registers only if it sees nothing but constant indices early on.
/// It unrolls loops this large too late, or not at all.
macro_rules! unrolled {
    ($i:ident in $bound:ident, $block:block) => {
        const { assert!($bound <= 8, "a larger bound would drop stores: more indices below") };
        store::unrolled!($i in $bound, $block, 0 1 2 3 4 5 6 7)
    };
    ($i:ident in $bound:ident, $block:block, $($index:literal)*) => {
        $(if $index < $bound {
            let $i = $index;
            $block
        })*
    };
}
pub(super) use unrolled;

/// Stores `$value` for each vector of a tile by `$isa::$store`. The tile's first row is row
/// `$first` of its strip. `$value` is given the number of the vector's row, the number of the
/// vector in that row, and its sums. The strip begins at `$origin` of the output. If the output
/// does not hold the whole tile, its elements go through `$scratch`.
macro_rules! each_vector {
    ($isa:ident, $sums:ident, $M:ident x $V:ident from $first:ident, $out:ident at $origin:ident | $scratch:ident, $store:ident, |$i:ident, $v:ident, $sum:ident| $value:expr) => {{
        let scratch = bytemuck::must_cast_slice_mut::<i32, _>($scratch);
        let (row, column) = ($origin.0 + $first, $origin.1);
        let (rows, whole) = match $out.tile_mut::<$M, $V, { $isa::LANES }>(row, column) {
            Some(rows) => (rows, true),
            None => (store::rows_of(scratch), false),
        };
        store::unrolled!(r in $M, {
            let $i = $first + r;
            store::unrolled!($v in $V, {
                let $sum = $sums[r][$v];
                $isa::$store(&mut rows[r][$v], $value);
            });
        });
        if !whole {
            store::copy_rows(scratch, $V * $isa::LANES, $out, row..row + $M, column);
        }
    }};
}
pub(super) use each_vector;

/// The first M * V * L elements, as M rows of V vectors of L.
#[inline(always)]
pub(super) fn rows_of<T, const M: usize, const V: usize, const L: usize>(
    scratch: &mut [T],
) -> [&mut [[T; L]; V]; M] {
    match scratch.as_chunks_mut::<L>().0.as_chunks_mut::<V>().0.first_chunk_mut::<M>() {
        Some(rows) => rows.each_mut(),
        None => unreachable!("a tile's sums are as many as its elements"),
    }
}

/// Copies rows of `stride` elements to the rows `to` of `out`, from `column` on, as far as those
/// rows reach.
#[inline(never)]
pub(super) fn copy_rows<T: Copy>(
    rows: &[T],
    stride: usize,
    out: &mut MatMut<'_, T>,
    to: Range<usize>,
    column: usize,
) {
    for (i, row) in to.zip(rows.chunks_exact(stride)) {
        let Some(out) = out.row_mut(i).and_then(|row| row.get_mut(column..)) else { return };
        out.iter_mut().zip(row).for_each(|(to, from)| *to = *from);
    }
}

/// Stores `$sums` through the tile's output stage, with the vector functions of module `$isa`. They
/// are the complete int32 sums of the tile (an array of `$M` rows of `$V` vectors) whose first row
/// is `$first`.
///
/// This is a macro, because a function with target features cannot be `#[inline(always)]`, and out
/// of line it would take the accumulators through memory. `$scratch` has room for the tile's sums.
macro_rules! store {
    ($isa:ident, $sums:ident, $store:expr, $scratch:expr, $first:expr, $M:ident, $V:ident) => {{
        let Store { place: store::Place { stage, channels, row_terms, origin, .. }, target } = $store;
        let (first, scratch) = ($first, &mut *$scratch);
        match target {
            Target::I32(out) => {
                store::each_vector!($isa, $sums, $M x $V from first, out at origin | scratch, store_i32s, |_i, v, sum| sum)
            }
            Target::F32(out) => {
                let factors = $isa::load_f32s::<$V>(&stage.factors[channels.clone()]);
                // Adding -0.0 changes nothing.
                let bias = match stage.float_bias {
                    Some(bias) => $isa::load_f32s::<$V>(&bias[channels.clone()]),
                    None => [$isa::splat(-0.0); $V],
                };
                let floor = $isa::splat(if stage.relu() { 0.0 } else { f32::NEG_INFINITY });
                if !row_terms.factors.is_empty() || !row_terms.zero_points.is_empty() {
                    let channel_sums = $isa::load_i32s::<$V>(&stage.channel_sums[channels.clone()]);
                    store::each_vector!($isa, $sums, $M x $V from first, out at origin | scratch, store_f32s, |i, v, sum| {
                        let zero_point = row_terms.zero_points.get(i).copied().unwrap_or(0);
                        let sum = $isa::subtract_product(sum, zero_point, channel_sums[v]);
                        let row_factor = row_terms.factors.get(i).copied().unwrap_or(1.0);
                        let factor = $isa::multiply($isa::splat(row_factor), factors[v]);
                        $isa::floor($isa::dequantize(sum, factor, bias[v]), floor)
                    })
                } else if stage.relu() {
                    store::each_vector!($isa, $sums, $M x $V from first, out at origin | scratch, store_f32s, |_i, v, sum| {
                        $isa::floor($isa::dequantize(sum, factors[v], bias[v]), floor)
                    })
                } else {
                    store::each_vector!($isa, $sums, $M x $V from first, out at origin | scratch, store_f32s, |_i, v, sum| {
                        $isa::dequantize(sum, factors[v], bias[v])
                    })
                }
            }
            Target::I8(out) => {
                let factors = $isa::load_f32s::<$V>(&stage.factors[channels.clone()]);
                store::each_vector!($isa, $sums, $M x $V from first, out at origin | scratch, store_i8s, |_i, v, sum| {
                    $isa::requantize(sum, factors[v], &stage.codes)
                })
            }
            Target::U8(out) => {
                let factors = $isa::load_f32s::<$V>(&stage.factors[channels.clone()]);
                store::each_vector!($isa, $sums, $M x $V from first, out at origin | scratch, store_u8s, |_i, v, sum| {
                    $isa::requantize(sum, factors[v], &stage.codes)
                })
            }
            Target::F16(_) | Target::Bf16(_) => unreachable!("`output::target::fits_registers` leaves these in L1"),
        }
    }};
}
pub(super) use store;
