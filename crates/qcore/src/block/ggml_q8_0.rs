//! How ggml quantizes the activations that its integer products multiply.

use half::f16;

use crate::code::CodeRange;
use crate::value::{Range, round_clamped_ties_away};

/// How ggml makes a block of `Q8_0` of values (`quantize_row_q8_0_ref`): those of weights, and
/// those of the activations that weights of its formats are multiplied by. With `d` and `1 / d` in
/// f32,
///
/// ```text
/// d = max|x| / 127,   code = round(x * (1 / d)), ties away from zero,   scale = f16(d)
/// ```
///
/// A block of zeros has codes of 0 and a scale of 0. Values are multiplied by the inverse of the
/// unrounded d, but restored by the rounded scale. ggml leaves the rest undefined: here NaN has the
/// code 0, infinities those of ±127, and so does every value but 0 of a block whose `1 / d` is
/// infinite (its scale is 0). Where all finite values are 0, so is every code.
///
/// ```
/// use qcore::GgmlQ8_0;
/// let block = GgmlQ8_0::of(&[254.0, -1.0, 0.9, 5.0]); // d = 2
/// assert_eq!([254.0, -1.0, 0.9, 5.0].map(|x| block.quantize(x)), [127, -1, 0, 3]);
/// assert_eq!(block.scale(), 2.0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GgmlQ8_0 {
    d: f32,
    inverse: f32,
}

impl GgmlQ8_0 {
    /// Values of a block.
    ///
    /// ```
    /// assert_eq!(qcore::GgmlQ8_0::BLOCK_LEN, qcore::BlockFormat::Q8_0.block_len());
    /// ```
    pub const BLOCK_LEN: usize = super::BlockFormat::Q8_0.block_len();

    /// The codes that there are: -127 to 127.
    ///
    /// ```
    /// assert_eq!(qcore::GgmlQ8_0::CODES.max(), 127);
    /// ```
    pub const CODES: CodeRange = CodeRange::I8.narrow();

    /// For a block of these values. Those that are not finite do not count.
    ///
    /// ```
    /// use qcore::GgmlQ8_0;
    /// assert_eq!(GgmlQ8_0::of(&[-127.0, f32::INFINITY]), GgmlQ8_0::of(&[127.0]));
    /// ```
    #[inline(always)]
    #[must_use]
    pub fn of(values: &[f32]) -> Self {
        let d = Range::of_finite(values).unwrap_or_default().abs_max() / 127.0;
        Self { d, inverse: if d == 0.0 { 0.0 } else { 1.0 / d } }
    }

    /// What codes are multiplied by: d as f16 holds it. It is infinite if [`d`](Self::d) is more
    /// than that, which is so for values beyond 65,504 * 127.
    ///
    /// ```
    /// assert_eq!(qcore::GgmlQ8_0::of(&[1.27]).scale(), half::f16::from_f32(0.01).to_f32());
    /// ```
    #[inline(always)]
    #[must_use]
    pub fn scale(self) -> f32 {
        f16::from_f32(self.d).to_f32()
    }

    /// The scale before it is rounded to f16.
    ///
    /// ```
    /// assert_eq!(qcore::GgmlQ8_0::of(&[1.27]).d(), 1.27 / 127.0);
    /// ```
    #[inline(always)]
    #[must_use]
    pub fn d(self) -> f32 {
        self.d
    }

    /// The code of a value.
    ///
    /// ```
    /// assert_eq!(qcore::GgmlQ8_0::of(&[127.0]).quantize(2.5), 3);
    /// ```
    #[inline(always)]
    #[must_use]
    pub fn quantize(self, x: f32) -> i32 {
        let v = x * self.inverse;
        let v = if v.is_nan() { 0.0 } else { v };
        round_clamped_ties_away(v, -127.0, 127.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the C is written.
    fn of_ggml(x: &[f32]) -> (u16, Vec<i32>) {
        let amax = x.iter().fold(0f32, |amax, x| amax.max(x.abs()));
        let d = amax / ((1 << 7) - 1) as f32;
        let id = if d == 0.0 { 0.0 } else { 1.0 / d };
        (f16::from_f32(d).to_bits(), x.iter().map(|x| (x * id).round() as i32).collect())
    }

    #[test]
    fn blocks_of_all_magnitudes_are_those_of_ggml() {
        for exponent in -120..22 {
            for seed in 1..20u32 {
                let value = |i: u32| {
                    let bits =
                        i.wrapping_mul(747_796_405).wrapping_add(seed.wrapping_mul(2_891_336_453)) >> 7;
                    (bits as f32 / 2f32.powi(24) - 1.0) * 2f32.powi(exponent)
                };
                let x: Vec<f32> = (0..32).map(value).collect();
                let block = GgmlQ8_0::of(&x);
                let codes: Vec<i32> = x.iter().map(|&x| block.quantize(x)).collect();
                assert_eq!((f16::from_f32(block.scale()).to_bits(), codes), of_ggml(&x));
            }
        }
    }

    #[test]
    fn ties_are_away_from_zero() {
        let mut x: Vec<f32> = (-127..=126).map(|i| i as f32 + 0.5).collect();
        x.push(127.0);
        let block = GgmlQ8_0::of(&x);
        for &x in &x {
            assert_eq!(block.quantize(x), x.round() as i32, "{x}");
        }
    }

    #[test]
    fn what_ggml_leaves_undefined_has_a_code() {
        let block = GgmlQ8_0::of(&[1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
        assert_eq!(block, GgmlQ8_0::of(&[1.0]));
        let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 0.0];
        assert_eq!(odd.map(|x| block.quantize(x)), [0, 127, -127, 127, 0]);
        for zeros in [GgmlQ8_0::default(), GgmlQ8_0::of(&[]), GgmlQ8_0::of(&[0.0, -0.0, f32::NAN])] {
            assert_eq!((zeros, zeros.scale()), (GgmlQ8_0::default(), 0.0));
            assert_eq!(zeros.quantize(0.0), 0);
        }
        // 1 / d is infinite, and 0 times that is NaN.
        let tiny = GgmlQ8_0::of(&[1e-38, 0.0]);
        assert_eq!([1e-38, -1e-40, 0.0].map(|x| tiny.quantize(x)), [127, -127, 0]);
        assert_eq!(tiny.scale(), 0.0);
        let huge = GgmlQ8_0::of(&[f32::MAX]);
        assert_eq!((huge.quantize(f32::MAX), huge.scale()), (127, f32::INFINITY));
        assert_eq!(huge.d(), f32::MAX / 127.0);
    }
}
