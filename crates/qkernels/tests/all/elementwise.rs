//! Vectorized `quantize`, `dequantize`, `range` and `first_non_finite` against qcore's. They give
//! the same bits and the same errors at every kernel's vector level.

use half::f16;
use qcore::{CodeRange, QParams, Range, dequantize_slice, quantize_slice};
use qkernels::{Kernel, MatRef, dequantize, first_non_finite, quantize, range};

use crate::oracle::{Noise, TestCode};

fn check<C: TestCode>(x: &[f32], params: &QParams, len: usize) {
    let mut expected = vec![C::from_bits(99); len];
    let result = quantize_slice(x, params, &mut expected);
    for kernel in Kernel::available() {
        let mut codes = vec![C::from_bits(99); len];
        assert_eq!(quantize(kernel, x, params, &mut codes), result, "{kernel}");
        assert_eq!(codes, expected, "{kernel}, {params:?}, {len} values");
    }
}

#[test]
fn every_code_is_restored_alike_at_every_length() {
    fn check<C: TestCode>(codes: CodeRange, zero_point: i32) {
        for scale in [0.1, 1e-38, 3e38] {
            let params = QParams::new(scale, zero_point, codes).unwrap();
            for len in 0..=256 {
                let q: Vec<C> = (0..len).map(|i| C::from_bits(i as u8)).collect();
                let mut expected = vec![f32::NAN; len];
                dequantize_slice(&q, &params, &mut expected).unwrap();
                for kernel in Kernel::available() {
                    let mut values = vec![f32::NAN; len];
                    dequantize(kernel, &q, &params, &mut values).unwrap();
                    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(&values), bits(&expected), "{kernel}, {params:?}, {len} codes");
                    assert!(dequantize(kernel, &q, &params, &mut vec![0.0; len + 1]).is_err());
                }
            }
        }
    }
    check::<i8>(CodeRange::I8, -7);
    check::<u8>(CodeRange::U8, 200);
}

#[test]
fn the_range_is_the_same_wherever_the_extremes_and_the_first_defect_lie() {
    let mut noise = Noise::new(62);
    for len in 0..=130 {
        let mut x: Vec<f32> = (0..len).map(|_| noise.below(2001) as f32 - 1000.0).collect();
        let same = |x: &[f32]| {
            for kernel in Kernel::available() {
                assert_eq!(
                    format!("{:?}", range(kernel, x)),
                    format!("{:?}", Range::of(x)),
                    "{kernel}, {x:?}"
                );
            }
        };
        same(&x);
        if len > 0 {
            let (low, high) = (noise.below(len), noise.below(len));
            (x[low], x[high]) = (f32::MIN, f32::MAX);
            same(&x);
            x[noise.below(len)] = noise.choose(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
            same(&x);
        }
    }
}

#[test]
fn the_first_defect_is_found_in_any_row_of_any_layout() {
    let mut noise = Noise::new(63);
    for cols in [1, 2, 31, 64, 255, 256, 257, 600] {
        let rows = 3;
        let mut x = vec![f32::MAX; rows * cols];
        let mut defects = vec![None];
        defects.extend((0..20).map(|_| Some(noise.below(x.len()))));
        for first in defects {
            x.fill(f32::MAX);
            if let Some(first) = first {
                x[first..].fill_with(|| noise.choose(&[1.0, f32::NAN, f32::NEG_INFINITY]));
                x[first] = noise.choose(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
            }
            let expected = first.map(|at| (at / cols, at % cols, x[at].to_bits()));
            let halves: Vec<f16> = x.iter().map(|v| f16::from_f32(v.clamp(-1e4, 1e4))).collect();
            let halves: Vec<f16> = halves
                .into_iter()
                .zip(&x)
                .map(|(h, v)| if v.is_finite() { h } else { f16::INFINITY })
                .collect();
            // Every other element of a row.
            let apart: Vec<f32> = x.iter().flat_map(|&v| [v, f32::NAN]).collect();
            for kernel in Kernel::available() {
                let found = first_non_finite(kernel, MatRef::new(&x, rows, cols).unwrap());
                assert_eq!(found.map(|(i, j, v)| (i, j, v.to_bits())), expected, "{kernel}");
                let found = first_non_finite(kernel, MatRef::new(&halves, rows, cols).unwrap());
                assert_eq!(found.map(|(i, j, _)| (i, j)), expected.map(|(i, j, _)| (i, j)), "{kernel}");
                let apart = MatRef::with_strides(&apart, rows, cols, 2 * cols, 2).unwrap();
                let found = first_non_finite(kernel, apart);
                assert_eq!(found.map(|(i, j, v)| (i, j, v.to_bits())), expected, "{kernel}");
            }
        }
    }
}

#[test]
fn every_length_up_to_130_at_ties_and_their_neighbours() {
    let mut noise = Noise::new(60);
    for len in 0..=130 {
        let x: Vec<f32> = (0..len)
            .map(|_| {
                let tie = 0.25 * (noise.below(601) as f32 - 300.5);
                noise.choose(&[tie, tie.next_up(), tie.next_down(), 2.0 * tie])
            })
            .collect();
        for scale in [0.5, 0.25, 0.3, 1.0] {
            check::<i8>(&x, &QParams::new(scale, -3, CodeRange::I8).unwrap(), len);
            check::<i8>(&x, &QParams::new(scale, 0, CodeRange::I8_NARROW).unwrap(), len);
            check::<u8>(&x, &QParams::new(scale, 128, CodeRange::U8).unwrap(), len);
        }
    }
}

#[test]
fn values_that_are_not_finite_or_far_out_of_range() {
    let specials = [
        f32::NAN,
        -f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        f32::MIN,
        f32::MIN_POSITIVE,
        -f32::MIN_POSITIVE,
        f32::from_bits(1),
        0.0,
        -0.0,
        8_388_608.5,
        -2_147_483_648.0,
        4_294_967_296.0,
    ];
    let mut noise = Noise::new(61);
    for len in [1, 15, 16, 17, 63, 64, 65, 200] {
        let x: Vec<f32> = (0..len).map(|_| noise.choose(&specials)).collect();
        for scale in [1e-30, 0.1, 1.0, 1e30] {
            check::<i8>(&x, &QParams::new(scale, 5, CodeRange::I8).unwrap(), len);
            check::<u8>(&x, &QParams::new(scale, 250, CodeRange::U8).unwrap(), len);
        }
    }
}

#[test]
fn lengths_and_code_ranges_that_do_not_fit_are_refused_alike() {
    let x = [1.0; 40];
    check::<u8>(&x, &QParams::new(1.0, 0, CodeRange::U8).unwrap(), 39);
    check::<u8>(&x, &QParams::new(1.0, 0, CodeRange::I8).unwrap(), 40);
    check::<i8>(&x, &QParams::new(1.0, 0, CodeRange::U8).unwrap(), 40);
}
