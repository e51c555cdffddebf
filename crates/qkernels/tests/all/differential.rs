//! Every kernel of this machine against the triple loop in i64: int32 sums, bit for bit.

use std::collections::BTreeSet;

use proptest::prelude::*;
use qkernels::{Activations, Int32, Kernel, MatMut, MatRef, Requantize, Scales};
use qkernels::{PackedWeights, Threads, Workspace, ZeroPoints, gemm};

use crate::oracle::{CANARY, Conformance, Noise, TestCode, around, pack, sums};

/// A random product with rows of adjacent elements on every kernel, or on `kernel`.
fn check_random<A: TestCode>(
    conformance: &mut Conformance,
    noise: &mut Noise,
    kernel: Option<Kernel>,
    (m, n, k): (usize, usize, usize),
) {
    let (a, w) = (noise.codes::<A>(m * k), noise.weights::<i8>(n, k));
    let a = MatRef::new(&a, m, k).unwrap();
    let w = match noise.below(2) {
        0 => MatRef::new(&w, n, k).unwrap(),
        _ => MatRef::new(&w, k, n).unwrap().transposed(),
    };
    match kernel {
        Some(kernel) => conformance.check_on(kernel, a, 0, w),
        None => conformance.check(a, 0, w),
    }
}

#[test]
fn every_m_and_n_up_to_17() {
    fn sweep<A: TestCode>() {
        let (mut conformance, mut noise) = (Conformance::default(), Noise::new(1));
        for m in 1..=17 {
            for n in 1..=17 {
                for k in [1 + noise.below(8), 9 + noise.below(24), 33 + noise.below(100)] {
                    check_random::<A>(&mut conformance, &mut noise, None, (m, n, k));
                }
            }
        }
    }
    sweep::<u8>();
    sweep::<i8>();
}

#[test]
fn every_k_up_to_130_at_the_edges_of_tile_and_vector() {
    fn sweep<A: TestCode>() {
        let (mut conformance, mut noise) = (Conformance::default(), Noise::new(2));
        for kernel in Kernel::available() {
            let desc = kernel.desc();
            let rows: BTreeSet<_> = around(desc.mr).chain([1, 2 * desc.mr + 1]).collect();
            let columns: BTreeSet<_> =
                [desc.vector_columns, desc.nr].into_iter().flat_map(around).chain([1]).collect();
            for k in 1..=130 {
                for &m in &rows {
                    for &n in &columns {
                        check_random::<A>(&mut conformance, &mut noise, Some(kernel), (m, n, k));
                    }
                }
            }
        }
    }
    sweep::<u8>();
    sweep::<i8>();
}

#[test]
fn every_n_up_to_four_panels() {
    fn sweep<A: TestCode>() {
        let (mut conformance, mut noise) = (Conformance::default(), Noise::new(3));
        for n in (1..=196).chain([255, 256, 257, 383, 384, 385]) {
            let k = 1 + noise.below(20);
            for m in [1, 1 + noise.below(20)] {
                check_random::<A>(&mut conformance, &mut noise, None, (m, n, k));
            }
        }
    }
    sweep::<u8>();
    sweep::<i8>();
}

#[test]
fn k_is_cut_into_blocks_and_every_block_counts() {
    fn sweep<A: TestCode>() {
        let (mut conformance, mut noise) = (Conformance::default(), Noise::new(4));
        let powers = (10..=16).map(|bits| 1 << bits);
        for k in powers.chain([3 << 11, 3 << 12, 3 << 13, 5461, 10_922]).flat_map(around) {
            let (m, n) = (1 + noise.below(3), 1 + noise.below(3));
            check_random::<A>(&mut conformance, &mut noise, None, (m, n, k));
        }
        // These have several tiles in both directions, whose sums wait for the next block of k.
        for (m, n, k) in [(17, 49, 6000), (9, 100, 6001), (70, 17, 6002), (13, 50, 16_387), (3, 9, 70_001)] {
            check_random::<A>(&mut conformance, &mut noise, None, (m, n, k));
        }
        // This is so deep that narrow panels are cut as well. The weights are small enough for the
        // sums.
        let (m, n, k) = (5, 3, 600_001);
        let a = noise.codes::<A>(m * k);
        let w: Vec<i8> = noise.integers(n * k, 9).into_iter().map(|w| w as i8).collect();
        conformance.check(MatRef::new(&a, m, k).unwrap(), 0, MatRef::new(&w, n, k).unwrap());
    }
    sweep::<u8>();
    sweep::<i8>();
}

