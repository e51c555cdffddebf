//! Panels whose weights are proven to fit sums of 16 bits, beside panels whose weights are not. The
//! tests check the kernels that packing gives them, and their products against the triple loop in
//! i64. On kernels without such sums these are products like any other.

use std::ops::Range;

use qcore::{CodeRange, QParams};
use qkernels::{
    Activations, Dequantize, Features, FloatActivations, FloatStage, Int32, Kernel, KernelDesc, KernelError,
    MatMut, MatRef, PackEffort, PackError, PackedWeights, ScaledWeights, Scales, SelectError, Threads,
    WeightScales, Weights, Workspace, ZeroPoints, choose, gemm_columns, kernels, report, weight_only,
};

use crate::oracle::{CANARY, Conformance, Noise, Right, TestCode, pack, product, sums};

/// The largest sum of weights of one sign that fits: 255 * 128 = 32640, and 255 * 129 is beyond 16
/// bits.
const BOUND: i32 = 128;

/// The k of each word that `proven` sums: two neighbours in the first or the second half of each of
/// its groups.
fn words(proven: &KernelDesc, k: usize) -> impl Iterator<Item = Vec<usize>> {
    let (kr, groups) = (proven.kr, proven.narrow_groups);
    let firsts = (0..k).step_by(kr * groups).flat_map(move |step| (step..step + kr).step_by(2));
    let word = move |first: usize| (0..groups).flat_map(move |group| [0, 1].map(|i| first + group * kr + i));
    firsts.map(move |first| word(first).filter(|&p| p < k).collect()).filter(|word: &Vec<_>| !word.is_empty())
}

/// A channel that is at the bound in all of its words. In some words the positive weights are at
/// the bound, in some the negative ones, in most both.
fn at_the_bound(noise: &mut Noise, proven: &KernelDesc, k: usize) -> Vec<i8> {
    let mut w = vec![0i32; k];
    for word in words(proven, k) {
        for sign in [1, -1] {
            let mut left = BOUND;
            // Each weight has one sign. Those of the other sign are left for the second round.
            let chosen: Vec<_> = word.iter().filter(|&&p| w[p] == 0 && noise.below(3) > 0).collect();
            for &&p in &chosen {
                let share = noise.below(left as usize + 1) as i32;
                w[p] = sign * share.min(i32::from(i8::MAX));
                left -= w[p].abs();
            }
            // The last weight takes the rest, as far as i8 goes.
            if let Some(&&p) = chosen.last() {
                let rest = (w[p].abs() + left).min(if sign > 0 { 127 } else { 128 });
                w[p] = sign * rest;
            }
        }
    }
    w.into_iter().map(|w| w as i8).collect()
}

/// Kernels with faster forms, and these forms.
fn proofs() -> impl Iterator<Item = (Kernel, &'static KernelDesc)> {
    Kernel::available().flat_map(|kernel| kernel.desc().proven.iter().map(move |&proven| (kernel, proven)))
}

/// The names of the kernels of all columns.
fn names(w: &PackedWeights) -> Vec<(Range<usize>, &'static str)> {
    w.column_kernels().map(|(columns, kernel)| (columns, kernel.name())).collect()
}

/// Rows that reach the largest and the smallest sums of some channels of `w` (n, k), then random
/// rows.
fn activations<A: TestCode>(noise: &mut Noise, m: usize, w: &[i8], k: usize) -> Vec<A> {
    let mut a = noise.codes::<A>(m * k);
    for (i, row) in a.chunks_mut(k).enumerate().take(4) {
        let channel = &w[noise.below(w.len() / k) * k..][..k];
        for (a, &w) in row.iter_mut().zip(channel) {
            *a = A::from_clamped(if (w > 0) == (i % 2 == 0) { A::RANGE.max() } else { A::RANGE.min() });
        }
    }
    a
}

