//! The two types that codes of activations have.

use core::fmt;

use qcore::{CodeRange, Scheme};

/// The type that codes of activations have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ActivationCodes {
    /// Codes 0..=255, affine ([`Scheme::activations_u8`]). PyTorch (FBGEMM) and ONNX Runtime use
    /// them on x86.
    #[default]
    U8,
    /// Codes -128..=127, affine ([`Scheme::activations_i8`]): the same steps, 128 lower. TensorFlow
    /// Lite uses them.
    I8,
}

impl ActivationCodes {
    /// Every variant.
    pub const ALL: [ActivationCodes; 2] = [ActivationCodes::U8, ActivationCodes::I8];

    /// `u8` or `i8`, as in files.
    pub fn name(self) -> &'static str {
        match self {
            ActivationCodes::U8 => "u8",
            ActivationCodes::I8 => "i8",
        }
    }

    /// The codes.
    pub fn range(self) -> CodeRange {
        match self {
            ActivationCodes::U8 => CodeRange::U8,
            ActivationCodes::I8 => CodeRange::I8,
        }
    }

    /// How a range becomes scale and zero point.
    pub(crate) fn scheme(self) -> Scheme {
        match self {
            ActivationCodes::U8 => Scheme::activations_u8(),
            ActivationCodes::I8 => Scheme::activations_i8(),
        }
    }
}

impl fmt::Display for ActivationCodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
