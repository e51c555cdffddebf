//! What does not fit is refused with an error that contains the numbers, and nothing is written.

use std::error::Error;

use half::{bf16, f16};
use qcore::{CodeRange, Q31Multiplier};
use qkernels::{
    Activations, Dequantize, DequantizeTo, FixedPointRounding, GemmError, Int32, Kernel, MatMut, MatRef,
    Output, OutputStage, OutsideError, PackError, PackedWeights, Requantize, RequantizeFixedPoint, Residual,
    Scales, StageError, Threads, ViewError, Weights, Workspace, ZeroPoints, gemm,
};

use crate::oracle::{CANARY, TestCode};

/// `error` is `expected` and says `message`.
#[track_caller]
fn refused<T: Error + PartialEq>(error: T, expected: T, message: &str) {
    assert_eq!(error, expected);
    assert_eq!(error.to_string(), message);
}

/// The error of a product of `a` (m, k) with weights of 1 (n, k), on every kernel. The product must
/// leave the output as it was.
fn product_error<S: OutputStage>(
    a: Activations<'_, u8>,
    (n, k): (usize, usize),
    stage: &S,
    (rows, cols): (usize, usize),
    canary: Output<S>,
) -> GemmError
where
    Output<S>: PartialEq + std::fmt::Debug,
{
    let w = vec![1i8; n * k];
    let mut errors = Kernel::available().map(|kernel| {
        let w = PackedWeights::from_nk(MatRef::new(&w, n, k).unwrap(), kernel).unwrap();
        let mut y = vec![canary; rows * cols];
        let out = MatMut::new(&mut y, rows, cols).unwrap();
        let error = gemm(a, &w, stage, out, Threads::Serial, &mut Workspace::new()).unwrap_err();
        assert!(y.iter().all(|&y| y == canary), "{kernel} wrote in spite of {error}");
        error
    });
    let error = errors.next().unwrap();
    assert!(errors.all(|other| other == error));
    error
}

const Q: [u8; 60] = [1; 60];

fn activations(m: usize, k: usize) -> Activations<'static, u8> {
    MatRef::new(&Q, m, k).unwrap().into()
}

#[test]
fn activations_of_another_depth() {
    for got in [4, 6, 0] {
        refused(
            product_error(activations(3, got), (2, 5), &Int32::new(), (3, 2), CANARY),
            GemmError::Depth { expected: 5, got },
            &format!("expected k = 5 columns of activations, got {got}"),
        );
    }
}

#[test]
fn activations_of_other_codes_than_the_weights_are_packed_for() {
    let (a, codes) = (activations(3, 5), CodeRange::unsigned(7).unwrap());
    for kernel in Kernel::available() {
        let w = Weights::from(MatRef::new(&[1i8; 10], 2, 5).unwrap()).for_activations(codes);
        let w = PackedWeights::from_nk(w, kernel).unwrap();
        let mut y = [CANARY; 6];
        let out = MatMut::new(&mut y, 3, 2).unwrap();
        refused(
            gemm(a, &w, &Int32::new(), out, Threads::Serial, &mut Workspace::new()).unwrap_err(),
            GemmError::ActivationCodes { expected: 127, got: 255 },
            "weights are packed for activations of at most 127 (i8 plus 128), got up to 255",
        );
        assert_eq!(y, [CANARY; 6]);
    }
    let outside = Activations::within(MatRef::new(&[3u8, 4, 5, 128], 2, 2).unwrap(), 0, codes).unwrap_err();
    assert_eq!(outside, OutsideError { row: 1, col: 1, code: 128, min: 0, max: 127 });
    assert_eq!(outside.to_string(), "code 128 in row 1, column 1 is not in 0..=127");
    // The same code at any stride, and with the other sign.
    let transposed = MatRef::new(&[3u8, 4, 128, 5], 2, 2).unwrap().transposed();
    assert_eq!(Activations::within(transposed, 0, codes).unwrap_err(), OutsideError { row: 0, ..outside });
    let signed = CodeRange::signed(7).unwrap();
    let outside = Activations::within(MatRef::new(&[63i8, -65], 1, 2).unwrap(), 0, signed).unwrap_err();
    assert_eq!(outside, OutsideError { row: 0, col: 1, code: -65, min: -64, max: 63 });
}

