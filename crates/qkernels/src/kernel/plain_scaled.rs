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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::group_floats::GroupFloats;
    use crate::kernel::part_sums::PartSums;
    use crate::kernels::portable;
    use crate::matrix::workspace::MOST_ROWS;

    const STEPS: usize = 7;
    const PART_STEPS: usize = 2;
    /// Three parts and a shorter last group.
    const GROUP_STEPS: usize = 6;
    const NR: usize = 5;

    #[test]
    fn every_layout_of_rows_and_panels_is_read() {
        use ActivationForm::{I8, I16, U8};
        check(&portable::KERNEL, 1);
        for (mr, band, kr, form) in
            [(4, 4, 4, I8), (8, 2, 8, I8), (6, 2, 2, I16), (3, 1, 4, U8), (2, 1, 1, I16)]
        {
            for columns in [1, 2, NR] {
                check(&KernelDesc { mr, band, kr, form, ..portable::KERNEL }, columns);
            }
        }
    }

    fn check(desc: &KernelDesc, columns: usize) {
        for rows in 1..=desc.mr {
            check_tile(desc, rows, columns);
        }
    }

    /// A tile with all that there can be, of small numbers: every sum is exact in f32.
    fn check_tile(desc: &KernelDesc, rows: usize, columns: usize) {
        let k = STEPS * desc.kr;
        let activation = |i: usize, k: usize| ((i * 7 + k * 5) % 11) as i32;
        let weight = |k: usize, j: usize| ((j * 3 + k * 7) % 13) as i32 - 6;
        let integer = |index: usize| (index % 3) as i8 + 1;
        let (parts, groups) = (STEPS.div_ceil(PART_STEPS), STEPS.div_ceil(GROUP_STEPS));
        let of_part = |part: usize| part * PART_STEPS * desc.kr..k.min((part + 1) * PART_STEPS * desc.kr);
        let group_of = |part: usize| part * PART_STEPS / GROUP_STEPS;

        let together = desc.rows_together(rows);
        let a_stride = STEPS * desc.band * desc.group_bytes();
        let mut a = vec![0; desc.bands(rows) * a_stride];
        let mut b = vec![0; k * columns];
        for (step, t) in (0..STEPS).flat_map(|step| (0..desc.kr).map(move |t| (step, t))) {
            for i in 0..rows {
                let group = i / desc.band * a_stride + (step * together + i % together) * desc.group_bytes();
                let code = activation(i, step * desc.kr + t) as i16;
                match desc.form {
                    ActivationForm::I16 => a[group + 2 * t..][..2].copy_from_slice(&code.to_ne_bytes()),
                    ActivationForm::U8 | ActivationForm::I8 => a[group + t] = code as u8,
                }
            }
            for j in 0..columns {
                b[(step * columns + j) * desc.kr + t] = weight(step * desc.kr + t, j) as i8;
            }
        }
        let entries = |count: usize| (0..count * NR).map(integer).collect::<Vec<i8>>();
        let (zero_points, part_scales, part_minimums) = (entries(groups), entries(parts), entries(parts));
        let floats: Vec<f32> = (0..groups * NR).map(|at| (at + 1) as f32 / 4.0).collect();
        let sum = |part: usize, i: usize| of_part(part).map(|k| activation(i, k)).sum::<i32>();
        let row_terms: Vec<i32> = (0..parts)
            .flat_map(|part| (0..rows).map(move |i| (part, i)))
            .map(|(part, i)| sum(part, i))
            .collect();
        let (column_terms, factors) = (vec![3; groups * NR], vec![0.5; rows]);
        let mut y = vec![f32::NAN; rows * columns];
        let tile = ScaledTile {
            a: &a,
            a_stride,
            b: &b,
            columns,
            steps: STEPS,
            group_steps: GROUP_STEPS,
            scales: GroupFloats::F32(&floats),
            nr: NR,
            zero_points: &zero_points,
            row_terms: &row_terms,
            term_stride: rows,
            origins: core::array::from_fn::<_, MOST_ROWS, _>(|i| i as i32),
            column_terms: &column_terms,
            part_steps: PART_STEPS,
            part_scales: &part_scales,
            minimums: GroupFloats::F32(&floats),
            part_minimums: &part_minimums,
            part_sums: PartSums { of_parts: &row_terms, pairs: &[], group_pairs: 0, stride: rows },
            rows,
            factors: &factors,
            factor_stride: 0,
            y: &mut y,
        };
        for (i, j) in (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j))) {
            let mut expected = 0.0;
            for g in 0..groups {
                let (mut products, mut values) = (-3 * i as i32, 0);
                for part in (0..parts).filter(|&part| group_of(part) == g) {
                    let zero_point = i32::from(zero_points[g * NR + j]);
                    let of_products: i32 =
                        of_part(part).map(|k| activation(i, k) * (weight(k, j) - zero_point)).sum();
                    products += of_products * i32::from(part_scales[part * NR + j]);
                    values += sum(part, i) * i32::from(part_minimums[part * NR + j]);
                }
                expected += 0.5 * floats[g * NR + j] * (products + values) as f32;
            }
            assert_eq!(sum_of_terms(&tile, desc, i, j), expected, "{desc:?}, row {i} of {rows}, column {j}");
        }
    }
}