#[test]
fn sums_at_the_bound_are_exact_and_proven_and_one_more_is_not() {
    fn sweep<A: TestCode>() {
        let (mut conformance, mut noise) = (Conformance::default(), Noise::new(90));
        for (kernel, proven) in proofs() {
            let (kr, nr, step) = (proven.kr, proven.nr, proven.kr * proven.narrow_groups);
            for k in (1..=2 * kr + 1).chain([step - 1, step, step + 1, 3 * step + kr + 3, 7 * step, 130]) {
                let n = nr + 3;
                let mut w: Vec<i8> = (0..n).flat_map(|_| at_the_bound(&mut noise, proven, k)).collect();
                // The last word of the last channel has neighbours that reach the bound on their
                // own.
                let last = words(proven, k).last().unwrap();
                w[last[0]] = 127;
                last[1..].iter().for_each(|&p| w[p] = i8::from(p == last[1]));
                let a = activations::<A>(&mut noise, 7, &w, k);
                let a = MatRef::new(&a, 7, k).unwrap();
                conformance.check_on(kernel, a, 3, MatRef::new(&w, n, k).unwrap());
                let packed = pack(kernel, MatRef::new(&w, n, k).unwrap());
                assert_eq!(packed.proven_columns(), n, "{kernel}, k = {k}");
                assert_eq!(packed.unpack(), w, "{kernel}, k = {k}");
                let form = |w: &PackedWeights| w.column_kernels().next().unwrap().1.desc().narrow_groups;
                assert!(form(&packed) >= proven.narrow_groups, "{kernel}, k = {k}");

                // This adds one in a random word of a random channel of the first panel.
                if k < 2 {
                    continue;
                }
                let channel = noise.below(nr);
                let all: Vec<_> = words(proven, k).filter(|word| word.len() > 1).collect();
                let word = noise.choose(&(0..all.len()).collect::<Vec<_>>());
                let sign = noise.choose(&[1, -1]);
                for (i, &p) in all[word].iter().enumerate() {
                    w[channel * k + p] = sign * [127, 2][i.min(1)] * i8::from(i < 2);
                }
                let as_they_lie = Weights::from(MatRef::new(&w, n, k).unwrap()).with_effort(PackEffort::Fast);
                let packed = PackedWeights::from_nk(as_they_lie, kernel).unwrap();
                assert!(form(&packed) < proven.narrow_groups, "{kernel} for {}, k = {k}", proven.name);
                conformance.check_on(kernel, a, 3, MatRef::new(&w, n, k).unwrap());
            }
        }
    }
    sweep::<u8>();
    sweep::<i8>();
}

/// Weights (n, k) whose panels are as `forms` says: at the bound of a form, or of full range if
/// there is no form.
fn mixed(
    noise: &mut Noise,
    nr: usize,
    (n, k): (usize, usize),
    forms: &[Option<&'static KernelDesc>],
) -> Vec<i8> {
    let channel = |channel: usize| match forms[channel / nr % forms.len()] {
        Some(proven) => at_the_bound(noise, proven, k),
        None => (0..k).map(|p| if p < 2 { 127 } else { noise.codes(1)[0] }).collect(),
    };
    (0..n).flat_map(channel).collect()
}

/// All forms of all panels, in an order with neighbours of the same kind and of others.
fn forms(noise: &mut Noise, kernel: Kernel, panels: usize) -> Vec<Option<&'static KernelDesc>> {
    let mut all: Vec<_> = kernel.desc().proven.iter().copied().map(Some).collect();
    all.push(None);
    (0..panels).map(|_| noise.choose(&all)).collect()
}

#[test]
fn panels_of_all_kinds_in_one_product() {
    fn sweep<A: TestCode, W: TestCode>() {
        let (mut conformance, mut noise) = (Conformance::default(), Noise::new(91));
        for kernel in Kernel::available() {
            let nr = kernel.desc().nr;
            for k in [1, 3, 4, 15, 16, 17, 33, 64, 67, 131] {
                for m in [1, 2, 5, 6, 7, 13] {
                    let n = 5 * nr + noise.below(nr);
                    let forms = forms(&mut noise, kernel, 6);
                    let signed = mixed(&mut noise, nr, (n, k), &forms);
                    let w: Vec<W> = signed.iter().map(|&w| W::from_signed(w)).collect();
                    let a = activations::<A>(&mut noise, m, &signed, k);
                    let a = MatRef::new(&a, m, k).unwrap();
                    let zero_points = noise.zero_points::<W>(n);
                    let zero_points = noise.choose(&[
                        ZeroPoints::PerTensor(0),
                        ZeroPoints::PerTensor(zero_points[0]),
                        ZeroPoints::PerChannel(&zero_points),
                    ]);
                    let transposed: Vec<W> = (0..n * k).map(|at| w[at % n * k + at / n]).collect();
                    let nk = MatRef::new(&w, n, k).unwrap();
                    let kn = MatRef::new(&transposed, k, n).unwrap().transposed();
                    let zero_point = noise.choose(&[0, -9, 128]);
                    conformance.check_on(kernel, a, zero_point, (nk, zero_points));
                    conformance.check_on(kernel, a, zero_point, (kn, zero_points));
                    let (nk, kn) = (pack(kernel, (nk, zero_points)), pack(kernel, (kn, zero_points)));
                    assert_eq!(names(&nk), names(&kn), "{kernel}");
                    assert!(nk.unpack() == signed && kn.unpack() == signed, "{kernel}");
                }
            }
        }
    }
    sweep::<u8, i8>();
    sweep::<i8, i8>();
    sweep::<u8, u8>();
    sweep::<i8, u8>();
}

