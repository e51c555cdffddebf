//! In which order a quotient is rounded and the zero point added, and where ties go.

/// Whether the zero point is added after or before rounding. The two differ at ties if the zero
/// point is odd.
///
/// ```
/// use qcore::{CodeRange, QParams, ZeroPointOrder};
///
/// let p = QParams::new(1.0, 3, CodeRange::I8)?;
/// assert_eq!(p.quantize(0.5), 3); // 0 + 3
/// assert_eq!(p.with_order(ZeroPointOrder::AddThenRound).quantize(0.5), 4); // 3.5
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ZeroPointOrder {
    /// `round(x / scale) + zero_point`: ONNX, PyTorch, FBGEMM, the quantize step of MIT 6.5940
    /// lab 2. The default.
    #[default]
    RoundThenAdd,
    /// `round(x / scale + zero_point)`: TinyTorch, the requantize step of MIT 6.5940 lab 2.
    AddThenRound,
}

/// Where a quotient halfway between two integers is rounded to.
///
/// ```
/// use qcore::{CodeRange, QParams, Rounding};
///
/// let p = QParams::new(1.0, 0, CodeRange::I8)?;
/// assert_eq!((p.quantize(2.5), p.with_rounding(Rounding::TiesAway).quantize(2.5)), (2, 3));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// To the even neighbour: 0.5 to 0, 1.5 to 2, -2.5 to -2. This is the default, as in IEEE 754,
    /// PyTorch, ONNX and nearly everything else.
    #[default]
    TiesToEven,
    /// Away from zero: 0.5 to 1, -2.5 to -3, as C's `round` and TensorFlow Lite do.
    TiesAway,
}