#[test]
fn m_and_n_are_cut_into_blocks() {
    fn sweep<A: TestCode>() {
        let (mut conformance, mut noise) = (Conformance::default(), Noise::new(5));
        for m in [31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 300, 511, 512, 513] {
            let n = 1 + noise.below(9);
            for k in [64, 1000, 1024] {
                check_random::<A>(&mut conformance, &mut noise, None, (m, n, k));
            }
        }
        for (m, n, k) in [(2, 1100, 1023), (3, 300, 4096), (1030, 2, 513), (100, 200, 3000), (90, 250, 6100)]
        {
            check_random::<A>(&mut conformance, &mut noise, None, (m, n, k));
        }
    }
    sweep::<u8>();
    sweep::<i8>();
}

#[test]
fn activations_of_any_strides() {
    fn sweep<A: TestCode>() {
        let (mut conformance, mut noise) = (Conformance::default(), Noise::new(6));
        for (m, n, k) in [(1, 5, 7), (7, 17, 16), (9, 49, 64), (17, 3, 33), (33, 8, 128)] {
            let w = noise.weights::<i8>(n, k);
            let w = MatRef::new(&w, n, k).unwrap();
            let strides = [
                (k, 1),
                (k + 1, 1),
                (k + 13, 1),
                (4096, 1),  // rows that share the sets of a cache
                (1, m),     // column-major
                (1, m + 3), // and with gaps
                (2 * k, 2), // every other element
                (3 * k + 1, 3),
                (0, 1), // one row, repeated
                (1, 1), // rows that overlap
                (1, 0), // one column, repeated
                (0, 0),
            ];
            for (row_stride, col_stride) in strides {
                let a = noise.codes::<A>((m - 1) * row_stride + (k - 1) * col_stride + 1);
                let a = MatRef::with_strides(&a, m, k, row_stride, col_stride).unwrap();
                conformance.check(a, 3, w);
            }
        }
    }
    sweep::<u8>();
    sweep::<i8>();
}

#[test]
fn weights_of_either_order_and_any_strides() {
    let (mut conformance, mut noise) = (Conformance::default(), Noise::new(7));
    for (m, n, k) in [(1, 1, 1), (2, 17, 5), (3, 49, 64), (7, 16, 33), (2, 97, 18)] {
        let a = noise.codes::<u8>(m * k);
        let a = MatRef::new(&a, m, k).unwrap();
        for (row_stride, col_stride) in
            [(k, 1), (k + 5, 1), (1, n), (1, n + 3), (2 * k, 2), (3, 3 * n + 1), (0, 1), (1, 0), (1, 1)]
        {
            let w = noise.weights::<i8>(1, (n - 1) * row_stride + (k - 1) * col_stride + 1);
            conformance.check(a, 0, MatRef::with_strides(&w, n, k, row_stride, col_stride).unwrap());
        }
    }
}

