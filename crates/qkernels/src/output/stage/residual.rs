//! A quantized tensor that is added to the output of a layer.

use super::{StageError, StoredCode, check_finite};
use crate::matrix::view::MatRef;
use crate::output::operands::ResidualRef;

/// An i8 or u8 tensor of the output's shape, to be added before the output is rounded
/// ([`Requantize::with_residual`](super::Requantize::with_residual)).
///
/// ```
/// use qkernels::{MatRef, Requantize, Residual, Scales};
/// let skip = [12i8, -7, 0, 3]; // (m = 2, n = 2), scale 0.1, where the output's is 0.05
/// let skip = Residual::new(MatRef::new(&skip, 2, 2)?, 0, 0.1 / 0.05)?;
/// let stage = Requantize::<i8>::new(Scales::PerTensor(0.02))?.with_residual(skip);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Residual<'a>(pub(super) ResidualRef<'a>);

impl<'a> Residual<'a> {
    /// The codes of `view` (m, n) with their zero point. `multiplier` is the size of their step in
    /// steps of the output: `residual_scale / output_scale`.
    ///
    /// # Errors
    /// [`StageError`] if the multiplier is not finite, or neighbours in a row are not adjacent in
    /// memory.
    pub fn new<A: StoredCode>(
        view: MatRef<'a, A>,
        zero_point: i32,
        multiplier: f32,
    ) -> Result<Self, StageError> {
        check_finite("residual multiplier", &[multiplier])?;
        if view.col_stride() != 1 && view.cols() > 1 {
            return Err(StageError::ResidualStride { col_stride: view.col_stride() });
        }
        Ok(Self(ResidualRef { codes: A::residual(view), zero_point, multiplier }))
    }
}
