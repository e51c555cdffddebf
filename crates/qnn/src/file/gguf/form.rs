//! The forms that layers of GGUF files can have.

use qcore::BlockFormat;
use qkernels::Dynamic;

use super::tensor_type::GgufType;

/// The form that a layer of a GGUF file will have.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum GgufForm {
    /// f32. Any type of weights can have it.
    Float,
    /// Integer products with the file's codes: Q8_0, Q5_0 or Q4_0 weights, and activations
    /// quantized as this says. Symmetric i8 for each token is the usual choice.
    Dynamic(Dynamic),
    /// The file's codes and float activations: Q8_0, Q5_0 or Q4_0 weights.
    WeightOnly,
}

/// The format of weights whose codes products take as they are.
pub(super) fn format_with_codes(element: GgufType) -> Option<BlockFormat> {
    match element {
        GgufType::Blocks(format) => {
            (format.group_len() == format.block_len() && !format.has_minimum()).then_some(format)
        }
        _ => None,
    }
}