#[test]
fn packing_from_nk_and_from_kn_is_the_same() {
    let mut noise = Noise::new(8);
    for kernel in Kernel::available() {
        for (n, k) in [(1, 1), (3, 130), (17, 5), (49, 64), (100, 33)] {
            let nk = noise.weights::<i8>(n, k);
            let kn: Vec<i8> = (0..k * n).map(|at| nk[at % n * k + at / n]).collect();
            let from_nk = PackedWeights::from_nk(MatRef::new(&nk, n, k).unwrap(), kernel).unwrap();
            let from_kn = PackedWeights::from_kn(MatRef::new(&kn, k, n).unwrap(), kernel).unwrap();
            for packed in [from_nk, from_kn] {
                assert_eq!((packed.n(), packed.k(), packed.kernel()), (n, k, kernel));
                assert_eq!(packed.unpack(), nk, "{kernel} {n} x {k}");
                for (j, row) in nk.chunks(k).enumerate() {
                    assert_eq!(packed.channel_sums()[j], row.iter().map(|&w| i32::from(w)).sum::<i32>());
                    let abs_sum: u32 = row.iter().map(|&w| u32::from(w.unsigned_abs())).sum();
                    assert_eq!(packed.channel_abs_sums()[j], abs_sum);
                    assert!(packed.largest_abs_sum() >= abs_sum);
                }
            }
        }
    }
}

#[test]
fn outputs_of_any_row_stride_keep_what_lies_between_the_rows() {
    fn sweep<A: TestCode>() {
        let (mut noise, mut workspace) = (Noise::new(9), Workspace::new());
        for (m, n, k) in [(1, 5, 8), (3, 16, 9), (9, 49, 30), (17, 50, 64), (8, 48, 6000)] {
            let (a, w) = (noise.codes::<A>(m * k), noise.weights::<i8>(n, k));
            let (a, w) = (MatRef::new(&a, m, k).unwrap(), MatRef::new(&w, n, k).unwrap());
            let expected = sums(a, 0, w);
            for (kernel, gap) in Kernel::available().flat_map(|kernel| [1, 3, 64].map(|gap| (kernel, gap))) {
                let mut y = vec![CANARY; 5 + m * (n + gap)];
                let out = MatMut::with_stride(&mut y[5..], m, n, n + gap).unwrap();
                gemm(a, &pack(kernel, w), &Int32::new(), out, Threads::Serial, &mut workspace).unwrap();
                assert_eq!(y[..5], [CANARY; 5]);
                for (row, expected) in y[5..].chunks(n + gap).zip(expected.chunks(n)) {
                    assert_eq!(row[..n], *expected, "{kernel} {m} x {n} x {k}");
                    assert!(row[n..].iter().all(|&y| y == CANARY), "{kernel} {m} x {n} x {k}");
                }
            }
        }
    }
    sweep::<u8>();
    sweep::<i8>();
}

#[test]
fn every_alignment_of_activations_weights_and_output() {
    /// The index of the first element that lies `offset` bytes behind a multiple of 64.
    fn aligned<T>(data: &[T], offset: usize) -> usize {
        data.as_ptr().cast::<u8>().align_offset(64).div_ceil(size_of::<T>()) + offset / size_of::<T>()
    }
    fn sweep<A: TestCode>() {
        let (mut noise, mut workspace) = (Noise::new(10), Workspace::new());
        for (m, n, k) in [(1, 17, 64), (9, 33, 64), (3, 50, 61)] {
            let (a, w) = (noise.codes::<A>(m * k + 128), noise.weights::<i8>(1, n * k + 128));
            for offset in 0..64 {
                let a = MatRef::new(&a[aligned(&a, offset)..], m, k).unwrap();
                let w = MatRef::new(&w[aligned(&w, 63 - offset)..], n, k).unwrap();
                let expected = sums(a, 0, w);
                let codes: Vec<_> =
                    expected.iter().map(|&sum| qcore::requantize(sum, 0.01, 0, -128, 127) as i8).collect();
                for kernel in Kernel::available() {
                    let packed = pack(kernel, w);
                    let mut y = vec![CANARY; m * n + 64];
                    let at = aligned(&y, offset);
                    let out = MatMut::new(&mut y[at..][..m * n], m, n).unwrap();
                    gemm(a, &packed, &Int32::new(), out, Threads::Serial, &mut workspace).unwrap();
                    assert_eq!(y[at..][..m * n], *expected, "{kernel} offset {offset}");
                    assert!(y[..at].iter().chain(&y[at + m * n..]).all(|&y| y == CANARY));

                    let mut y = vec![77i8; m * n + 128];
                    let at = aligned(&y, offset);
                    let out = MatMut::new(&mut y[at..][..m * n], m, n).unwrap();
                    let stage = Requantize::new(Scales::PerTensor(0.01)).unwrap();
                    gemm(a, &packed, &stage, out, Threads::Serial, &mut workspace).unwrap();
                    assert_eq!(y[at..][..m * n], *codes, "{kernel} offset {offset}");
                    assert!(y[..at].iter().chain(&y[at + m * n..]).all(|&y| y == 77));
                }
            }
        }
    }
    sweep::<u8>();
    sweep::<i8>();
}

