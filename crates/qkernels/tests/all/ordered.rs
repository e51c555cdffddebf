//! Panels whose k have an order of their own, on the kernels that have such panels: what packing
//! makes of hostile weights, whatever the effort and the threads, and products that bring every
//! word to its ends, against the triple loop in i64.
//!
//! (All other tests run on `avx2_all_ordered` as well, which puts any weights in an order.)

use proptest::prelude::*;
use qcore::CodeRange;
use qkernels::{
    Activations, Features, ISA_VARIABLE, Int32, KOrders, KOrdersError, Kernel, KernelError, MatRef,
    PackEffort, PackError, PackedWeights, ScaledWeights, Threads, WeightScales, Weights, WindowCounts,
    Workspace, choose, kernels,
};

use crate::oracle::{CANARY, Noise, Right, TestCode, product, sums};

/// The kernels that have panels with an order.
fn with_orders() -> impl Iterator<Item = Kernel> {
    Kernel::available().filter(|kernel| kernel.desc().ordered.is_some())
}

/// Kinds of weights, from harmless ones to such as no word can hold.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// All of them the same.
    All(i8),
    /// One large k among small ones, in all columns.
    OneLarge,
    /// Large ones of alternating signs.
    Alternating,
    /// As trained: the larger, the rarer.
    Normal,
    /// Small, and here and there an extreme one.
    Outliers,
    /// All codes alike, extremes more often.
    Uniform,
}

const KINDS: [Kind; 10] = [
    Kind::All(-128),
    Kind::All(127),
    Kind::All(64),
    Kind::All(0),
    Kind::OneLarge,
    Kind::Alternating,
    Kind::Normal,
    Kind::Normal,
    Kind::Outliers,
    Kind::Uniform,
];

fn weights(noise: &mut Noise, kind: Kind, n: usize, k: usize) -> Vec<i8> {
    let large = noise.below(16);
    let uniform = noise.codes::<i8>(n * k);
    let mut weight = |at: usize| {
        let k = at % k;
        match kind {
            Kind::All(w) => w,
            Kind::OneLarge => {
                if k % 16 == large {
                    127
                } else {
                    (at % 19) as i8 - 9
                }
            }
            Kind::Alternating => {
                if k.is_multiple_of(2) {
                    127
                } else {
                    -127
                }
            }
            // The mean of four is nearly normal.
            Kind::Normal => {
                ((0..4).map(|_| noise.below(256) as i32 - 128).sum::<i32>() / 4).clamp(-128, 127) as i8
            }
            Kind::Outliers => match noise.below(20) {
                0 => noise.choose(&[-128, -127, 127, 126]),
                _ => noise.below(17) as i8 - 8,
            },
            Kind::Uniform => uniform[at],
        }
    };
    (0..n * k).map(&mut weight).collect()
}

/// Rows that bring words to their ends: all 0, all at the largest code, both by the signs of a
/// channel's weights, then random ones.
fn activations<A: TestCode>(noise: &mut Noise, w: &[i8], (m, k): (usize, usize), codes: CodeRange) -> Vec<A> {
    let (min, max) = (codes.min(), codes.max());
    let mut a = noise.codes::<A>(m * k);
    for (i, row) in a.chunks_mut(k).enumerate() {
        let channel = &w[noise.below(w.len() / k) * k..][..k];
        for (a, &w) in row.iter_mut().zip(channel) {
            let code = match i {
                0 => max,
                1 => min,
                2 | 3 => {
                    if (w > 0) == (i == 2) {
                        max
                    } else {
                        min
                    }
                }
                _ => a.widen().clamp(min, max),
            };
            *a = A::from_clamped(code);
        }
    }
    a
}

/// Orders of k that suit no weights, with flips here and there.
fn any_orders(noise: &mut Noise, n: usize, k: usize) -> KOrders {
    let mut bytes = Vec::new();
    for _ in 0..n.div_ceil(16) * k.div_ceil(16) {
        let mut ks: [u8; 16] = core::array::from_fn(|k| k as u8);
        for _ in 0..noise.below(20) {
            ks.swap(noise.below(16), noise.below(16));
        }
        bytes.extend(ks.as_chunks::<2>().0.iter().map(|[first, second]| first | second << 4));
        let (one, any) = (1 << noise.below(16), noise.below(1 << 16) as u16);
        let flips: u16 = noise.choose(&[0, one, any]);
        bytes.extend(flips.to_le_bytes());
    }
    KOrders::from_bytes(n, k, bytes).unwrap()
}

