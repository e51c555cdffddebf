//! Weight-only products of many rows: kernels may expand panels to f32 for them, and must give each
//! row the bits that it has alone, whatever the form of the weights.

use qkernels::{FloatStage, Kernel, MatMut, MatRef, ScaledWeights, Threads, Workspace, weight_only};

use crate::oracle::Noise;
use crate::oracle::in_parts::Layer;

/// Rows of the largest batch: more than any kernel's threshold, and no multiple of a tile.
const BATCH: usize = 41;

fn product(a: &[f32], m: usize, w: &ScaledWeights, bias: &[f32], workspace: &mut Workspace) -> Vec<u32> {
    let mut y = vec![f32::NAN; m * w.n()];
    let (a, out) = (MatRef::new(a, m, w.k()).unwrap(), MatMut::new(&mut y, m, w.n()).unwrap());
    let stage = FloatStage::new().with_bias(bias).unwrap();
    weight_only(a, w, &stage, out, Threads::Serial, workspace).unwrap();
    y.into_iter().map(f32::to_bits).collect()
}

/// Batches of all sizes, also those that begin amid the rows, beside the rows alone.
fn check(noise: &mut Noise, workspace: &mut Workspace, layer: &Layer) {
    let (n, k) = (layer.n, layer.k);
    let mut a = noise.floats(BATCH * k, 0.01);
    // Zeros of both signs, which sums keep apart.
    a.iter_mut().step_by(7).for_each(|a| *a *= 0.0);
    for kernel in Kernel::available() {
        let w = layer.packed(kernel);
        let mut rows = |first: usize, count: usize| {
            product(&a[first * k..][..count * k], count, &w, &layer.bias, workspace)
        };
        let alone: Vec<u32> = (0..BATCH).flat_map(|i| rows(i, 1)).collect();
        for count in (4..=20).chain(31..=BATCH) {
            let first = (BATCH - count) / 2;
            let expected = &alone[first * n..][..count * n];
            assert!(rows(first, count) == expected, "{kernel}, {count} rows of {}", layer.form());
        }
    }
}

#[test]
fn a_row_has_its_bits_in_any_batch_whatever_the_form_of_the_weights() {
    let (mut noise, mut workspace) = (Noise::new(90), Workspace::new());
    // Depths with whole groups, with short last ones, and with a k that no step divides; more of
    // them than panels are cut into.
    for (n, k) in [(1, 3), (8, 64), (17, 70), (24, 131), (49, 262), (16, 518), (33, 1027), (20, 1546)] {
        for bits in [8, 4] {
            for (group_len, part_len) in [
                (None, None),
                (Some(16), None),
                (Some(32), None),
                (Some(48), None),
                (Some(128), None),
                (Some(528), None),
                (Some(32), Some(16)),
                (Some(256), Some(32)),
            ] {
                let with_minimums = Layer::of_format(&mut noise, (n, k), bits, group_len, part_len);
                check(&mut noise, &mut workspace, &with_minimums);
                let count = with_minimums.scales.len();
                let plain = Layer { minimums: None, part_minimums: None, ..with_minimums };
                for zero_points in
                    [None, Some(vec![8; count]), Some((0..count).map(|at| (at % 16) as i8).collect())]
                {
                    let layer = Layer { zero_points, ..plain.clone() };
                    check(&mut noise, &mut workspace, &layer);
                }
            }
        }
    }
}

#[test]
fn rows_that_are_not_finite_touch_no_other_row_of_a_batch() {
    let (mut noise, mut workspace) = (Noise::new(91), Workspace::new());
    let layer = Layer { minimums: None, ..Layer::of_format(&mut noise, (30, 102), 8, Some(32), None) };
    let (n, k) = (layer.n, layer.k);
    let a = noise.floats(BATCH * k, 0.01);
    for kernel in Kernel::available() {
        let w = layer.packed(kernel);
        let expected = product(&a, BATCH, &w, &layer.bias, &mut workspace);
        for (at, value) in [(0, f32::NAN), (20, f32::INFINITY), (BATCH - 1, f32::NAN)] {
            let mut a = a.clone();
            a[at * k..][..k].fill(value);
            let y = product(&a, BATCH, &w, &layer.bias, &mut workspace);
            for (i, (y, expected)) in y.chunks(n).zip(expected.chunks(n)).enumerate() {
                let finite = y.iter().all(|&y| f32::from_bits(y).is_finite());
                assert!(if i == at { !finite } else { y == expected }, "{kernel}: row {i} beside row {at}");
            }
        }
    }
}