#[test]
fn known_activations_prove_what_any_do_not() {
    fn sweep<A: TestCode>(codes: impl Fn(u32) -> CodeRange) {
        let (mut noise, mut workspace) = (Noise::new(94), Workspace::new());
        for kernel in Kernel::available() {
            for ((m, n, k), bits) in [(7, 40, 33), (1, 17, 64), (13, 16, 130)]
                .into_iter()
                .flat_map(|shape| (2..=8).map(move |b| (shape, b)))
            {
                let codes = codes(bits);
                // These are weights at the end of their own range, most of them of one sign.
                let ends = noise.choose(&[[127, -128], [63, -64], [31, -32], [-128, -128]]);
                let w: Vec<i8> = (0..n * k).map(|_| noise.choose(&[ends[0], ends[0], ends[1], 5])).collect();
                let w = MatRef::new(&w, n, k).unwrap();
                let any = pack(kernel, w);
                let known = PackedWeights::from_nk(Weights::from(w).for_activations(codes), kernel).unwrap();
                assert!(known.proven_columns() >= any.proven_columns(), "{kernel}, {bits} bits");
                let proofs = !kernel.desc().proven.is_empty();
                if proofs && codes.min() == 0 && bits < 8 {
                    assert_eq!(known.proven_columns(), n, "{kernel}, {bits} bits");
                }
                assert_eq!(known.unpack(), any.unpack(), "{kernel}, {bits} bits");
                let code = |_| noise.choose(&[codes.min(), codes.max(), codes.max(), codes.middle()]);
                let a: Vec<A> = (0..m * k).map(code).map(A::from_clamped).collect();
                let a = MatRef::new(&a, m, k).unwrap();
                let within = Activations::within(a, 3, codes).unwrap();
                let y = product(within, m, &known, &Int32::new(), CANARY, &mut workspace);
                assert_eq!(y, sums(a, 3, w), "{kernel}, {bits} bits");
            }
        }
    }
    sweep::<u8>(|bits| CodeRange::unsigned(bits).unwrap());
    sweep::<i8>(|bits| CodeRange::signed(bits).unwrap());
}

#[test]
fn floats_that_become_known_codes_need_no_look() {
    for kernel in Kernel::available() {
        let codes = CodeRange::unsigned(7).unwrap();
        let (m, n, k) = (5, 19, 40);
        let w = Weights::from(MatRef::new(&[127i8; 19 * 40], n, k).unwrap()).for_activations(codes);
        let w = PackedWeights::from_nk(w, kernel).unwrap();
        let x = vec![1e9f32; m * k];
        let params = QParams::new(1.0, 0, codes).unwrap();
        let x = FloatActivations::new(MatRef::new(&x, m, k).unwrap(), params).unwrap();
        let y = product(x, m, &w, &Int32::new(), CANARY, &mut Workspace::new());
        assert_eq!(y, vec![127 * 127 * 40; m * n], "{kernel}");
    }
}