/// What packing makes of weights, and their products with all rows.
fn check<A: TestCode>(noise: &mut Noise, kind: Kind, (m, n, k): (usize, usize, usize), codes: CodeRange) {
    let w = &weights(noise, kind, n, k);
    let a = activations::<A>(noise, w, (m, k), codes);
    let a = MatRef::new(&a, m, k).unwrap();
    let view = MatRef::new(w, n, k).unwrap();
    let (zero_point, effort) =
        (noise.choose(&[codes.min(), 0, 3]), noise.choose(&[PackEffort::Usual, PackEffort::Thorough]));
    let zero_point = zero_point.clamp(codes.min(), codes.max());
    let expected = sums::<A, i8>(a, zero_point, Right::from(view));
    let case = format!("{kind:?}, {m} x {n} x {k}, {codes:?}, {effort:?}");
    for kernel in with_orders() {
        let weights_nk = Weights::from(view).for_activations(codes).with_effort(effort);
        let packed = PackedWeights::from_nk(weights_nk, kernel).unwrap();
        assert_eq!(packed.unpack(), *w, "{kernel}, {case}");
        let x = Activations::within(a, zero_point, codes).unwrap();
        let y = product(x, m, &packed, &Int32::new(), CANARY, &mut Workspace::new());
        assert!(y == expected, "{kernel}, {case}");
        // The same weights by (k, n), and without an order again.
        let kn: Vec<i8> = (0..k * n).map(|at| w[at % n * k + at / n]).collect();
        let weights =
            Weights::from(MatRef::new(&kn, k, n).unwrap()).for_activations(codes).with_effort(effort);
        let other = PackedWeights::from_kn(weights, kernel).unwrap();
        assert!(other.column_kernels().eq(packed.column_kernels()), "{kernel}, {case}");
        assert_eq!(other.window_counts(0..n), packed.window_counts(0..n), "{kernel}, {case}");
        for orders in [KOrders::find(weights_nk, kernel).unwrap(), any_orders(noise, n, k)] {
            let given = PackedWeights::from_nk(weights_nk.with_orders(&orders), kernel).unwrap();
            assert_eq!(given.unpack(), *w, "{kernel}, {case}");
            let y = product(x, m, &given, &Int32::new(), CANARY, &mut Workspace::new());
            assert!(y == expected, "{kernel}, {case}, {orders:?}");
        }
        let scales = vec![1.0; n];
        let scaled = ScaledWeights::new(packed, WeightScales::per_channel(&scales)).unwrap();
        assert_eq!(scaled.unpack(), *w, "{kernel}, {case}");
    }
}

proptest! {
    #[test]
    fn hostile_weights_have_exact_products(
        kind in prop::sample::select(KINDS.to_vec()),
        m in 1usize..=9,
        n in 1usize..=40,
        k in 1usize..=40,
        seed in any::<u64>(),
    ) {
        let noise = &mut Noise::new(seed);
        check::<u8>(noise, kind, (m, n, k), CodeRange::U8);
        check::<i8>(noise, kind, (m, n, k), CodeRange::I8);
        check::<u8>(noise, kind, (m, n, k), CodeRange::unsigned(7).unwrap());
    }
}

#[test]
fn long_panels_with_windows_of_all_kinds_have_exact_products() {
    let noise = &mut Noise::new(140);
    for k in [256, 517, 1040] {
        for kind in KINDS {
            check::<u8>(noise, kind, (8, 25, k), CodeRange::U8);
            check::<i8>(noise, kind, (5, 48, k), CodeRange::I8);
        }
    }
}

/// Weights like those of a trained layer.
fn trained(n: usize, k: usize) -> Vec<i8> {
    weights(&mut Noise::new(141), Kind::Normal, n, k)
}

