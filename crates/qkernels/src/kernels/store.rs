//! From a kernel's accumulators to the output, in registers, for all architectures: the loops around the formulas of
//! their `finish512`, `finish256` and `finish128`.

/// The block once for each `$i` below `$bound`, a constant of at most 8.
///
/// The compiler keeps an array in registers only if it sees nothing but constant indices early on; it unrolls loops this
/// large too late, or not at all.
macro_rules! unrolled {
    ($i:ident in $bound:ident, $block:block) => {
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

/// Stores `$value` for each vector of a tile whose first row is `$first`, given the number of its row, its own number in it and
/// its sums plus offsets: by `$isa::$store`, or by `$isa::$store_edge` where the output has not all of the tile's columns.
macro_rules! each_vector {
    ($isa:ident, $sums:ident + $offsets:ident, $M:ident x $V:ident from $first:ident, $out:ident, $store:ident | $store_edge:ident, |$i:ident, $v:ident, $sum:ident| $value:expr) => {
        if let Some(rows) = $out.tile_mut::<$M, $V, { $isa::LANES }>($first) {
            store::unrolled!(r in $M, {
                let $i = $first + r;
                store::unrolled!($v in $V, {
                    let $sum = $isa::add($sums[r][$v], $offsets[$v]);
                    $isa::$store(&mut rows[r][$v], $value);
                });
            });
        } else {
            store::unrolled!(r in $M, {
                let $i = $first + r;
                let row = $out.row_mut($i).unwrap_or_default();
                store::unrolled!($v in $V, {
                    let $sum = $isa::add($sums[r][$v], $offsets[$v]);
                    $isa::$store_edge(row, $v, $value);
                });
            });
        }
    };
}
pub(super) use each_vector;

/// Stores `$sums`, the complete int32 sums of the tile (an array of `$M` rows of `$V` vectors) whose first row is `$first`,
/// through its output stage, with the vector functions of module `$isa`.
///
/// A macro, since a function with target features cannot be `#[inline(always)]`, and out of line it would take the
/// accumulators through memory.
macro_rules! store {
    ($isa:ident, $sums:ident, $store:expr, $first:expr, $M:ident, $V:ident) => {{
        let Store { finish, channels, row_terms, target, .. } = $store;
        let first = $first;
        let offsets = $isa::load_i32s::<$V>(&finish.offsets[channels.clone()]);
        match target {
            Target::I32(out) => store::each_vector!(
                $isa, $sums + offsets, $M x $V from first, out, store_i32s | store_edge_i32s,
                |_i, v, sum| sum
            ),
            Target::F32(out) => {
                let factors = $isa::load_f32s::<$V>(&finish.factors[channels.clone()]);
                let bias = match finish.float_bias {
                    Some(bias) => $isa::load_f32s::<$V>(&bias[channels.clone()]),
                    None => [$isa::splat(-0.0); $V],
                };
                let floor = $isa::splat(if finish.relu { 0.0 } else { f32::NEG_INFINITY });
                if row_terms.factors.is_empty() && row_terms.zero_points.is_empty() {
                    store::each_vector!(
                        $isa, $sums + offsets, $M x $V from first, out, store_f32s | store_edge_f32s,
                        |_i, v, sum| $isa::dequantize(sum, factors[v], bias[v], floor)
                    )
                } else {
                    let channel_sums = $isa::load_i32s::<$V>(&finish.channel_sums[channels.clone()]);
                    store::each_vector!(
                        $isa, $sums + offsets, $M x $V from first, out, store_f32s | store_edge_f32s,
                        |i, v, sum| {
                            let zero_point = row_terms.zero_points.get(i).copied().unwrap_or(0);
                            let sum = $isa::subtract_product(sum, zero_point, channel_sums[v]);
                            let row_factor = row_terms.factors.get(i).copied().unwrap_or(1.0);
                            let factor = $isa::multiply($isa::splat(row_factor), factors[v]);
                            $isa::dequantize(sum, factor, bias[v], floor)
                        }
                    )
                }
            }
            Target::F16(_) | Target::Bf16(_) => unreachable!("`Store::fits_registers` leaves these in L1"),
            Target::I8(out) => {
                let factors = $isa::load_f32s::<$V>(&finish.factors[channels.clone()]);
                store::each_vector!(
                    $isa, $sums + offsets, $M x $V from first, out, store_i8s | store_edge_i8s,
                    |_i, v, sum| $isa::requantize(sum, factors[v], &finish.codes)
                )
            }
            Target::U8(out) => {
                let factors = $isa::load_f32s::<$V>(&finish.factors[channels.clone()]);
                store::each_vector!(
                    $isa, $sums + offsets, $M x $V from first, out, store_u8s | store_edge_u8s,
                    |_i, v, sum| $isa::requantize(sum, factors[v], &finish.codes)
                )
            }
        }
    }};
}
pub(super) use store;
