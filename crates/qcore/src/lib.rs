//! The arithmetic of int8 quantization, each formula once: no SIMD, no `unsafe`, no I/O.
//!
//! A quantized tensor stores codes `q`, and `x ≈ (q - zero_point) * scale`:
//!
//! ```text
//!  values  x    -1.0        0.0                                 3.0
//!                ├───────────┼───────────────────────────────────┤     one step is the scale: 4 / 255
//!  codes   q     0          64                                 255     64 is the zero point: the code of 0
//! ```
//!
//! The path of a tensor through this crate:
//!
//! 1. [`Range::of`], [`channel_ranges`] or an [`Observer`] find the range of the values.
//! 2. A [`Scheme`] turns the range into [`QParams`]: scale, zero point and [`CodeRange`].
//! 3. [`quantize_slice`], [`quantize_per_channel`] and [`quantize_per_group`] turn values into
//!    codes. [`dequantize_slice`] and its relatives turn codes back into values, and [`pack_codes`]
//!    packs narrow codes into bytes. Values may be of any [`Float`] type.
//! 4. A kernel, which is not part of this crate, multiplies codes into int32 accumulators.
//!    [`fold_zero_points`], [`compensate`] and [`quantize_biases`] handle zero points and biases in
//!    integers, [`check_accumulator`] proves that nothing overflows, and [`WeightChannel`] finds a
//!    larger weight scale where a bias does not fit.
//! 5. [`requantize`], or another [`RequantizeMode`], turns an accumulator into a code of the next
//!    layer, and [`dequantize_acc`] turns it into an f32. An [`ActivationFunction`] is applied on
//!    the way.
//! 6. [`ErrorMetrics`], [`SqnrAboutMean`], [`clipped_fraction`] and [`WeightStorage`] measure what
//!    quantization cost and what it saved.
//!
//! ```
//! use qcore::{ErrorMetrics, QParams, Scheme, dequantize_slice, quantize_tensor};
//!
//! let x = [-1.0, -0.25, 0.0, 0.5, 3.0];
//! let (codes, p) = quantize_tensor::<u8>(&x, &Scheme::activations_u8())?;
//! assert_eq!(codes, [0, 48, 64, 96, 255]);
//!
//! let mut restored = [0.0; 5];
//! dequantize_slice(&codes, &p, &mut restored)?;
//! assert!(ErrorMetrics::of(&x, &restored)?.max_abs_error <= f64::from(p.scale()) / 2.0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Invariants
//!
//! - Rounding is to nearest, ties to even. A division by the scale is a real division. Float steps
//!   are done in f32, in the order written and never fused, unless a name says otherwise.
//! - Every finite input has a defined result. NaN becomes the zero point, +inf the largest code and
//!   -inf the smallest; the strict forms report them as errors instead. Nothing panics.
//! - The libraries of this field disagree on divisors, rounding and degenerate inputs. Each choice
//!   has a name here ([`SymmetricDivisor`], [`AffineRange`], [`ScaleArithmetic`], [`ZeroScale`],
//!   [`ZeroPointOrder`], [`Rounding`], [`RequantizeMode`]), and each combination in use is a preset
//!   ([`Scheme::onnx_dynamic`], [`Scheme::pytorch_affine`] and others). The presets of PyTorch,
//!   ONNX and the courses are tested against numbers that torch or numpy computed.
//! - The per-value functions ([`QParams::quantize`], [`requantize`] and others) are always inlined
//!   and free of branches. A loop around one, in code compiled for some instruction set, becomes
//!   vector code with exactly these results.

#![forbid(unsafe_code)]

// Rooms. Each names only those above it, which `cargo xtask tidy` checks.
mod value;
mod code;
mod params;
mod tensor;
mod block;
mod sum;
mod activation;
mod requantize;
mod observer;
mod measure;

pub use activation::{ActivationError, ActivationFunction, ActivationTable};
pub use block::{BlockError, BlockFormat, BlockGroup, BlockPart, GgmlQ8_0};
pub use code::{
    Code, CodeRange, CodeRangeError, PackError, WeightStorage, pack_codes, packed_bytes, unpack_codes,
};
pub use measure::{
    Agreement, ErrorMetrics, MetricsError, Sqnr, SqnrAboutMean, agreement, argmax, clipped_fraction,
    clipped_fraction_per_channel, sqnr_db,
};
pub use observer::{
    EntropyObserver, HistogramObserver, MergeObserver, MinMaxObserver, MovingAverageObserver, MseObserver,
    Observer, PerChannelObserver, PercentileObserver, SettingError,
};
pub use params::{
    AffineRange, Kind, ParamError, QParams, Rounding, ScaleArithmetic, Scheme, SchemeError, SymmetricDivisor,
    ZeroPointOrder, ZeroScale,
};
pub use requantize::{
    MultiplierError, OnCodes, Q31Multiplier, RequantizeError, RequantizeMode, Requantizer, dequantize_acc,
    dequantize_acc_bias, dequantize_acc_residual, output_multiplier, output_multiplier_f64, requantize,
    requantize_activation, requantize_add_then_round, requantize_add_then_round_f64,
    requantize_double_rounding, requantize_f64, requantize_per_channel, requantize_power_of_two,
    requantize_real, requantize_residual, requantize_scaled, requantize_single_rounding, requantize_slice,
    rounding_divide_by_pot, saturating_rounding_doubling_high_mul,
};
pub use sum::{
    AccumulatorError, BiasError, BiasesError, CompensateError, FittedScale, FoldError, NoFittingScale,
    WeightChannel, ZeroPointTerms, check_accumulator, code_abs_sum, code_sum, compensate,
    compensate_wrapping, fold_affine_zero_points, fold_zero_point, fold_zero_points, group_term,
    group_term_with_minimum, quantize_bias, quantize_bias_clamped, quantize_biases, quantize_biases_clamped,
    sum_group_terms,
};
pub use tensor::{
    AxisError, ChannelAxis, ChannelError, GroupError, Groups, LengthError, QuantizeError, TensorError,
    channel_params, channel_ranges, dequantize_into, dequantize_per_channel, dequantize_per_channel_into,
    dequantize_per_group, dequantize_slice, fake_quantize_per_channel, fake_quantize_slice, group_params,
    quantize_from, quantize_per_channel, quantize_per_channel_from, quantize_per_channel_in_f16,
    quantize_per_channel_strict, quantize_per_group, quantize_slice, quantize_slice_strict, quantize_tensor,
};
pub use value::{Float, ObserverError, Range, RangeError, first_non_finite};