#[test]
fn nearly_all_windows_of_trained_weights_have_an_order() {
    let (n, k) = (96, 768);
    let w = trained(n, k);
    let w = Weights::from(MatRef::new(&w, n, k).unwrap());
    for kernel in with_orders() {
        let usual = PackedWeights::from_nk(w, kernel).unwrap();
        let ordered = kernel.desc().ordered.unwrap().name;
        assert!(usual.column_kernels().all(|(_, kernel)| kernel.name() == ordered), "{kernel}");
        let counts = usual.window_counts(0..n);
        println!("{kernel}: {counts}");
        assert_eq!(counts.total(), n / 16 * (k / 16), "{kernel}");
        assert!(
            counts.quads * 2 > counts.total() && counts.words * 50 < counts.total(),
            "{kernel}: {counts}"
        );
        assert_eq!(usual.proven_columns(), n);
        // Each range of columns has its own part.
        let parts: WindowCounts = usual.column_ranges(4).map(|columns| usual.window_counts(columns)).sum();
        assert_eq!(parts, counts);
        assert_eq!(usual.window_counts(0..usize::MAX), counts);
        // A panel counts if any of its columns is asked for.
        let panel = |p: usize| usual.window_counts(16 * p..16 * (p + 1));
        assert_eq!(usual.window_counts(5..6), panel(0));
        assert_eq!(usual.window_counts(15..17), panel(0) + panel(1));
        assert_eq!(usual.window_counts(n - 1..usize::MAX), panel(n / 16 - 1));
        #[expect(clippy::reversed_empty_ranges, reason = "ranges that a caller may compute")]
        for none in [0..0, 5..5, n..n, n..usize::MAX, 17..5] {
            assert_eq!(usual.window_counts(none), WindowCounts::default());
        }
        // More effort finds no less, and none finds nothing.
        let thorough = PackedWeights::from_nk(w.with_effort(PackEffort::Thorough), kernel).unwrap();
        assert!(thorough.window_counts(0..n).quads >= counts.quads, "{kernel}");
        let fast = PackedWeights::from_nk(w.with_effort(PackEffort::Fast), kernel).unwrap();
        assert_eq!((fast.window_counts(0..n).total(), fast.proven_columns()), (0, 0), "{kernel}");
        assert!(fast.bytes() < usual.bytes());
        assert_eq!(fast.unpack(), usual.unpack());
    }
}

#[test]
fn orders_found_once_are_those_that_packing_finds() {
    for (n, k) in [(96, 768), (45, 333), (3, 5)] {
        let w = trained(n, k);
        let w = Weights::from(MatRef::new(&w, n, k).unwrap());
        let portable = Kernel::available().find(|kernel| kernel.desc().family == "portable").unwrap();
        for effort in [PackEffort::Usual, PackEffort::Thorough] {
            let w = w.with_effort(effort);
            let found = KOrders::find(w, portable).unwrap();
            assert_eq!(found.as_bytes().len(), n.div_ceil(16) * k.div_ceil(16) * 10);
            let read = KOrders::from_bytes(n, k, found.as_bytes()).unwrap();
            for kernel in Kernel::available() {
                assert!(KOrders::find(w, kernel).unwrap() == found, "{kernel}");
                let searched = PackedWeights::from_nk(w, kernel).unwrap();
                // The effort does not matter to orders that are there.
                let fast = w.with_effort(PackEffort::Fast).with_orders(&read);
                let given = PackedWeights::from_nk(fast, kernel).unwrap();
                assert!(given.column_kernels().eq(searched.column_kernels()), "{kernel}");
                assert_eq!(given.window_counts(0..n), searched.window_counts(0..n), "{kernel}");
                assert_eq!(given.unpack(), searched.unpack(), "{kernel}");
            }
        }
        let none = KOrders::find(w.with_effort(PackEffort::Fast), portable).unwrap();
        assert!(
            none.as_bytes()
                .chunks(10)
                .all(|window| window == [0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe, 0, 0])
        );
    }
}

#[test]
fn u8_weights_have_the_orders_of_their_signed_form() {
    let (n, k) = (40, 100);
    let signed = trained(n, k);
    let unsigned: Vec<u8> = signed.iter().map(|&w| w.cast_unsigned() ^ 0x80).collect();
    let kernel = Kernel::select().unwrap();
    let found = KOrders::find(MatRef::new(&signed, n, k).unwrap(), kernel).unwrap();
    assert_eq!(KOrders::find(MatRef::new(&unsigned, n, k).unwrap(), kernel).unwrap(), found);
}

