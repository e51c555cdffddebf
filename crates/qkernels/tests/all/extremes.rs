//! The ends of the ranges on every kernel of this machine: extreme codes, the largest k, sums that
//! wrap on the way, zero points inside and outside of the codes.

use qkernels::{GemmError, Int32, Kernel, MatMut, MatRef, Threads, Workspace, gemm};

use crate::oracle::{CANARY, Conformance, Noise, TestCode, pack, sums};

/// The sum of `k` products whose operands both alternate between two values.
fn alternating_sum(k: usize, a: [i64; 2], w: [i64; 2]) -> i32 {
    let (even, odd) = (k.div_ceil(2) as i64, (k / 2) as i64);
    i32::try_from(even * a[0] * w[0] + odd * a[1] * w[1]).unwrap()
}

#[test]
fn extremes_of_both_operands_constant_and_alternating() {
    fn sweep<A: TestCode>(a_values: &[u8]) {
        let mut conformance = Conformance::default();
        let w_values = [-128i8, 127, 0, -1];
        for k in [1, 2, 3, 4, 5, 7, 127, 128, 129, 255, 256, 4096, 4099, 65_536] {
            // There are rows and columns for every pair of values, so one product has all
            // combinations.
            let pairs = |count: usize| (0..count * count).map(move |at| [at / count, at % count]);
            let a: Vec<A> = pairs(a_values.len())
                .flat_map(|pair| (0..k).map(move |p| A::from_bits(a_values[pair[p % 2]])))
                .collect();
            let w: Vec<i8> =
                pairs(w_values.len()).flat_map(|pair| (0..k).map(move |p| w_values[pair[p % 2]])).collect();
            let mut expected = Vec::new();
            for a in pairs(a_values.len()) {
                for w in pairs(w_values.len()) {
                    let a = a.map(|at| A::from_bits(a_values[at]).into());
                    expected.push(alternating_sum(k, a, w.map(|at| i64::from(w_values[at]))));
                }
            }
            let a = MatRef::new(&a, a_values.len().pow(2), k).unwrap();
            let w = MatRef::new(&w, w_values.len().pow(2), k).unwrap();
            if k <= 256 {
                assert_eq!(expected, sums(a, 0, w));
            }
            for kernel in Kernel::available() {
                conformance.compare(kernel, a, 0, w, &expected);
            }
        }
    }
    sweep::<u8>(&[0, 255, 127, 128]);
    sweep::<i8>(&[0x80, 0x7f, 0, 0xff]);
}

#[test]
fn a_pair_that_saturates_16_bits_does_not_here() {
    let w = [71i8, 107];
    let a = [211u8, 171];
    for kernel in Kernel::available() {
        let w = MatRef::new(&w, 1, 2).unwrap();
        Conformance::default().compare(kernel, MatRef::new(&a, 1, 2).unwrap(), 0, w, &[33_278]);
    }
}

#[test]
fn at_the_largest_k_sums_reach_the_ends_of_int32_and_one_beyond_is_refused() {
    fn sweep<A: TestCode>(largest_k: usize, extreme: u8, magnitude: u128) {
        let (mut conformance, mut workspace) = (Conformance::default(), Workspace::new());
        let a = vec![A::from_bits(extreme); 2 * (largest_k + 1)];
        // Channel 0 is harmless; channel 1 is the one that reaches the bound.
        let mut w = vec![1i8; largest_k + 1];
        w.extend(vec![-128; largest_k + 1]);
        for kernel in Kernel::available() {
            let k = largest_k;
            let a_view = MatRef::with_strides(&a, 2, k, k + 1, 1).unwrap();
            let w_view = MatRef::with_strides(&w, 2, k, k + 1, 1).unwrap();
            let extreme: i64 = A::from_bits(extreme).into();
            let row = [extreme * k as i64, extreme * -128 * k as i64].map(|sum| i32::try_from(sum).unwrap());
            conformance.compare(kernel, a_view, 0, w_view, &[row, row].concat());

            let k = largest_k + 1;
            let (a, w) = (MatRef::new(&a, 2, k).unwrap(), MatRef::new(&w, 2, k).unwrap());
            let mut y = [CANARY; 4];
            let out = MatMut::new(&mut y, 2, 2).unwrap();
            let error = gemm(a, &pack(kernel, w), &Int32::new(), out, Threads::Serial, &mut workspace);
            let Err(GemmError::Overflow(error)) = error else { panic!("{kernel}: {error:?}") };
            let bound = magnitude * 128 * k as u128;
            assert_eq!((error.channel, error.bound), (1, bound), "{kernel}");
            let limit = i32::MAX as u128;
            assert!(bound > limit && bound - magnitude * 128 <= limit);
            assert_eq!(y, [CANARY; 4]);
        }
    }
    sweep::<u8>(65_793, 255, 255);
    sweep::<i8>(131_071, 0x80, 128);
}

#[test]
fn sums_that_wrap_on_the_way_come_back() {
    // With activations shifted to u8, 127 becomes 255. 255 * -128 * 131071 is far outside of int32,
    // but the result is not.
    let k = 131_071;
    let (a, w) = (vec![127i8; k], vec![-128i8; k]);
    for kernel in Kernel::available() {
        let (a, w) = (MatRef::new(&a, 1, k).unwrap(), MatRef::new(&w, 1, k).unwrap());
        Conformance::default().compare(kernel, a, 0, w, &[127 * -128 * 131_071]);
    }
}

#[test]
fn zero_points_inside_and_outside_of_the_codes() {
    fn sweep<A: TestCode>() {
        let (mut conformance, mut noise) = (Conformance::default(), Noise::new(11));
        for zero_point in [0, 1, -1, 7, 127, 128, -127, -128, 255, 256, -1000, 65_536] {
            for (m, n, k) in [(1, 1, 1), (2, 17, 33), (9, 49, 64), (7, 5, 131)] {
                let (a, w) = (noise.codes::<A>(m * k), noise.codes::<i8>(n * k));
                conformance.check(MatRef::new(&a, m, k).unwrap(), zero_point, MatRef::new(&w, n, k).unwrap());
            }
            // These activations all stand for 0.
            if let Ok(code) = u8::try_from(zero_point) {
                let a = [A::from_bits(code); 40];
                let zero_point =
                    i64::from(zero_point) - if A::RANGE.min() < 0 && code > 127 { 256 } else { 0 };
                let w = noise.codes::<i8>(3 * 40);
                let w = MatRef::new(&w, 3, 40).unwrap();
                for kernel in Kernel::available() {
                    let a = MatRef::new(&a, 1, 40).unwrap();
                    conformance.compare(kernel, a, zero_point as i32, w, &[0; 3]);
                }
            }
        }
        // The results are the ends of int32, with weights small enough for the sums.
        let a = noise.codes::<A>(3);
        for (zero_point, w) in
            [(i32::MAX - 256, [0i8, -1, 0]), (-i32::MAX + 256, [1, 0, 0]), (i32::MIN, [0; 3])]
        {
            conformance.check(MatRef::new(&a, 1, 3).unwrap(), zero_point, MatRef::new(&w, 1, 3).unwrap());
        }
    }
    sweep::<u8>();
    sweep::<i8>();
}
