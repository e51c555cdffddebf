//! Activation functions, each defined once, on real values.

#[cfg(test)]
mod accuracy;
mod curves;
mod error;
mod exponential;
mod table;

pub use error::ActivationError;
pub use table::ActivationTable;

use core::fmt;

/// A function that a layer applies to each of its outputs.
///
/// | variant | `f(y)` | name |
/// | --- | --- | --- |
/// | [`Identity`](Self::Identity) | y | `identity` |
/// | [`Relu`](Self::Relu) | max(y, 0) | `relu` |
/// | [`Clamp`](Self::Clamp) | min(max(y, min), max); [`RELU6`](Self::RELU6) is from 0 to 6 | `clamp` |
/// | [`LeakyRelu`](Self::LeakyRelu) | y, or y * slope below 0 | `leaky_relu` |
/// | [`Gelu`](Self::Gelu) | y * (1 + erf(y / sqrt(2))) / 2 | `gelu` |
/// | [`GeluTanh`](Self::GeluTanh) | y * (1 + tanh(sqrt(2 / pi) * (y + 0.044715 * y^3))) / 2 | `gelu_tanh` |
/// | [`Silu`](Self::Silu) | y / (1 + exp(-y)) | `silu` |
/// | [`HardSwish`](Self::HardSwish) | y * min(max(y + 3, 0), 6) / 6 | `hard_swish` |
///
/// ```
/// use qcore::ActivationFunction;
///
/// assert_eq!(ActivationFunction::default(), ActivationFunction::Identity);
/// assert_eq!(ActivationFunction::RELU6.apply(7.5), 6.0);
/// assert!((ActivationFunction::Gelu.apply(1.0) - 0.841_344_7).abs() < 1e-7);
/// ```
///
/// # Errors of the curves
///
/// The first four functions and hard-swish are computed by their formula, each step rounded to f32.
/// The other three are computed without a math library, by f32 additions, multiplications,
/// divisions and selections, so their bits are the same on every CPU. This is how far they are from
/// the exact formula, over all finite y:
///
/// | function | relative error | from | absolute error elsewhere |
/// | --- | --- | --- | --- |
/// | `Gelu` | at most 5e-7 | y >= -13 | at most 1e-43 |
/// | `GeluTanh` | at most 1.2e-6 | y >= -3 | at most 4e-9 |
/// | | at most 1.3e-5 | y >= -9 | at most 2e-33 |
/// | `Silu` | at most 2.5e-7 | y >= -85 | at most 2e-42 |
/// | `HardSwish` | at most 2e-7 | y >= -3 | exact |
///
/// For comparison, rounding to f32 alone has a relative error of up to 6e-8. The last column also
/// covers results below 2^-126, which are subnormal and have fewer digits.
///
/// # Values that are not finite
///
/// NaN stays a NaN, whose bits depend on the CPU. +inf stays +inf, or becomes `max` of a clamp.
/// -inf becomes `min` of a clamp, 0 with ReLU, -0.0 with the four curves, and an infinity with
/// leaky ReLU (0 if the slope is 0).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum ActivationFunction {
    /// y itself.
    #[default]
    Identity,
    /// Values below 0 become 0; all others, including -0.0, stay as they are.
    Relu,
    /// The nearest value in `min..=max`. Either bound may be infinite.
    Clamp {
        /// What smaller values become.
        min: f32,
        /// What larger values become.
        max: f32,
    },
    /// Values below 0 are multiplied by `slope`; all others stay as they are.
    LeakyRelu {
        /// The factor for values below 0. PyTorch and ONNX use 0.01 by default.
        slope: f32,
    },
    /// GELU by the error function: PyTorch's `gelu` and ONNX's `Gelu`.
    Gelu,
    /// GELU approximated by tanh, which differs from the exact form by up to 4.8e-4. PyTorch and
    /// ONNX call it `approximate="tanh"`.
    GeluTanh,
    /// SiLU, also called swish.
    Silu,
    /// Hard-swish. The factor `min(max(y + 3, 0), 6) / 6` is computed first, so a large y does not
    /// overflow.
    HardSwish,
}

