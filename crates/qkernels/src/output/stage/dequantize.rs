//! From sums to real values.

use core::marker::PhantomData;

use qcore::{ActivationFunction, Float};

use super::{OutputStage, Scales, StageError, StoredFloat, check_finite, check_function, sealed};

/// Real values in f32. See [`DequantizeTo`].
pub type Dequantize<'a> = DequantizeTo<'a, f32>;

/// Real values: `y = f32(acc + bias) * scale + float_bias`, then the activation function. Each step
/// is in f32 ([`qcore::dequantize_acc`]). In the end the result is rounded to `T`: f32, f16 or
/// bf16.
///
/// The scale of a product is `input_scale * weight_scale[channel]`.
///
/// ```
/// use half::f16;
/// use qkernels::{Dequantize, DequantizeTo, Scales};
/// let stage = Dequantize::new(Scales::PerTensor(0.02))?.with_float_bias(&[0.5, -0.5])?.with_relu();
/// let narrow = DequantizeTo::<f16>::new(Scales::PerChannel(&[0.02, 0.01]))?;
/// # Ok::<(), qkernels::StageError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct DequantizeTo<'a, T> {
    scale: Scales<'a>,
    bias: Option<&'a [i32]>,
    float_bias: Option<&'a [f32]>,
    function: ActivationFunction,
    output: PhantomData<fn() -> T>,
}

impl<'a, T: Float> DequantizeTo<'a, T> {
    /// `y = f32(acc) * scale`.
    ///
    /// # Errors
    /// [`StageError::NotFinite`] if a scale is NaN or infinite.
    pub fn new(scale: Scales<'a>) -> Result<Self, StageError> {
        scale.check_finite("scale")?;
        Ok(Self {
            scale,
            bias: None,
            float_bias: None,
            function: ActivationFunction::Identity,
            output: PhantomData,
        })
    }

    /// Adds an int32 bias to the sums, one entry for each channel.
    #[must_use]
    pub fn with_bias(self, bias: &'a [i32]) -> Self {
        Self { bias: Some(bias), ..self }
    }

    /// Adds an f32 bias to the scaled sums, one entry for each channel.
    ///
    /// # Errors
    /// [`StageError::NotFinite`] if an entry is NaN or infinite.
    pub fn with_float_bias(self, bias: &'a [f32]) -> Result<Self, StageError> {
        check_finite("float bias", bias)?;
        Ok(Self { float_bias: Some(bias), ..self })
    }

    /// Replaces negative results by 0.
    #[must_use]
    pub fn with_relu(self) -> Self {
        Self { function: ActivationFunction::Relu, ..self }
    }

    /// Applies `function` to each result, after the bias. It replaces an earlier one.
    ///
    /// # Errors
    /// [`StageError::Activation`] if a bound or slope of the function is unusable.
    pub fn with_activation(self, function: ActivationFunction) -> Result<Self, StageError> {
        Ok(Self { function: check_function(function)?, ..self })
    }
}

impl<T: StoredFloat> OutputStage for DequantizeTo<'_, T> {
    type Out = T;
}

impl<T: StoredFloat> sealed::Stage for DequantizeTo<'_, T> {
    fn bias(&self) -> Option<&[i32]> {
        self.bias
    }

    fn factor(&self) -> Option<Scales<'_>> {
        Some(self.scale)
    }

    fn float_bias(&self) -> Option<&[f32]> {
        self.float_bias
    }

    fn function(&self) -> ActivationFunction {
        self.function
    }
}