/// Of u8 within -64..=63 there are 0..=63 alone.
#[test]
fn activations_within_codes_that_their_type_lacks() {
    let a = Activations::within(MatRef::new(&[63u8; 5], 1, 5).unwrap(), 0, CodeRange::signed(7).unwrap());
    // A bias may leave just the room that these codes need.
    let bias = [i32::MAX - 63 * 5, 0];
    for kernel in Kernel::available() {
        let w = Weights::from(MatRef::new(&[1i8; 10], 2, 5).unwrap());
        let run = |w, stage: &Int32<'_>, y: &mut [i32; 2]| {
            let (w, y) = (PackedWeights::from_nk(w, kernel).unwrap(), MatMut::new(y, 1, 2).unwrap());
            gemm(a.unwrap(), &w, stage, y, Threads::Serial, &mut Workspace::new())
        };
        for (bits, refused) in [(5, Some(GemmError::ActivationCodes { expected: 31, got: 63 })), (6, None)] {
            let (w, mut y) = (w.for_activations(CodeRange::unsigned(bits).unwrap()), [CANARY; 2]);
            assert_eq!(run(w, &Int32::new(), &mut y).err(), refused);
            assert_eq!(y, if refused.is_some() { [CANARY; 2] } else { [63 * 5; 2] });
        }
        let mut y = [CANARY; 2];
        run(w, &Int32::new().with_bias(&bias), &mut y).unwrap();
        assert_eq!(y, [i32::MAX, 63 * 5]);
    }
}

#[test]
fn an_output_of_another_shape() {
    for (rows, cols) in [(2, 2), (4, 2), (3, 1), (3, 3), (2, 3), (0, 0)] {
        refused(
            product_error(activations(3, 5), (2, 5), &Int32::new(), (rows, cols), CANARY),
            GemmError::OutputShape { m: 3, n: 2, rows, cols },
            &format!("expected a 3 x 2 output, got {rows} x {cols}"),
        );
    }
}

#[track_caller]
fn overflows(error: GemmError, channel: usize, bound: u128) {
    let GemmError::Overflow(overflow) = error else { panic!("{error}") };
    assert_eq!((overflow.channel, overflow.bound), (channel, bound));
    let message = format!("channel {channel}: the accumulator can reach {bound}, more than 2147483647");
    assert_eq!(error.to_string(), message);
}

#[test]
fn sums_that_int32_might_not_hold() {
    // Weights of 1, k = 5, u8: 255 * 5 = 1275 is left for the bias.
    let most = i32::MAX - 1275;
    let bias = [most, -most];
    let stage = Int32::new().with_bias(&bias);
    let w = [1i8; 10];
    for kernel in Kernel::available() {
        let w = PackedWeights::from_nk(MatRef::new(&w, 2, 5).unwrap(), kernel).unwrap();
        let mut y = [CANARY; 2];
        let out = MatMut::new(&mut y, 1, 2).unwrap();
        let a = [255u8; 5];
        let a = MatRef::new(&a, 1, 5).unwrap();
        gemm(a, &w, &stage, out, Threads::Serial, &mut Workspace::new()).unwrap();
        assert_eq!(y, [i32::MAX, 1275 - most]);
    }
    for (bias, channel, bound) in [
        ([most + 1, 0], 0, 1u128 << 31),
        ([0, -most - 1], 1, 1 << 31),
        ([0, i32::MIN], 1, (1 << 31) + 1275),
        ([-i32::MAX, i32::MIN], 0, (1 << 31) + 1274),
    ] {
        let stage = Int32::new().with_bias(&bias);
        overflows(product_error(activations(1, 5), (2, 5), &stage, (1, 2), CANARY), channel, bound);
    }
    // |q - zero_point| is what is multiplied, wherever the zero point is.
    for (zero_point, magnitude) in
        [(i32::MIN, (1u128 << 31) + 255), (i32::MAX, (1 << 31) - 1), (-500_000_000, 500_000_255)]
    {
        let a = Activations::new(MatRef::new(&Q, 1, 5).unwrap(), zero_point);
        overflows(product_error(a, (2, 5), &Int32::new(), (1, 2), CANARY), 0, 5 * magnitude);
    }
}

