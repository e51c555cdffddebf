//! The sums as they are.

use super::{OutputStage, sealed};

/// The sums themselves: `y = acc + bias`, int32.
#[derive(Clone, Copy, Debug, Default)]
pub struct Int32<'a> {
    bias: Option<&'a [i32]>,
}

impl<'a> Int32<'a> {
    /// `y = acc`.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an int32 bias, one entry for each channel.
    #[must_use]
    pub fn with_bias(self, bias: &'a [i32]) -> Self {
        Self { bias: Some(bias) }
    }
}

impl OutputStage for Int32<'_> {
    type Out = i32;
}

impl sealed::Stage for Int32<'_> {
    fn bias(&self) -> Option<&[i32]> {
        self.bias
    }
}
