//! Products with a scale for each group of k, for kernels that have no body of their own for them.

use core::ops::Range;

use qcore::{group_term, group_term_with_minimum};

use crate::cpu::vectorize::Task;
use crate::kernel::desc::{ActivationForm, KernelDesc};
use crate::kernel::scaled_tile::ScaledTile;

/// The body for any layout, in plain code.
pub(crate) struct PlainScaled<'p, 't> {
    pub(crate) tile: &'p mut ScaledTile<'t>,
    pub(crate) desc: &'static KernelDesc,
}

impl Task for PlainScaled<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { tile, desc } = self;
        for i in 0..tile.rows {
            for j in 0..tile.columns {
                tile.y[i * tile.columns + j] = sum_of_terms(tile, desc, i, j);
            }
        }
    }
}

/// The result of a row and a column.
#[inline(always)]
fn sum_of_terms(tile: &ScaledTile<'_>, desc: &KernelDesc, i: usize, j: usize) -> f32 {
    let integer = |of: Option<&i8>| of.map_or(1, |&integer| i32::from(integer));
    // Adding -0.0 changes nothing.
    let mut y = -0.0;
    let (mut start, mut part, mut g) = (0, 0, 0);
    while start < tile.steps {
        let end = tile.steps.min(start.saturating_add(tile.group_steps));
        let of_group = g * tile.nr + j;
        // All of these wrap. The sums of the group fit.
        let (mut sum, mut value) = (0i32, 0i32);
        while start < end {
            let stop = end.min(start.saturating_add(tile.part_steps));
            let of_part = part * tile.nr + j;
            let mut of_products = products(tile, desc, i, j, start..stop);
            if let Some(&zero_point) = tile.zero_points.get(of_group) {
                let of_row = tile.row_terms[part * tile.term_stride + i];
                of_products = of_products.wrapping_sub(of_row.wrapping_mul(zero_point.into()));
            }
            let times = integer(tile.part_scales.get(of_part));
            sum = sum.wrapping_add(of_products.wrapping_mul(times));
            if let Some(of_row) = tile.part_sums.of_parts.get(part * tile.part_sums.stride + i) {
                value = value.wrapping_add(of_row.wrapping_mul(integer(tile.part_minimums.get(of_part))));
            }
            (start, part) = (stop, part + 1);
        }
        if let Some(of_column) = tile.column_terms.get(of_group) {
            sum = sum.wrapping_sub(tile.origins[i].wrapping_mul(*of_column));
        }
        let (factor, scale) = (tile.factors[g * tile.factor_stride + i], tile.scales.at(of_group));
        y += if tile.minimums.is_empty() {
            group_term(factor, scale, sum)
        } else {
            group_term_with_minimum(factor, scale, sum, tile.minimums.at(of_group), value)
        };
        g += 1;
    }
    y
}

/// The sum of the products of a row and a column over some steps, wrapping.
#[inline(always)]
fn products(tile: &ScaledTile<'_>, desc: &KernelDesc, i: usize, j: usize, steps: Range<usize>) -> i32 {
    let (together, bytes) = (desc.rows_together(tile.rows), desc.group_bytes());
    let (a, b) = (&tile.a[i / desc.band * tile.a_stride..], tile.b);
    if together == 1 && tile.columns == 1 {
        // All k lie side by side.
        return dot(&a[steps.start * bytes..steps.end * bytes], &b[steps.start * desc.kr..], desc.form);
    }
    steps.fold(0i32, |sum, step| {
        let a = &a[(step * together + i % together) * bytes..][..bytes];
        sum.wrapping_add(dot(a, &b[(step * tile.columns + j) * desc.kr..], desc.form))
    })
}

/// The sum of the products of codes in a kernel's form and as many weights, wrapping.
#[inline(always)]
fn dot(a: &[u8], b: &[i8], form: ActivationForm) -> i32 {
    #[inline(always)]
    fn sum<X: Into<i32>>(a: impl Iterator<Item = X>, b: &[i8]) -> i32 {
        a.zip(b).fold(0i32, |sum, (x, &w)| sum.wrapping_add(x.into() * i32::from(w)))
    }
    match form {
        ActivationForm::U8 => sum(a.iter().copied(), b),
        ActivationForm::I8 => sum(a.iter().map(|x| x.cast_signed()), b),
        ActivationForm::I16 => sum(a.as_chunks().0.iter().map(|&x| i16::from_ne_bytes(x)), b),
    }
}