#[test]
fn stage_operands_of_another_length() {
    let ints = [1i32; 9];
    let floats = [1f32; 9];
    let expect = |error: GemmError, operand: &'static str, len: usize| {
        refused(
            error,
            GemmError::Stage(StageError::Length { operand, n: 4, len }),
            &format!("expected n = 4 entries in the stage's {operand}, got {len}"),
        );
    };
    let (a, nk, shape) = (activations(3, 5), (4, 5), (3, 4));
    for len in [0, 3, 5, 9] {
        let (ints, floats) = (&ints[..len], &floats[..len]);
        expect(product_error(a, nk, &Int32::new().with_bias(ints), shape, CANARY), "bias", len);
        let stage = Dequantize::new(Scales::PerTensor(1.0)).unwrap();
        expect(product_error(a, nk, &stage.with_bias(ints), shape, 0.5), "bias", len);
        expect(product_error(a, nk, &stage.with_float_bias(floats).unwrap(), shape, 0.5), "float bias", len);
        let stage = Dequantize::new(Scales::PerChannel(floats)).unwrap();
        expect(product_error(a, nk, &stage, shape, 0.5), "scale", len);
        let stage = Requantize::<i8>::new(Scales::PerTensor(1.0)).unwrap();
        expect(product_error(a, nk, &stage.with_bias(ints), shape, 90), "bias", len);
        let stage = Requantize::<u8>::new(Scales::PerChannel(floats)).unwrap();
        expect(product_error(a, nk, &stage, shape, 90), "multiplier", len);
    }
}

#[test]
fn stage_operands_that_are_not_finite() {
    for value in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
        let per_channel = [1.0, 2.0, value, f32::NAN];
        for (operand, channel, error) in [
            ("scale", 0, Dequantize::new(Scales::PerTensor(value)).unwrap_err()),
            ("scale", 2, Dequantize::new(Scales::PerChannel(&per_channel)).unwrap_err()),
            (
                "float bias",
                2,
                Dequantize::new(Scales::PerTensor(1.0)).unwrap().with_float_bias(&per_channel).unwrap_err(),
            ),
            ("multiplier", 0, Requantize::<i8>::new(Scales::PerTensor(value)).unwrap_err()),
            ("multiplier", 2, Requantize::<u8>::new(Scales::PerChannel(&per_channel)).unwrap_err()),
        ] {
            let StageError::NotFinite { operand: got_operand, channel: got_channel, value: got } = error
            else {
                panic!("{error}");
            };
            assert_eq!((got_operand, got_channel, got.to_bits()), (operand, channel, value.to_bits()));
            assert_eq!(
                error.to_string(),
                format!("the stage's {operand} is {value} at channel {channel}; it must be finite")
            );
        }
    }
}

#[test]
fn fixed_point_multipliers_of_another_number() {
    let multipliers = [Q31Multiplier::default(); 9];
    for len in [0, 2, 3, 5, 9] {
        let stage = RequantizeFixedPoint::<i8>::new(&multipliers[..len], FixedPointRounding::Single);
        refused(
            product_error(activations(3, 5), (4, 5), &stage, (3, 4), 90),
            GemmError::Stage(StageError::Length { operand: "fixed-point multiplier", n: 4, len }),
            &format!("expected n = 4 entries in the stage's fixed-point multiplier, got {len}"),
        );
    }
    let stage = RequantizeFixedPoint::<u8>::new(&multipliers[..1], FixedPointRounding::Double);
    refused(
        product_error(activations(3, 5), (4, 5), &stage.with_bias(&[1; 3]), (3, 4), 90),
        GemmError::Stage(StageError::Length { operand: "bias", n: 4, len: 3 }),
        "expected n = 4 entries in the stage's bias, got 3",
    );
}