/// Values that a function is applied to at a time: several vectors on every CPU, since one
/// is a long chain of instructions.
const BLOCK: usize = 32;

impl ActivationFunction {
    /// The clamp from 0 to 6.
    ///
    /// ```
    /// use qcore::ActivationFunction;
    ///
    /// assert_eq!([-1.0, 4.0, 9.0].map(|y| ActivationFunction::RELU6.apply(y)), [0.0, 4.0, 6.0]);
    /// ```
    pub const RELU6: ActivationFunction = ActivationFunction::Clamp { min: 0.0, max: 6.0 };

    /// `f(y)`.
    ///
    /// Each function is free of branches, so a loop around it becomes vector code if the choice of
    /// the function is made outside the loop. The compiler often moves it there by itself;
    /// [`apply_slice`](Self::apply_slice) guarantees it.
    ///
    /// ```
    /// use qcore::ActivationFunction;
    ///
    /// let leaky = ActivationFunction::LeakyRelu { slope: 0.25 };
    /// assert_eq!([-8.0, 0.0, 2.0].map(|y| leaky.apply(y)), [-2.0, 0.0, 2.0]);
    /// assert_eq!([-4.0, -1.5, 3.0].map(|y| ActivationFunction::HardSwish.apply(y)), [0.0, -0.375, 3.0]);
    /// ```
    #[inline(always)]
    #[must_use]
    pub fn apply(self, y: f32) -> f32 {
        match self {
            ActivationFunction::Identity => y,
            ActivationFunction::Relu => curves::relu(y),
            ActivationFunction::Clamp { min, max } => curves::clamp(y, min, max),
            ActivationFunction::LeakyRelu { slope } => curves::leaky_relu(y, slope),
            ActivationFunction::Gelu => curves::gelu(y),
            ActivationFunction::GeluTanh => curves::gelu_tanh(y),
            ActivationFunction::Silu => curves::silu(y),
            ActivationFunction::HardSwish => curves::hard_swish(y),
        }
    }

    /// [`apply`](Self::apply) to every value in place, with one loop for each function.
    ///
    /// ```
    /// use qcore::ActivationFunction;
    ///
    /// let mut y = [-2.0, -0.0, 3.0];
    /// ActivationFunction::Relu.apply_slice(&mut y);
    /// assert_eq!(y, [0.0, 0.0, 3.0]);
    /// ```
    #[inline(always)]
    pub fn apply_slice(self, values: &mut [f32]) {
        /// A loop of a known length is vector code throughout. Of one that is not, only whole
        /// rounds of several vectors are, and rows of 16 or 48 values may take none.
        #[inline(always)]
        fn each(values: &mut [f32], f: impl Fn(f32) -> f32) {
            let (blocks, rest) = values.as_chunks_mut::<BLOCK>();
            for block in blocks {
                block.iter_mut().for_each(|y| *y = f(*y));
            }
            if !rest.is_empty() {
                let mut block = [0.0; BLOCK];
                block[..rest.len()].copy_from_slice(rest);
                block.iter_mut().for_each(|y| *y = f(*y));
                rest.copy_from_slice(&block[..rest.len()]);
            }
        }
        match self {
            ActivationFunction::Identity => {}
            ActivationFunction::Relu => each(values, curves::relu),
            ActivationFunction::Clamp { min, max } => each(values, |y| curves::clamp(y, min, max)),
            ActivationFunction::LeakyRelu { slope } => each(values, |y| curves::leaky_relu(y, slope)),
            ActivationFunction::Gelu => each(values, curves::gelu),
            ActivationFunction::GeluTanh => each(values, curves::gelu_tanh),
            ActivationFunction::Silu => each(values, curves::silu),
            ActivationFunction::HardSwish => each(values, curves::hard_swish),
        }
    }

