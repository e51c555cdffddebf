//! Weights of both signs with zero points of their own, against the triple loop in i64, bit for
//! bit.

use std::collections::BTreeSet;

use qkernels::{
    Activations, GemmError, Int32, Kernel, MatMut, MatRef, PackedWeights, Threads, Weights, Workspace,
    ZeroPoints, gemm,
};

use crate::oracle::{CANARY, Conformance, Noise, TestCode, around, pack, sums};

/// `$sweep` for either sign of activations and weights.
macro_rules! all_signs {
    ($sweep:ident) => {
        $sweep::<u8, i8>();
        $sweep::<u8, u8>();
        $sweep::<i8, i8>();
        $sweep::<i8, u8>();
    };
}

/// A random product with zero points of both operands, on every kernel or on `kernel`.
fn check_random<A: TestCode, W: TestCode>(
    conformance: &mut Conformance,
    noise: &mut Noise,
    kernel: Option<Kernel>,
    (m, n, k): (usize, usize, usize),
) {
    // There are rows of weights, columns of weights, and neither.
    let (row_stride, col_stride) = noise.choose(&[(k, 1), (k + 3, 1), (1, n), (1, n + 2), (2, 2 * n + 1)]);
    let a = noise.codes::<A>(m * k);
    let w = noise.weights::<W>(1, (n - 1) * row_stride + (k - 1) * col_stride + 1);
    let (a, zero_points) = (MatRef::new(&a, m, k).unwrap(), noise.zero_points::<W>(n));
    let zero_points = match noise.below(3) {
        0 => ZeroPoints::PerTensor(zero_points[0]),
        _ => ZeroPoints::PerChannel(&zero_points),
    };
    let w = (MatRef::with_strides(&w, n, k, row_stride, col_stride).unwrap(), zero_points);
    let zero_point = noise.choose(&[0, 3, A::RANGE.min(), A::RANGE.max(), 1000]);
    match kernel {
        Some(kernel) => conformance.check_on(kernel, a, zero_point, w),
        None => conformance.check(a, zero_point, w),
    }
}

#[test]
fn every_m_and_n_up_to_17() {
    fn sweep<A: TestCode, W: TestCode>() {
        let (mut conformance, mut noise) = (Conformance::default(), Noise::new(60));
        for m in 1..=17 {
            for n in 1..=17 {
                for k in [1 + noise.below(8), 9 + noise.below(60)] {
                    check_random::<A, W>(&mut conformance, &mut noise, None, (m, n, k));
                }
            }
        }
    }
    all_signs!(sweep);
}

#[test]
fn every_residue_of_k_at_the_edges_of_tile_and_vector() {
    fn sweep<A: TestCode, W: TestCode>() {
        let (mut conformance, mut noise) = (Conformance::default(), Noise::new(61));
        for kernel in Kernel::available() {
            let desc = kernel.desc();
            let columns: BTreeSet<_> =
                [desc.vector_columns, desc.nr, 2 * desc.nr].into_iter().flat_map(around).collect();
            for k in (1..=9).chain(31..=34).chain([130]) {
                for m in around(desc.mr).chain([1, 2 * desc.mr + 1]) {
                    for &n in &columns {
                        check_random::<A, W>(&mut conformance, &mut noise, Some(kernel), (m, n, k));
                    }
                }
            }
        }
    }
    all_signs!(sweep);
}

#[test]
fn rows_columns_and_k_are_cut_into_blocks() {
    fn sweep<A: TestCode, W: TestCode>() {
        let (mut conformance, mut noise) = (Conformance::default(), Noise::new(62));
        for shape in [(17, 50, 6000), (300, 3, 1024), (513, 9, 64), (2, 300, 4096), (5, 17, 16_387)] {
            check_random::<A, W>(&mut conformance, &mut noise, None, shape);
        }
    }
    all_signs!(sweep);
}

#[test]
fn activations_of_any_strides() {
    fn sweep<A: TestCode, W: TestCode>() {
        let (mut conformance, mut noise) = (Conformance::default(), Noise::new(63));
        for (m, n, k) in [(1, 5, 7), (9, 49, 64), (17, 3, 33)] {
            let (w, zero_points) = (noise.weights::<W>(n, k), noise.zero_points::<W>(n));
            let w = (MatRef::new(&w, n, k).unwrap(), ZeroPoints::PerChannel(&zero_points));
            for (row_stride, col_stride) in [(k + 12, 1), (4096, 1), (1, m), (2 * k, 2), (0, 1), (1, 0)] {
                let a = noise.codes::<A>((m - 1) * row_stride + (k - 1) * col_stride + 1);
                conformance.check(MatRef::with_strides(&a, m, k, row_stride, col_stride).unwrap(), -5, w);
            }
        }
    }
    all_signs!(sweep);
}