#[test]
fn halves_with_operands_of_another_length() {
    let stage = DequantizeTo::<f16>::new(Scales::PerChannel(&[1.0; 3])).unwrap();
    let scale = StageError::Length { operand: "scale", n: 4, len: 3 };
    let error = product_error(activations(3, 5), (4, 5), &stage, (3, 4), f16::MAX);
    assert_eq!(error, GemmError::Stage(scale));
    let stage =
        DequantizeTo::<bf16>::new(Scales::PerTensor(1.0)).unwrap().with_float_bias(&[1.0; 5]).unwrap();
    let float_bias = StageError::Length { operand: "float bias", n: 4, len: 5 };
    let error = product_error(activations(3, 5), (4, 5), &stage, (3, 4), bf16::MAX);
    assert_eq!(error, GemmError::Stage(float_bias));
}

#[test]
fn residuals_of_another_shape() {
    let stage = Requantize::<u8>::new(Scales::PerTensor(1.0)).unwrap();
    for (rows, cols) in [(3, 3), (3, 5), (2, 4), (4, 4), (4, 3), (0, 0), (1, 12)] {
        let residual = Residual::new(MatRef::new(&Q, rows, cols).unwrap(), 0, 1.0).unwrap();
        refused(
            product_error(activations(3, 5), (4, 5), &stage.with_residual(residual), (3, 4), 90),
            GemmError::Stage(StageError::ResidualShape { m: 3, n: 4, rows, cols }),
            &format!("expected a 3 x 4 residual, got {rows} x {cols}"),
        );
    }
}

