//! Vectorized `quantize` against qcore's: the same codes and the same errors at every kernel's vector level.

mod oracle;

use oracle::{Noise, TestCode};
use qcore::{CodeRange, QParams, quantize_slice};
use qkernels::{Kernel, quantize};

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