#[test]
fn extremes_of_codes_and_zero_points() {
    fn sweep<A: TestCode, W: TestCode>() {
        const EXTREMES: [u8; 5] = [0, 127, 128, 255, 1];
        let mut conformance = Conformance::default();
        for k in [1, 3, 4, 64, 4099] {
            // There is a row for each value of activations, and a column for each pair of weight
            // and zero point.
            let columns = || EXTREMES.into_iter().flat_map(|w| EXTREMES.map(|zero_point| (w, zero_point)));
            let a: Vec<_> = EXTREMES.into_iter().flat_map(|a| vec![A::from_bits(a); k]).collect();
            let w: Vec<_> = columns().flat_map(|(w, _)| vec![W::from_bits(w); k]).collect();
            let zero_points: Vec<_> = columns().map(|(_, zero)| W::from_bits(zero).widen()).collect();
            let a = MatRef::new(&a, EXTREMES.len(), k).unwrap();
            let w = MatRef::new(&w, zero_points.len(), k).unwrap();
            for zero_point in [0, A::RANGE.min(), A::RANGE.max()] {
                let element = |a: u8, (w, zero): (u8, u8)| {
                    let a = A::from_bits(a).widen() - zero_point;
                    k as i32 * a * (W::from_bits(w).widen() - W::from_bits(zero).widen())
                };
                let expected: Vec<_> = EXTREMES
                    .into_iter()
                    .flat_map(|a| columns().map(move |column| element(a, column)))
                    .collect();
                for kernel in Kernel::available() {
                    let w = (w, ZeroPoints::PerChannel(&zero_points));
                    conformance.compare(kernel, a, zero_point, w, &expected);
                }
            }
        }
    }
    all_signs!(sweep);
}

#[test]
fn at_the_largest_k_sums_reach_the_end_of_int32_and_one_beyond_is_refused() {
    /// The largest k for codes and zero points at opposite ends: 255 * 255 * 33025 is the most that
    /// int32 holds.
    const LARGEST_K: usize = 33_025;
    fn sweep<A: TestCode, W: TestCode>() {
        let (mut conformance, mut workspace) = (Conformance::default(), Workspace::new());
        let end = 255 * 255 * LARGEST_K as i32;
        let left = i32::MAX - end;
        let stride = LARGEST_K + 1;
        for (w_code, w_zero_point) in [(W::RANGE.min(), W::RANGE.max()), (W::RANGE.max(), W::RANGE.min())] {
            let a = vec![A::from_clamped(A::RANGE.max()); 2 * stride];
            // Channel 0 is harmless; channel 1 is the one that reaches the bound.
            let mut w = vec![W::from_clamped(1); stride];
            w.extend(vec![W::from_clamped(w_code); stride]);
            let (zero_point, zero_points) = (A::RANGE.min(), [0, w_zero_point]);
            let row = [255 * LARGEST_K as i32, end * (w_code - w_zero_point).signum()];
            for kernel in Kernel::available() {
                let views = |k| {
                    let w = MatRef::with_strides(&w, 2, k, stride, 1).unwrap();
                    (
                        MatRef::with_strides(&a, 2, k, stride, 1).unwrap(),
                        (w, ZeroPoints::PerChannel(&zero_points)),
                    )
                };
                let (a, w) = views(LARGEST_K);
                conformance.compare(kernel, a, zero_point, w, &[row, row].concat());
                let packed = pack(kernel, w);
                let mut run = |a, w: &PackedWeights, bias: [i32; 2]| {
                    let mut y = [CANARY; 4];
                    let (out, stage) = (MatMut::new(&mut y, 2, 2).unwrap(), Int32::new().with_bias(&bias));
                    let a = Activations::new(a, zero_point);
                    let product = gemm(a, w, &stage, out, Threads::Serial, &mut workspace);
                    product.inspect_err(|_| assert_eq!(y, [CANARY; 4])).map(|()| y)
                };
                let sign = row[1].signum();
                let y = run(a, &packed, [0, sign * left]).unwrap();
                assert_eq!(y[1..], [sign * i32::MAX, row[0], sign * i32::MAX], "{kernel}");
                let Err(GemmError::Overflow(error)) = run(a, &packed, [0, sign * (left + 1)]) else {
                    panic!()
                };
                assert_eq!((error.channel, error.bound), (1, 1 << 31), "{kernel}");
                let (a, w) = views(LARGEST_K + 1);
                let Err(GemmError::Overflow(error)) = run(a, &pack(kernel, w), [0; 2]) else { panic!() };
                assert_eq!((error.channel, error.bound), (1, 255 * 255 * stride as u128), "{kernel}");
            }
        }
    }
    all_signs!(sweep);
}

