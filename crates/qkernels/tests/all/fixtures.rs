//! Reference products and layers, computed with torch and numpy, on every kernel of this machine.

use qcore::{CodeRange, Q31Multiplier, Scheme, ZeroPointTerms, compensate};
use qkernels::{
    Activations, Dequantize, Dynamic, FixedPointRounding, Int32, Kernel, MatMut, MatRef, Output, OutputStage,
    Requantize, RequantizeFixedPoint, Scales, Threads, Workspace, ZeroPoints, gemm_dynamic,
};
use safetensors::Dtype;

use crate::fixture::{Case, Element, Group};
use crate::oracle::{CANARY, TestCode, pack, product};

/// The operands of a case: activations (m, k) and weights (n, k).
struct Operands<A> {
    a: Vec<A>,
    w: Vec<i8>,
    m: usize,
    k: usize,
    n: usize,
}

impl<A: TestCode + Element> Operands<A> {
    fn of(case: &Case, a: &str, w: &str) -> Self {
        let (&[m, k], &[n, w_k]) = (case.shape(a), case.shape(w)) else {
            panic!("{}: no matrices", case.name)
        };
        assert_eq!(k, w_k, "{}", case.name);
        Self { a: case.get(a), w: case.get(w), m, k, n }
    }

    /// The output that each kernel stores.
    fn run<S: OutputStage>(&self, zero_point: i32, stage: &S, before: Output<S>) -> Vec<Vec<Output<S>>> {
        self.run_with(zero_point, ZeroPoints::PerTensor(0), stage, before)
    }

    /// As `run`, with zero points of the weights.
    fn run_with<S: OutputStage>(
        &self,
        zero_point: i32,
        w_zero_points: ZeroPoints<'_>,
        stage: &S,
        before: Output<S>,
    ) -> Vec<Vec<Output<S>>> {
        let run = |kernel| {
            let a = Activations::new(MatRef::new(&self.a, self.m, self.k).unwrap(), zero_point);
            let w = pack(kernel, (MatRef::new(&self.w, self.n, self.k).unwrap(), w_zero_points));
            product(a, self.m, &w, stage, before, &mut Workspace::new())
        };
        Kernel::available().map(run).collect()
    }
}

fn load() -> Group {
    Group::load("06_quantized_linear")
}

#[test]
fn products_without_zero_points() {
    fn check<A: TestCode + Element>(case: &Case) {
        for c in Operands::<A>::of(case, "a", "b").run(0, &Int32::new(), CANARY) {
            case.check("c", &c);
        }
    }
    let group = load();
    let mut run = 0;
    for case in
        ["gemm_u8i8_", "gemm_i8i8_", "gemm_extreme_"].into_iter().flat_map(|prefix| group.starting(prefix))
    {
        match case.dtype("a") {
            Dtype::U8 => check::<u8>(case),
            _ => check::<i8>(case),
        }
        run += 1;
    }
    assert_eq!(run, 21);
}

#[test]
fn zero_points_of_both_operands() {
    let group = load();
    let mut run = 0;
    for case in group.starting("gemm_zero_points_") {
        let operands = Operands::<i8>::of(case, "a", "b");
        let Operands { m, k, n, .. } = operands;
        let za = case.int("za") as i32;
        let (sums_a, sums_b) = (case.get::<i32>("a_row_sums"), case.get::<i32>("b_row_sums"));
        for (label, zb) in
            [("c", vec![case.int("zb") as i32; n]), ("c_per_channel", case.get::<i32>("zb_per_channel"))]
        {
            // The kernel multiplies codes. All zero points come afterwards.
            for sums in operands.run(0, &Int32::new(), CANARY) {
                let c = sums.iter().enumerate().map(|(at, &sum)| {
                    let (i, j) = (at / n, at % n);
                    compensate(sum, ZeroPointTerms { k, za, zb: zb[j], sum_a: sums_a[i], sum_b: sums_b[j] })
                });
                case.check(label, &c.collect::<Result<Vec<_>, _>>().unwrap());
            }
            // The product takes care of all zero points.
            for c in operands.run_with(za, ZeroPoints::PerChannel(&zb), &Int32::new(), CANARY) {
                case.check(label, &c);
            }
            // The product takes care of the activations' zero point, which leaves that of the
            // weights.
            for sums in operands.run(za, &Int32::new(), CANARY) {
                let c = sums.iter().enumerate().map(|(at, &sum)| {
                    let (i, j) = (at / n, at % n);
                    let sum_a = sums_a[i] - k as i32 * za;
                    compensate(sum, ZeroPointTerms { k, za: 0, zb: zb[j], sum_a, sum_b: sums_b[j] })
                });
                case.check(label, &c.collect::<Result<Vec<_>, _>>().unwrap());
            }
        }
        for kernel in Kernel::available() {
            let w = pack(kernel, MatRef::new(&operands.w, n, k).unwrap());
            case.check("b_row_sums", w.channel_sums());
        }
        assert_eq!(sums_a.len(), m);
        run += 1;
    }
    assert_eq!(run, 2);
}