/// Blocks of k begin where narrow sums begin, and blocks of rows where tiles begin.
#[test]
fn k_and_rows_are_cut_into_blocks() {
    let (mut conformance, mut noise) = (Conformance::default(), Noise::new(92));
    for kernel in Kernel::available() {
        for (m, n, k) in [(7, 50usize, 70_003), (400, 50, 1030), (3, 900, 5000)] {
            let nr = kernel.desc().nr;
            let forms = forms(&mut noise, kernel, n.div_ceil(nr));
            let w = mixed(&mut noise, nr, (n, k), &forms);
            let a = activations::<u8>(&mut noise, m, &w, k);
            let (a, w) = (MatRef::new(&a, m, k).unwrap(), MatRef::new(&w, n, k).unwrap());
            let zero_points = noise.zero_points::<i8>(n);
            conformance.check_on(kernel, a, 0, w);
            if k < 20_000 {
                conformance.check_on(kernel, a, 7, (w, ZeroPoints::PerChannel(&zero_points)));
            }
        }
    }
}

#[test]
fn ranges_of_columns_and_threads_meet_panels_of_all_kinds() {
    let mut noise = Noise::new(93);
    for kernel in Kernel::available() {
        let nr = kernel.desc().nr;
        let (m, n, k) = (9, 7 * nr + 1, 2000);
        let forms = forms(&mut noise, kernel, 8);
        let w = mixed(&mut noise, nr, (n, k), &forms);
        let a = activations::<i8>(&mut noise, m, &w, k);
        let bias = noise.integers(n, 9999);
        let zero_points = noise.zero_points::<i8>(n);
        let right = (MatRef::new(&w, n, k).unwrap(), ZeroPoints::PerChannel(&zero_points[..]));
        let a = MatRef::new(&a, m, k).unwrap();
        let mut expected = sums(a, 5, Right::from(right));
        expected.chunks_mut(n).for_each(|row| row.iter_mut().zip(&bias).for_each(|(y, bias)| *y += bias));
        let w = pack(kernel, right);
        let (a, stage) = (Activations::new(a, 5), Int32::new().with_bias(&bias));
        for parts in 1..=8 {
            let mut y = vec![CANARY; m * n];
            let mut rest = MatMut::new(&mut y, m, n).unwrap();
            for columns in w.column_ranges(parts) {
                let (out, other) = rest.split_at_col(columns.len()).unwrap();
                rest = other;
                gemm_columns(a, &w, columns, &stage, out, &mut Workspace::new()).unwrap();
            }
            assert!(y == expected, "{kernel}, {parts} parts");
        }
        #[cfg(feature = "rayon")]
        for threads in 1..=3 {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut y = vec![CANARY; m * n];
            let out = MatMut::new(&mut y, m, n).unwrap();
            qkernels::gemm(a, &w, &stage, out, Threads::Pool(&pool), &mut Workspace::new()).unwrap();
            assert!(y == expected, "{kernel}, {threads} threads");
        }
    }
}

#[test]
fn each_column_says_what_it_runs_on() {
    for kernel in Kernel::available() {
        let (nr, k) = (kernel.desc().nr, 64);
        let none = pack(kernel, MatRef::new(&[0i8; 0], 0, 3).unwrap());
        assert_eq!((none.column_kernels().count(), none.proven_columns()), (0, 0));
        // The largest weights, and none that is small enough to be beside them in a word.
        let wide = vec![-128i8; (3 * nr + 1) * k];
        let wide = pack(kernel, MatRef::new(&wide, 3 * nr + 1, k).unwrap());
        let (runs, columns) = (kernel.desc().ordered.filter(|_| kernel.desc().proven.is_empty()), 3 * nr + 1);
        assert_eq!(names(&wide), [(0..columns, runs.map_or(kernel.name(), |ordered| ordered.name))]);
        assert_eq!(wide.proven_columns(), if runs.is_some() { columns } else { 0 });
        let &[fastest, .., slowest] = kernel.desc().proven else { continue };
        let mut w = vec![1i8; (3 * nr + 1) * k];
        w[nr * k..2 * nr * k].fill(64);
        w[2 * nr * k..3 * nr * k].fill(-128);
        let as_they_lie =
            Weights::from(MatRef::new(&w, 3 * nr + 1, k).unwrap()).with_effort(PackEffort::Fast);
        let w = PackedWeights::from_nk(as_they_lie, kernel).unwrap();
        let expected = [
            (0..nr, fastest.name),
            (nr..2 * nr, slowest.name),
            (2 * nr..3 * nr, kernel.name()),
            (3 * nr..3 * nr + 1, fastest.name),
        ];
        assert_eq!(names(&w), expected);
        assert_eq!(w.proven_columns(), 2 * nr + 1);
    }
}

