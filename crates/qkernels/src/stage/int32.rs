//! The sums as they are.

use super::sealed;
use crate::finish::Target;
use crate::view::MatMut;

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

impl sealed::Stage for Int32<'_> {
    type Out = i32;

    fn bias(&self) -> Option<&[i32]> {
        self.bias
    }

    #[expect(private_interfaces, reason = "sealed")]
    fn target(out: MatMut<'_, i32>) -> Target<'_> {
        Target::I32(out)
    }
}