    /// Returns the function if its parameters are valid.
    ///
    /// # Errors
    /// When a bound of a clamp is NaN or `min` is greater than `max`, or a slope is not finite.
    ///
    /// ```
    /// use qcore::ActivationFunction;
    ///
    /// assert!(ActivationFunction::Clamp { min: 0.0, max: f32::INFINITY }.check().is_ok());
    /// let error = ActivationFunction::Clamp { min: 1.0, max: 0.5 }.check().unwrap_err();
    /// assert_eq!(error.to_string(), "clamp bounds 1.0 and 0.5 are not in order");
    /// ```
    pub fn check(self) -> Result<ActivationFunction, ActivationError> {
        match self {
            ActivationFunction::Clamp { min, max } if min.is_nan() || max.is_nan() || min > max => {
                Err(ActivationError::Clamp { min, max })
            }
            ActivationFunction::LeakyRelu { slope } if !slope.is_finite() => {
                Err(ActivationError::Slope { slope })
            }
            sound => Ok(sound),
        }
    }

    /// The name of the function, as in PyTorch and ONNX.
    ///
    /// ```
    /// use qcore::ActivationFunction;
    ///
    /// assert_eq!(ActivationFunction::GeluTanh.name(), "gelu_tanh");
    /// assert_eq!(ActivationFunction::RELU6.name(), "clamp");
    /// ```
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ActivationFunction::Identity => "identity",
            ActivationFunction::Relu => "relu",
            ActivationFunction::Clamp { .. } => "clamp",
            ActivationFunction::LeakyRelu { .. } => "leaky_relu",
            ActivationFunction::Gelu => "gelu",
            ActivationFunction::GeluTanh => "gelu_tanh",
            ActivationFunction::Silu => "silu",
            ActivationFunction::HardSwish => "hard_swish",
        }
    }

    /// The parameters of the function in the order of its fields: two for a clamp, one for leaky
    /// ReLU, none for the others.
    ///
    /// ```
    /// use qcore::ActivationFunction;
    ///
    /// assert!(ActivationFunction::RELU6.parameters().eq([0.0, 6.0]));
    /// assert_eq!(ActivationFunction::Gelu.parameters().count(), 0);
    /// ```
    pub fn parameters(self) -> impl Iterator<Item = f32> {
        let parameters = match self {
            ActivationFunction::Clamp { min, max } => [Some(min), Some(max)],
            ActivationFunction::LeakyRelu { slope } => [Some(slope), None],
            _ => [None; 2],
        };
        parameters.into_iter().flatten()
    }

    /// The function with this [`name`](Self::name) and these [`parameters`](Self::parameters),
    /// which may come from a file.
    ///
    /// # Errors
    /// When no function has this name, the number of parameters is wrong, or [`check`](Self::check)
    /// refuses them.
    ///
    /// ```
    /// use qcore::ActivationFunction;
    ///
    /// assert_eq!(ActivationFunction::from_name("clamp", &[0.0, 6.0])?, ActivationFunction::RELU6);
    /// let error = ActivationFunction::from_name("leaky_relu", &[]).unwrap_err();
    /// assert_eq!(error.to_string(), "leaky_relu takes 1 parameter(s), got 0");
    /// # Ok::<(), qcore::ActivationError>(())
    /// ```
    pub fn from_name(name: &str, parameters: &[f32]) -> Result<ActivationFunction, ActivationError> {
        let first = parameters.first().copied().unwrap_or_default();
        let second = parameters.get(1).copied().unwrap_or_default();
        let functions = [
            ActivationFunction::Identity,
            ActivationFunction::Relu,
            ActivationFunction::Clamp { min: first, max: second },
            ActivationFunction::LeakyRelu { slope: first },
            ActivationFunction::Gelu,
            ActivationFunction::GeluTanh,
            ActivationFunction::Silu,
            ActivationFunction::HardSwish,
        ];
        let Some(function) = functions.into_iter().find(|function| function.name() == name) else {
            return Err(ActivationError::Name { name: name.to_owned() });
        };
        let expected = function.parameters().count();
        if parameters.len() != expected {
            return Err(ActivationError::Parameters {
                function: function.name(),
                expected,
                got: parameters.len(),
            });
        }
        function.check()
    }
}

/// The name, followed by the parameters in parentheses: `clamp(0, 6)`.
impl fmt::Display for ActivationFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        for (i, parameter) in self.parameters().enumerate() {
            write!(f, "{}{parameter}", if i == 0 { "(" } else { ", " })?;
        }
        f.write_str(if self.parameters().next().is_some() { ")" } else { "" })
    }
}
