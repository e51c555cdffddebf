//! What a layer does to its outputs before it stores them.

use core::fmt;

/// An activation function that a layer applies to its outputs before it stores them. The product's
/// output stage does it, so it costs no pass over memory.
///
/// ```
/// use qnn::{FloatLinear, FusedActivation};
/// let up = FloatLinear::new("mlp.up_proj", 1, 1, vec![1.0], vec![0.0])?.with_activation(FusedActivation::Relu);
/// assert_eq!(up.activation(), FusedActivation::Relu);
/// # Ok::<(), qnn::FloatLinearError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FusedActivation {
    /// Outputs stay as they are.
    #[default]
    None,
    /// Negative outputs become 0.
    Relu,
}

impl FusedActivation {
    /// Every variant.
    pub const ALL: [FusedActivation; 2] = [FusedActivation::None, FusedActivation::Relu];

    /// `none` or `relu`, as in files.
    pub fn name(self) -> &'static str {
        match self {
            FusedActivation::None => "none",
            FusedActivation::Relu => "relu",
        }
    }

    /// The function's value.
    #[inline(always)]
    pub(crate) fn apply(self, y: f32) -> f32 {
        match self {
            FusedActivation::Relu if y < 0.0 => 0.0,
            FusedActivation::Relu | FusedActivation::None => y,
        }
    }
}

impl fmt::Display for FusedActivation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
