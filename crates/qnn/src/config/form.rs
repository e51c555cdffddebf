//! The forms that a linear layer can have.

use core::fmt;

/// The form of a linear layer. [`Linear::form`](crate::Linear::form) says which one a layer has,
/// and [`Method::form`](crate::Method::form) which one it will have. Tables and files use its
/// [`name`](Self::name), which `Display` writes.
///
/// ```
/// use qnn::Form;
/// assert_eq!(Form::ALL.map(Form::name), ["float", "static", "dynamic", "weight_only"]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Form {
    /// [`FloatLinear`](crate::FloatLinear): f32, as trained.
    Float,
    /// [`StaticLinear`](crate::StaticLinear): integers are multiplied, and all scales are
    /// calibrated.
    Static,
    /// [`DynamicLinear`](crate::DynamicLinear): integers are multiplied, and the input's scales
    /// come from the values at hand.
    Dynamic,
    /// [`WeightOnlyLinear`](crate::WeightOnlyLinear): weights of 8 or 4 bits become f32 in
    /// registers, and activations are floats.
    WeightOnly,
}

impl Form {
    /// Every variant.
    pub const ALL: [Form; 4] = [Form::Float, Form::Static, Form::Dynamic, Form::WeightOnly];

    /// `float`, `static`, `dynamic` or `weight_only`.
    pub fn name(self) -> &'static str {
        match self {
            Form::Float => "float",
            Form::Static => "static",
            Form::Dynamic => "dynamic",
            Form::WeightOnly => "weight_only",
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