#[test]
fn empty_products() {
    fn sweep<A: TestCode>() {
        let mut workspace = Workspace::new();
        let (a, w) = (Noise::new(12).codes::<A>(35), [1i8; 49]);
        let bias = [3, i32::MAX, -i32::MAX, 0, -1, 9, 8];
        for kernel in Kernel::available() {
            for (m, n, k) in [(0, 7, 5), (5, 0, 7), (0, 0, 3), (5, 7, 0), (0, 7, 0), (5, 0, 0), (0, 0, 0)] {
                let a = Activations::new(MatRef::new(&a, m, k).unwrap(), 100);
                let w = PackedWeights::from_nk(MatRef::new(&w, n, k).unwrap(), kernel).unwrap();
                assert_eq!(w.unpack().len(), n * k);
                let mut y = [CANARY; 40];
                let out = MatMut::new(&mut y, m, n).unwrap();
                let stage = if k == 0 { Int32::new().with_bias(&bias[..n]) } else { Int32::new() };
                gemm(a, &w, &stage, out, Threads::Serial, &mut workspace).unwrap();
                // The sum of no products is the bias.
                for row in y[..m * n].chunks(7) {
                    assert_eq!(row, bias, "{kernel}");
                }
                assert!(y[m * n..].iter().all(|&y| y == CANARY));
            }
        }
    }
    sweep::<u8>();
    sweep::<i8>();
}

/// How a matrix lies in memory.
#[derive(Clone, Copy, Debug)]
enum Order {
    RowMajor,
    ColumnMajor,
}

/// A matrix with random order, gaps and start: the slice to take a view of, and the strides.
#[derive(Clone, Copy, Debug)]
struct Layout {
    order: Order,
    gap: usize,
    step: usize,
    start: usize,
}

impl Layout {
    fn any() -> impl Strategy<Value = Self> {
        let order = prop_oneof![Just(Order::RowMajor), Just(Order::ColumnMajor)];
        (order, 0..9usize, prop_oneof![4 => Just(1usize), 1 => 1..4usize], 0..65usize)
            .prop_map(|(order, gap, step, start)| Self { order, gap, step, start })
    }

    fn strides(&self, rows: usize, cols: usize) -> (usize, usize) {
        match self.order {
            Order::RowMajor => (self.step * cols + self.gap, self.step),
            Order::ColumnMajor => (self.step, self.step * rows + self.gap),
        }
    }

    fn codes<C: TestCode>(&self, noise: &mut Noise, rows: usize, cols: usize) -> Vec<C> {
        let (row_stride, col_stride) = self.strides(rows, cols);
        noise.codes(self.start + rows * row_stride.max(1) + cols * col_stride.max(1))
    }

    fn view<'a, C: Copy>(&self, codes: &'a [C], rows: usize, cols: usize) -> MatRef<'a, C> {
        let (row_stride, col_stride) = self.strides(rows, cols);
        MatRef::with_strides(&codes[self.start..], rows, cols, row_stride, col_stride).unwrap()
    }
}

#[derive(Clone, Debug)]
struct Case {
    shape: (usize, usize, usize),
    a: Layout,
    w: Layout,
    out_gap: usize,
    zero_point: i32,
    w_zero_points: WeightZeroPoints,
    bias: bool,
    seed: u64,
}