#[test]
fn residuals_that_cannot_be_read_or_scaled() {
    for (rows, cols, col_stride) in [(3, 4, 3), (1, 2, 0), (2, 2, 7)] {
        let view = MatRef::with_strides(&Q, rows, cols, 1, col_stride).unwrap();
        refused(
            Residual::new(view, 0, 1.0).unwrap_err(),
            StageError::ResidualStride { col_stride },
            &format!("the residual's columns are {col_stride} elements apart; they must be adjacent"),
        );
    }
    // A single column has no neighbours.
    assert!(Residual::new(MatRef::with_strides(&Q, 3, 1, 2, 9).unwrap(), 0, 1.0).is_ok());
    for value in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
        let error = Residual::new(MatRef::new(&Q, 3, 4).unwrap(), 0, value).unwrap_err();
        let message = format!("the stage's residual multiplier is {value} at channel 0; it must be finite");
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn clamps_without_a_code() {
    let signed = Requantize::<i8>::new(Scales::PerTensor(1.0)).unwrap();
    assert!(signed.with_clamp(-5, -5).is_ok());
    refused(
        signed.with_clamp(5, -6).unwrap_err(),
        StageError::EmptyClamp { low: 5, high: -6 },
        "clamp from 5 to -6 is empty",
    );
    let unsigned = Requantize::<u8>::new(Scales::PerTensor(1.0)).unwrap();
    refused(
        unsigned.with_clamp(255, 254).unwrap_err(),
        StageError::EmptyClamp { low: 255, high: 254 },
        "clamp from 255 to 254 is empty",
    );
    let in_fixed_point = RequantizeFixedPoint::<u8>::new(&[], FixedPointRounding::Double);
    refused(
        in_fixed_point.with_clamp(1, 0).unwrap_err(),
        StageError::EmptyClamp { low: 1, high: 0 },
        "clamp from 1 to 0 is empty",
    );
}

#[test]
fn weights_with_zero_points_of_another_number() {
    let (w, zero_points) = ([1i8; 12], [0; 7]);
    for kernel in Kernel::available() {
        for len in [0, 2, 4, 7] {
            let zero_points = ZeroPoints::PerChannel(&zero_points[..len]);
            let expected = PackError::ZeroPoints { n: 3, len };
            let message = format!("expected n = 3 zero points, got {len}");
            let nk = Weights::new(MatRef::new(&w, 3, 4).unwrap(), zero_points);
            refused(PackedWeights::from_nk(nk, kernel).unwrap_err(), expected, &message);
            let kn = Weights::new(MatRef::new(&w, 4, 3).unwrap(), zero_points);
            refused(PackedWeights::from_kn(kn, kernel).unwrap_err(), expected, &message);
        }
    }
}

#[test]
fn weights_whose_zero_point_is_no_code() {
    fn check<W: TestCode>(w: W, outside: &[i32]) {
        let w = [w; 12];
        let (min, max) = (W::RANGE.min(), W::RANGE.max());
        for (kernel, &zero_point) in
            Kernel::available().flat_map(|kernel| outside.iter().map(move |zero_point| (kernel, zero_point)))
        {
            let w = MatRef::new(&w, 3, 4).unwrap();
            for (zero_points, channel) in [
                (ZeroPoints::PerTensor(zero_point), 0),
                (ZeroPoints::PerChannel(&[max, min, zero_point]), 2),
                (ZeroPoints::PerChannel(&[max, zero_point, zero_point]), 1),
            ] {
                refused(
                    PackedWeights::from_nk(Weights::new(w, zero_points), kernel).unwrap_err(),
                    PackError::ZeroPoint { channel, zero_point, min, max },
                    &format!("zero point {zero_point} of channel {channel} is not in {min}..={max}"),
                );
            }
        }
    }
    check(1i8, &[-129, 128, i32::MIN, i32::MAX]);
    check(1u8, &[-1, 256, i32::MIN, i32::MAX]);
}

/// Weights as far as possible from their zero point, in every order in which their sums are made.
#[test]
fn weights_that_32_bits_cannot_sum_with_their_zero_point() {
    let largest_k = 8_421_504;
    let (k, abs_sum) = (largest_k + 1, 255 * (largest_k as u64 + 1));
    let (w, kernel) = (vec![255u8; k], Kernel::available().next().unwrap());
    for (row_stride, col_stride) in [(k, 1), (1, 0), (0, 0)] {
        let channel = |k, zero_point| {
            let view = MatRef::with_strides(&w, 1, k, row_stride, col_stride).unwrap();
            PackedWeights::from_nk(Weights::new(view, ZeroPoints::PerTensor(zero_point)), kernel)
        };
        assert_eq!(channel(largest_k, 0).unwrap().channel_sums(), [i32::MAX - 127]);
        refused(
            channel(k, 0).unwrap_err(),
            PackError::Overflow { channel: 0, k, abs_sum },
            &format!(
                "sums over the k = {k} weights of channel 0 leave 32 bits: sum of |w - zero point| is {abs_sum}"
            ),
        );
        assert_eq!(channel(k, 1).unwrap().channel_sums(), [254 * k as i32]);
    }
}

#[test]
fn weights_that_32_bits_cannot_sum() {
    // A single weight stands for all of them, repeated by its stride.
    for (weight, largest_k) in [(-128i8, 1usize << 24), (127, 16_909_320)] {
        let w = [1, weight];
        let channels = |k| MatRef::with_strides(&w, 2, k, 1, 0).unwrap();
        for kernel in Kernel::available() {
            let k = largest_k + 1;
            let abs_sum = k as u64 * u64::from(weight.unsigned_abs());
            refused(
                PackedWeights::from_nk(channels(k), kernel).unwrap_err(),
                PackError::Overflow { channel: 1, k, abs_sum },
                &format!(
                    "sums over the k = {k} weights of channel 1 leave 32 bits: sum of |w - zero point| is {abs_sum}"
                ),
            );
        }
        let kernel = Kernel::available().next().unwrap();
        let packed = PackedWeights::from_nk(channels(largest_k), kernel).unwrap();
        let sum = i32::try_from(largest_k as i64 * i64::from(weight)).unwrap();
        assert_eq!(packed.channel_sums(), [largest_k as i32, sum]);
        assert_eq!(packed.channel_abs_sums(), [largest_k as u32, sum.unsigned_abs()]);
        assert_eq!(packed.largest_abs_sum(), sum.unsigned_abs());
    }
}

#[test]
fn weights_that_exceed_the_address_space() {
    let w = [1i8];
    for kernel in Kernel::available() {
        for (n, k) in [
            (usize::MAX, 1),
            (1, usize::MAX),
            (usize::MAX, usize::MAX),
            (usize::MAX / 2, 3),
            (1 << 32, 1 << 32),
            (isize::MAX as usize, 1),
        ] {
            let w = MatRef::with_strides(&w, n, k, 0, 0).unwrap();
            let message = format!("packed weights of n = {n} by k = {k} exceed the address space");
            refused(PackedWeights::from_nk(w, kernel).unwrap_err(), PackError::TooLarge { n, k }, &message);
            refused(
                PackedWeights::from_kn(w.transposed(), kernel).unwrap_err(),
                PackError::TooLarge { n, k },
                &message,
            );
        }
    }
}

/// Without depth there is nothing to pack, but there are sums to keep for each channel.
#[test]
fn channels_without_depth_that_exceed_the_address_space() {
    for kernel in Kernel::available() {
        let (n, k) = (1 << 62, 0);
        let w = MatRef::new(&[0i8; 0], n, k).unwrap();
        refused(
            PackedWeights::from_nk(w, kernel).unwrap_err(),
            PackError::TooLarge { n, k },
            "packed weights of n = 4611686018427387904 by k = 0 exceed the address space",
        );
    }
}

#[test]
fn views_of_slices_that_are_too_short() {
    let mut data = [0u8; 23];
    for (rows, cols, row_stride, col_stride, needed) in
        [(4, 6, 6, 1, 24), (1, 24, 0, 1, 24), (2, 2, 22, 1, 24), (12, 2, 1, 12, 24), (3, 4, 1, 10, 33)]
    {
        let expected = ViewError::TooShort { rows, cols, row_stride, col_stride, needed, len: 23 };
        let message = format!(
            "a {rows} x {cols} matrix with strides ({row_stride}, {col_stride}) needs {needed} elements, got 23"
        );
        refused(
            MatRef::with_strides(&data, rows, cols, row_stride, col_stride).unwrap_err(),
            expected,
            &message,
        );
        if col_stride == 1 {
            refused(MatMut::with_stride(&mut data, rows, cols, row_stride).unwrap_err(), expected, &message);
        }
    }
    assert!(MatRef::new(&data, 4, 6).is_err() && MatMut::new(&mut data, 4, 6).is_err());
    assert!(MatRef::new(&data, 1, 23).is_ok() && MatMut::new(&mut data, 1, 23).is_ok());
}

#[test]
fn views_whose_extent_overflows() {
    let mut data = [0i32; 4];
    let big = usize::MAX;
    for (rows, cols, row_stride, col_stride) in [
        (big, 2, 2, 1),
        (2, 2, big, 1),
        (3, 3, big / 2 + 1, 1),
        (1, 3, 0, big),
        (2, big, big, 1),
        (big, big, 1, 1),
    ] {
        let expected = ViewError::TooLarge { rows, cols, row_stride, col_stride };
        let message = format!(
            "the extent of a {rows} x {cols} matrix with strides ({row_stride}, {col_stride}) overflows usize"
        );
        refused(
            MatRef::with_strides(&data, rows, cols, row_stride, col_stride).unwrap_err(),
            expected,
            &message,
        );
        if col_stride == 1 && row_stride >= cols {
            refused(MatMut::with_stride(&mut data, rows, cols, row_stride).unwrap_err(), expected, &message);
        }
    }
}

#[test]
fn written_rows_that_overlap() {
    let mut data = [0i32; 100];
    for row_stride in [0, 1, 4] {
        refused(
            MatMut::with_stride(&mut data, 2, 5, row_stride).unwrap_err(),
            ViewError::RowsOverlap { cols: 5, row_stride },
            &format!("rows of 5 elements overlap at row stride {row_stride}"),
        );
    }
    assert!(MatMut::with_stride(&mut data, 1, 5, 0).is_ok());
}
