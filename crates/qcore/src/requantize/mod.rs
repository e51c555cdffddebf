//! From sums to the codes of the next layer, with an activation function on the way.

mod fixed_point;
mod on_codes;
mod requantizer;
mod scalar;

pub use fixed_point::{
    MultiplierError, Q31Multiplier, requantize_double_rounding, requantize_power_of_two,
    requantize_single_rounding, rounding_divide_by_pot, saturating_rounding_doubling_high_mul,
};
pub use on_codes::{OnCodes, requantize_activation};
pub use requantizer::{
    RequantizeError, RequantizeMode, Requantizer, requantize_per_channel, requantize_slice,
};
pub use scalar::{
    dequantize_acc, dequantize_acc_bias, dequantize_acc_residual, output_multiplier, output_multiplier_f64,
    requantize, requantize_add_then_round, requantize_add_then_round_f64, requantize_f64, requantize_real,
    requantize_residual, requantize_scaled,
};