#[test]
fn orders_that_are_none_are_refused() {
    let (n, k) = (17, 33);
    let len = 2 * 3 * 10;
    let good = KOrders::find(MatRef::new(&trained(n, k), n, k).unwrap(), Kernel::select().unwrap()).unwrap();
    assert_eq!((good.n(), good.k()), (n, k));
    for got in [0, 1, len - 1, len + 1, len + 10] {
        let error = KOrders::from_bytes(n, k, vec![0; got]).unwrap_err();
        assert_eq!(error, KOrdersError::Length { n, k, expected: len as u128, got });
        let text = format!("orders of k of n = 17 by k = 33 weights have 60 bytes, got {got}");
        assert_eq!(error.to_string(), text);
    }
    let error = KOrders::from_bytes(usize::MAX, usize::MAX, []).unwrap_err();
    assert!(
        matches!(error, KOrdersError::Length { got: 0, expected, .. } if expected > u128::from(u64::MAX))
    );
    for (n, k) in [(0, 0), (0, usize::MAX), (usize::MAX, 0)] {
        assert!(KOrders::from_bytes(n, k, []).unwrap().as_bytes().is_empty());
    }
    let mut bytes = good.as_bytes().to_vec();
    bytes[40..50].copy_from_slice(&[0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xcf, 0, 0]);
    let error = KOrders::from_bytes(n, k, bytes).unwrap_err();
    assert_eq!(error, KOrdersError::Twice { channel: 16, window: 1, k: 12 });
    assert_eq!(error.to_string(), "the order of window 1 of channels 16.. has k = 12 of the window twice");
    // Those of another matrix, on every kernel.
    let w = trained(k, n);
    let w = Weights::from(MatRef::new(&w, k, n).unwrap()).with_orders(&good);
    for kernel in Kernel::available() {
        let error = PackedWeights::from_nk(w, kernel).unwrap_err();
        assert_eq!(error, PackError::Orders { n: k, k: n, orders_n: n, orders_k: k }, "{kernel}");
        assert_eq!(error.to_string(), "orders of k are of n = 17 by k = 33 weights, not of n = 33 by k = 17");
        // Stored (k, n), it is the same matrix.
        assert_eq!(PackedWeights::from_kn(w, kernel).unwrap().n(), n);
    }
}

#[cfg(feature = "rayon")]
#[test]
fn threads_find_what_one_finds() {
    let (n, k) = (16 * 37 + 3, 320);
    let w = trained(n, k);
    let w = Weights::from(MatRef::new(&w, n, k).unwrap());
    for kernel in Kernel::available() {
        let one = PackedWeights::from_nk(w, kernel).unwrap();
        for threads in 1..=3 {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let packed = PackedWeights::from_nk(w.with_threads(Threads::Pool(&pool)), kernel).unwrap();
            assert!(packed.column_kernels().eq(one.column_kernels()), "{kernel}");
            for columns in one.column_ranges(37) {
                let counts = |w: &PackedWeights| w.window_counts(columns.clone());
                assert_eq!(counts(&packed), counts(&one), "{kernel}, {columns:?}");
            }
            assert_eq!(packed.unpack(), one.unpack(), "{kernel}");
            let orders = KOrders::find(w.with_threads(Threads::Pool(&pool)), kernel).unwrap();
            assert!(orders == KOrders::find(w, kernel).unwrap(), "{kernel}");
        }
    }
}

/// (`avx2` needs no order for them: as weights lie, any are proven for one group.)
#[test]
fn codes_of_seven_bits_have_orders_without_flips() {
    let noise = &mut Noise::new(142);
    let (n, k) = (32, 512);
    let w = trained(n, k);
    let codes = CodeRange::unsigned(7).unwrap();
    for kernel in with_orders().filter(|kernel| kernel.desc().proven.is_empty()) {
        let w = Weights::from(MatRef::new(&w, n, k).unwrap()).for_activations(codes);
        let counts = PackedWeights::from_nk(w, kernel).unwrap().window_counts(0..n);
        assert!(counts.quads * 100 > counts.total() * 95, "{kernel}: {counts}");
    }
    check::<u8>(noise, Kind::Normal, (13, n, k), codes);
    check::<i8>(noise, Kind::Normal, (13, n, k), CodeRange::signed(7).unwrap());
}

#[test]
fn the_ordered_kernel_is_no_kernel_for_any_weights() {
    for desc in kernels::all().filter_map(|desc| desc.ordered) {
        let (name, family) = (desc.name, desc.family);
        let base = "avx2_6x16"; // the first of those that bring it along
        let error = KernelError::OrderedPanelsOnly { name, base };
        assert_eq!(Kernel::new(desc).unwrap_err(), error);
        let message =
            format!("kernel {name} is for panels with an order of k alone, which packing for {base} finds");
        assert_eq!(error.to_string(), message);
        for forced in [name, family] {
            let error = choose(Features::of_this_cpu(), Some(forced)).unwrap_err();
            assert_eq!(error.to_string(), format!("{ISA_VARIABLE}: {message}"));
        }
    }
}