/// Weight-only products use one kernel for all columns. Their bits do not depend on what is proven
/// about the integers.
#[test]
fn floats_are_multiplied_alike_in_panels_of_all_kinds() {
    let mut noise = Noise::new(95);
    for (kernel, plain) in Kernel::available().filter_map(|kernel| {
        let family = format!("{}_madd", kernel.desc().family);
        Some((kernel, Kernel::available().find(|plain| plain.desc().family == family)?))
    }) {
        let nr = kernel.desc().nr;
        let (m, n, k) = (5, 6 * nr + 3, 70);
        let forms = forms(&mut noise, kernel, 7);
        let w = mixed(&mut noise, nr, (n, k), &forms);
        let (x, scales) = (noise.floats(m * k, 1.0), noise.floats(n, 0.01));
        let run = |kernel| {
            let w = pack(kernel, MatRef::new(&w, n, k).unwrap());
            let w = ScaledWeights::new(w, WeightScales::per_channel(&scales)).unwrap();
            let mut y = vec![f32::NAN; m * n];
            let (x, out) = (MatRef::new(&x, m, k).unwrap(), MatMut::new(&mut y, m, n).unwrap());
            weight_only(x, &w, &FloatStage::new(), out, Threads::Serial, &mut Workspace::new()).unwrap();
            (y.into_iter().map(f32::to_bits).collect::<Vec<_>>(), w.unpack(), w.dequantize())
        };
        assert!(run(kernel) == run(plain), "{kernel}");
    }
}

#[test]
fn nothing_is_too_small_to_be_proven() {
    let mut workspace = Workspace::new();
    for kernel in Kernel::available() {
        for (m, n, k) in [(0, 3, 4), (2, 0, 4), (2, 3, 0), (1, 1, 1)] {
            let (a, w) = (vec![255u8; m * k], vec![-1i8; n * k]);
            let w = pack(kernel, MatRef::new(&w, n, k).unwrap());
            let stage = Dequantize::new(Scales::PerTensor(0.5)).unwrap();
            let y = product(MatRef::new(&a, m, k).unwrap(), m, &w, &stage, f32::NAN, &mut workspace);
            assert_eq!(y, vec![-127.5 * k as f32; m * n], "{kernel} {m} x {n} x {k}");
        }
    }
}

/// Nothing public packs weights for a kernel with sums of 16 bits except through the proof.
#[test]
fn a_kernel_of_proven_panels_packs_nothing_itself() {
    for (kernel, proven) in proofs() {
        let expected = KernelError::ProvenPanelsOnly { name: proven.name, base: kernel.name() };
        assert_eq!(Kernel::new(proven), Err(expected));
        assert_eq!(
            expected.to_string(),
            format!(
                "kernel {} is for panels of proven weights alone, which packing for {kernel} finds",
                proven.name
            )
        );
        assert!(!kernels::all().any(|desc| desc == proven));
        assert!(Kernel::available().all(|kernel| kernel.desc() != proven));
        assert!(report().is_ok_and(|report| report.rows.iter().all(|(desc, _)| *desc != proven)));
        let forced = choose(Features::of_this_cpu(), Some(proven.name)).unwrap_err();
        assert_eq!(forced, SelectError::SomePanelsOnly(expected));
    }
    for kernel in Kernel::available() {
        // Weights of 7 are proven. The token of their panels is no token for other panels.
        let small = PackedWeights::from_nk(MatRef::new(&[7i8; 8], 1, 8).unwrap(), kernel).unwrap();
        for (_, form) in small.column_kernels().filter(|(_, form)| *form != kernel) {
            let large = MatRef::new(&[127i8; 8], 1, 8).unwrap();
            let error = PackedWeights::from_nk(large, form).unwrap_err();
            assert_eq!(error, PackError::Kernel(Kernel::new(form.desc()).unwrap_err()));
            assert_eq!(PackedWeights::from_kn(large.transposed(), form).unwrap_err(), error);
            assert!(ScaledWeights::new(small.clone(), WeightScales::per_channel(&[1.0])).is_ok());
        }
    }
}