#[test]
fn accumulators_and_codes_of_quantized_layers() {
    let group = load();
    let mut run = 0;
    for case in group.starting("qlinear_").filter(|case| case.has("y_scale")) {
        let operands = Operands::<i8>::of(case, "q_x", "q_w");
        let (x_zero_point, y_zero_point) =
            (case.scalar::<i32>("x_zero_point"), case.scalar::<i32>("y_zero_point") as i8);
        let (bias, shifted_bias) = (case.get::<i32>("q_bias"), case.get::<i32>("shifted_bias"));
        let multipliers = case.get::<f32>("multiplier_f32");
        let highest = ((1 << (case.int("bits") - 1)) - 1) as i8;
        let codes = Requantize::new(Scales::PerChannel(&multipliers)).unwrap().with_zero_point(y_zero_point);
        let codes = codes.with_clamp(-highest - 1, highest).unwrap();
        let (q31, shifts) = (case.get::<i32>("multiplier_q31"), case.get::<i32>("shift"));
        let q31 = q31.iter().zip(&shifts).map(|(&q31, &shift)| Q31Multiplier::new(q31, shift).unwrap());
        let q31: Vec<_> = q31.collect();
        // The zero point is folded into the bias ahead of time, or left to the product.
        for (zero_point, bias) in [(0, &shifted_bias), (x_zero_point, &bias)] {
            for acc in operands.run(zero_point, &Int32::new().with_bias(bias), CANARY) {
                case.check("acc", &acc);
            }
            for y in operands.run(zero_point, &codes.with_bias(bias), 0x5a) {
                case.check("y_round_then_add_f32", &y);
            }
            for (label, rounding) in [
                ("y_tflite_double_rounding", FixedPointRounding::Double),
                ("y_tflite_single_rounding", FixedPointRounding::Single),
            ] {
                let codes = RequantizeFixedPoint::new(&q31, rounding).with_zero_point(y_zero_point);
                let codes = codes.with_clamp(-highest - 1, highest).unwrap().with_bias(bias);
                for y in operands.run(zero_point, &codes, 0x5a) {
                    case.check(label, &y);
                }
            }
        }
        run += 1;
    }
    assert_eq!(run, 8);
}

#[test]
fn the_same_layer_with_activations_moved_to_u8() {
    let group = load();
    let case = group.case("qlinear_u8_activations_33x127x65");
    let operands = Operands::<u8>::of(case, "q_x_u8", "q_w");
    let zero_point = case.int("x_zero_point_u8") as i32;
    let (bias, shifted_bias) = (case.get::<i32>("q_bias"), case.get::<i32>("shifted_bias"));
    for (zero_point, bias) in [(0, &shifted_bias), (zero_point, &bias)] {
        for acc in operands.run(zero_point, &Int32::new().with_bias(bias), CANARY) {
            case.check("acc", &acc);
        }
    }
}

#[test]
fn a_layer_with_activations_quantized_as_they_come() {
    let group = load();
    let case = group.case("dynamic_linear_7x45x13");
    let operands = Operands::<u8>::of(case, "q_x", "q_w");
    let zero_point = case.scalar::<i32>("x_zero_point");
    let x_scale = case.scalar::<f32>("x_scale");
    let scales: Vec<_> = case.get::<f32>("w_scales").iter().map(|w_scale| x_scale * w_scale).collect();
    let bias = case.get::<f32>("bias");
    let reals = Dequantize::new(Scales::PerChannel(&scales)).unwrap().with_float_bias(&bias).unwrap();
    for acc in operands.run(zero_point, &Int32::new(), CANARY) {
        case.check("acc", &acc);
    }
    for y in operands.run(zero_point, &reals, f32::NAN) {
        case.check("y", &y);
    }
    // The same from the floats themselves.
    let (x, w_scales) = (case.get::<f32>("x"), case.get::<f32>("w_scales"));
    let Operands { ref w, m, k, n, .. } = operands;
    let reals = Dequantize::new(Scales::PerChannel(&w_scales)).unwrap().with_float_bias(&bias).unwrap();
    let how = Dynamic::PerTensor(Scheme::onnx_dynamic(CodeRange::U8));
    for kernel in Kernel::available() {
        let (x, w) = (MatRef::new(&x, m, k).unwrap(), pack(kernel, MatRef::new(w, n, k).unwrap()));
        let mut y = vec![f32::NAN; m * n];
        let out = MatMut::new(&mut y, m, n).unwrap();
        gemm_dynamic(x, how, &w, &reals, out, Threads::Serial, &mut Workspace::new()).unwrap();
        case.check("y", &y);
    }
}

#[test]
fn codes_of_sums_that_are_ties() {
    let group = load();
    let case = group.case("requantize_ties_odd_zero_point");
    // One row of given sums: the weights are 0, and each sum is the bias of a channel.
    let sums = case.get::<i32>("acc");
    let multipliers = case.get::<f32>("multiplier_f32").repeat(sums.len() / 2);
    let operands = Operands::<u8> { a: vec![9], w: vec![0; sums.len()], m: 1, k: 1, n: sums.len() };
    let stage = Requantize::<i8>::new(Scales::PerChannel(&multipliers)).unwrap().with_bias(&sums);
    for y in operands.run(0, &stage.with_zero_point(case.int("y_zero_point") as i8), 0x5a) {
        case.check("y_round_then_add_f32", &y);
    }
}