#[derive(Clone, Copy, Debug)]
enum WeightZeroPoints {
    None,
    PerTensor,
    PerChannel,
}

fn any_case() -> impl Strategy<Value = Case> {
    let shape = prop_oneof![
        6 => (0..40usize, 0..120usize, 0..200usize),
        1 => (0..4usize, 0..60usize, 4000..9000usize),
        1 => (100..300usize, 0..20usize, 0..300usize),
    ];
    let zero_point = prop_oneof![Just(0), -128..256i32, -100_000..100_000i32];
    let w_zero_points = prop_oneof![
        2 => Just(WeightZeroPoints::None),
        1 => Just(WeightZeroPoints::PerTensor),
        2 => Just(WeightZeroPoints::PerChannel),
    ];
    let zero_points = (zero_point, w_zero_points);
    (shape, Layout::any(), Layout::any(), 0..20usize, zero_points, any::<bool>(), any::<u64>()).prop_map(
        |(shape, a, w, out_gap, (zero_point, w_zero_points), bias, seed)| {
            // 84 weights as far as possible from their zero points, times 100_255, are the most
            // that int32 holds.
            let zero_point = if shape.2 > 80 { zero_point.clamp(-512, 512) } else { zero_point };
            Case { shape, a, w, out_gap, zero_point, w_zero_points, bias, seed }
        },
    )
}

fn agrees_with_the_oracle<A: TestCode, W: TestCode>(case: &Case) {
    let (m, n, k) = case.shape;
    let mut noise = Noise::new(case.seed);
    let a = case.a.codes::<A>(&mut noise, m, k);
    let a = case.a.view(&a, m, k);
    let (w, zero_points) = (case.w.codes::<W>(&mut noise, n, k), noise.zero_points::<W>(n.max(1)));
    let zero_points = match case.w_zero_points {
        WeightZeroPoints::None => ZeroPoints::PerTensor(0),
        WeightZeroPoints::PerTensor => ZeroPoints::PerTensor(zero_points[0]),
        WeightZeroPoints::PerChannel => ZeroPoints::PerChannel(&zero_points[..n]),
    };
    let w = (case.w.view(&w, n, k), zero_points);
    let bias = noise.integers(n, if case.bias { 1 << 20 } else { 0 });
    let mut expected = sums(a, case.zero_point, w);
    for row in expected.chunks_mut(n.max(1)) {
        row.iter_mut().zip(&bias).for_each(|(sum, bias)| *sum += bias);
    }
    let stage = if case.bias { Int32::new().with_bias(&bias) } else { Int32::new() };
    let stride = n + case.out_gap;
    let mut workspace = Workspace::new();
    for kernel in Kernel::available() {
        let mut y = vec![CANARY; m * stride];
        let out = MatMut::with_stride(&mut y, m, n, stride).unwrap();
        let a = Activations::new(a, case.zero_point);
        gemm(a, &pack(kernel, w), &stage, out, Threads::Serial, &mut workspace).unwrap();
        for (i, row) in y.chunks(stride.max(1)).enumerate() {
            assert_eq!(row[..n], expected[i * n..][..n], "{kernel}, row {i}");
            assert!(row[n..].iter().all(|&y| y == CANARY), "{kernel}, behind row {i}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_product_of_u8_by_i8(case in any_case()) {
        agrees_with_the_oracle::<u8, i8>(&case);
    }

    #[test]
    fn any_product_of_u8_by_u8(case in any_case()) {
        agrees_with_the_oracle::<u8, u8>(&case);
    }

    #[test]
    fn any_product_of_i8_by_i8(case in any_case()) {
        agrees_with_the_oracle::<i8, i8>(&case);
    }

    #[test]
    fn any_product_of_i8_by_u8(case in any_case()) {
        agrees_with_the_oracle::<i8, u8>(&case);
    }
}