#[test]
fn weights_that_all_stand_for_0() {
    fn sweep<A: TestCode, W: TestCode>() {
        let (mut conformance, mut noise) = (Conformance::default(), Noise::new(64));
        let (m, n, k) = (3, 256, 37);
        let (a, zero_points) =
            (noise.codes::<A>(m * k), (W::RANGE.min()..=W::RANGE.max()).collect::<Vec<_>>());
        let w: Vec<_> = zero_points.iter().flat_map(|&zero| vec![W::from_clamped(zero); k]).collect();
        let w = (MatRef::new(&w, n, k).unwrap(), ZeroPoints::PerChannel(&zero_points));
        for kernel in Kernel::available() {
            conformance.compare(kernel, MatRef::new(&a, m, k).unwrap(), 77, w, &vec![0; m * n]);
        }
    }
    all_signs!(sweep);
}

/// Packed u8 weights and the same weights minus 128, as i8, are one product.
#[test]
fn unsigned_weights_are_signed_ones_shifted() {
    let mut noise = Noise::new(65);
    let (m, n, k) = (5, 49, 67);
    let (a, unsigned) = (noise.codes::<i8>(m * k), noise.weights::<u8>(n, k));
    let signed: Vec<_> = unsigned.iter().map(|&w| (i32::from(w) - 128) as i8).collect();
    let zero_points = noise.zero_points::<u8>(n);
    let shifted: Vec<_> = zero_points.iter().map(|zero| zero - 128).collect();
    let (unsigned, signed_view) =
        (MatRef::new(&unsigned, n, k).unwrap(), MatRef::new(&signed, n, k).unwrap());
    let (unsigned, view) = ((unsigned, ZeroPoints::PerChannel(&zero_points)), signed_view);
    let a = MatRef::new(&a, m, k).unwrap();
    let expected = sums(a, 4, unsigned);
    assert_eq!(sums(a, 4, (view, ZeroPoints::PerChannel(&shifted))), expected);
    for kernel in Kernel::available() {
        let (unsigned, signed_too) =
            (pack(kernel, unsigned), pack(kernel, (view, ZeroPoints::PerChannel(&shifted))));
        assert_eq!(unsigned.unpack(), signed);
        assert_eq!(signed_too.unpack(), signed);
        assert_eq!((unsigned.zero_points(), signed_too.zero_points()), (&shifted[..], &shifted[..]));
        assert_eq!(unsigned.channel_sums(), signed_too.channel_sums());
        assert_eq!(unsigned.bytes(), signed_too.bytes());
        // A zero point of 0 in the packed form costs nothing.
        let plain = pack(kernel, signed_view);
        assert!(plain.zero_points().is_empty() && plain.bytes() == unsigned.bytes() - 4 * n);
        assert!(pack(kernel, (unsigned_of_128(n, k), ZeroPoints::PerTensor(128))).zero_points().is_empty());
    }
}

fn unsigned_of_128(n: usize, k: usize) -> MatRef<'static, u8> {
    MatRef::with_strides(&[128], n, k, 0, 0).unwrap()
}

/// The sums that packing keeps, for weights in any order of memory, around the sizes of the blocks
/// that are summed.
#[test]
fn sums_of_each_channel() {
    fn check<W: TestCode>(noise: &mut Noise, kernel: Kernel, (n, k): (usize, usize)) {
        let zero_points = noise.zero_points::<W>(n);
        for (row_stride, col_stride) in [(k, 1), (1, n), (1, n + 1), (2, 2 * n)] {
            let w = noise.weights::<W>(1, (n - 1) * row_stride + (k - 1) * col_stride + 1);
            let view = MatRef::with_strides(&w, n, k, row_stride, col_stride).unwrap();
            for zero_points in [ZeroPoints::PerChannel(&zero_points), ZeroPoints::PerTensor(zero_points[0])] {
                let packed = PackedWeights::from_nk(Weights::new(view, zero_points), kernel).unwrap();
                let zero_point = |j| match zero_points {
                    ZeroPoints::PerChannel(zero_points) => zero_points[j],
                    ZeroPoints::PerTensor(zero_point) => zero_point,
                };
                let mut largest = 0;
                for j in 0..n {
                    let distances = || (0..k).map(|p| view.get(j, p).unwrap().widen() - zero_point(j));
                    let abs_sum = distances().map(i32::unsigned_abs).sum::<u32>();
                    assert_eq!(packed.channel_sums()[j], distances().sum::<i32>(), "{n} x {k}, channel {j}");
                    assert_eq!(packed.channel_abs_sums()[j], abs_sum, "{n} x {k}, channel {j}");
                    largest = largest.max(abs_sum);
                }
                assert_eq!(packed.largest_abs_sum(), largest);
            }
        }
    }
    let mut noise = Noise::new(66);
    for kernel in Kernel::available() {
        for shape in [(1, 1), (63, 3), (64, 255), (65, 256), (129, 257), (3, 513), (1, 65_536), (2, 65_537)] {
            check::<i8>(&mut noise, kernel, shape);
            check::<u8>(&mut noise, kernel, shape);
        }
    }
}
