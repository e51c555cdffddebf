//! What is measured: something that multiplies (m, k) activations with (n, k) weights.

use qbenches::{Kind, Shape};

/// Whatever can go wrong while a contender runs.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The types of activations and weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operands {
    /// The bytes as u8.
    U8I8,
    /// The same bytes as i8, for those who have no u8.
    I8I8,
    /// The same numbers in f32.
    F32,
}

impl Operands {
    /// As in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Operands::U8I8 => "u8 x i8",
            Operands::I8I8 => "i8 x i8",
            Operands::F32 => "f32",
        }
    }
}

/// The data of one shape.
#[derive(Clone, Copy)]
pub(crate) struct Problem<'d> {
    pub(crate) shape: Shape,
    /// Activations, (m, k).
    pub(crate) a: &'d [u8],
    /// The same bytes as i8.
    pub(crate) a_i8: &'d [i8],
    /// Weights, (n, k).
    pub(crate) w: &'d [i8],
}

/// A kernel or a library.
pub(crate) trait Contender {
    /// The name in tables.
    fn name(&self) -> &'static str;

    /// Whose it is.
    fn kind(&self) -> Kind;

    /// What it multiplies.
    fn operands(&self) -> Operands;

    /// Packs what it can pack before the clock starts. None where it has nothing to say about the
    /// shape.
    fn prepare<'d>(&self, problem: &Problem<'d>) -> Result<Option<Box<dyn Prepared + 'd>>>;

    /// Gop/s of its instruction alone, where that is known.
    fn peak(&self, _budget: std::time::Duration) -> Option<f64> {
        None
    }

    /// Whether its kernel says of itself that it saturates.
    fn may_saturate(&self) -> bool {
        false
    }
}

/// A contender with its weights packed and its buffers allocated.
pub(crate) trait Prepared {
    /// The product: what the clock measures.
    fn run(&mut self) -> Result<()>;

    /// The last product, (m, n). Not for f32.
    fn product(&self) -> Vec<i32>;
}
