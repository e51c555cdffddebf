//! From a kernel's accumulators to the output, in registers: the loops around the formulas of `finish512` or `finish256`.

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

/// `$store` for each vector of a tile: with the row that it belongs to, its number in it, and its sums plus offsets.
macro_rules! each_vector {
    ($isa:ident, $sums:ident + $offsets:ident, $M:ident x $V:ident => $out:ident, |$row:ident, $v:ident, $sum:ident| $store:block) => {
        store::unrolled!(i in $M, {
            let $row = $out.row_mut(i).unwrap_or_default();
            store::unrolled!($v in $V, {
                let $sum = $isa::add($sums[i][$v], $offsets[$v]);
                $store;
            });
        })
    };
}
pub(super) use each_vector;

/// Stores `$sums`, the complete int32 sums of a tile (an array of `$M` rows of `$V` vectors), through its output stage, with
/// the vector functions of module `$isa`.
///
/// A macro, since a function with target features cannot be `#[inline(always)]`, and out of line it would take the
/// accumulators through memory.
macro_rules! store {
    ($isa:ident, $sums:ident, $store:expr, $M:ident, $V:ident) => {{
        let Store { finish, channels, target } = $store;
        let offsets = $isa::load_i32s::<$V>(&finish.offsets[channels.clone()]);
        match target {
            Target::I32(out) => {
                store::each_vector!($isa, $sums + offsets, $M x $V => out, |row, v, sum| {
                    $isa::store_i32s(row, v, sum)
                });
            }
            Target::F32(out) => {
                let factors = $isa::load_f32s::<$V>(&finish.factors[channels.clone()]);
                let bias = match finish.float_bias {
                    Some(bias) => $isa::load_f32s::<$V>(&bias[channels.clone()]),
                    None => [$isa::splat(-0.0); $V],
                };
                let floor = $isa::splat(if finish.relu { 0.0 } else { f32::NEG_INFINITY });
                store::each_vector!($isa, $sums + offsets, $M x $V => out, |row, v, sum| {
                    $isa::store_f32s(row, v, $isa::dequantize(sum, factors[v], bias[v], floor))
                });
            }
            Target::I8(out) => {
                let factors = $isa::load_f32s::<$V>(&finish.factors[channels.clone()]);
                store::each_vector!($isa, $sums + offsets, $M x $V => out, |row, v, sum| {
                    $isa::store_i8s(row, v, $isa::requantize(sum, factors[v], &finish.codes))
                });
            }
            Target::U8(out) => {
                let factors = $isa::load_f32s::<$V>(&finish.factors[channels.clone()]);
                store::each_vector!($isa, $sums + offsets, $M x $V => out, |row, v, sum| {
                    $isa::store_u8s(row, v, $isa::requantize(sum, factors[v], &finish.codes))
                });
            }
        }
    }};
}
pub(super) use store;
