//! Cross-layer equalization: two layers, one behind the other, whose weights are balanced so that a
//! scale per tensor suits all channels.

use crate::layer::float::{FloatLinear, FloatLinearError};

/// Scales this close to 1 change nothing.
const CLOSE: f64 = 1e-3;

/// `s_i = sqrt(r_i / t_i)` of each channel between two layers, with r the largest magnitude of the
/// first layer's weights that make it and t that of the second layer's that read it. With the first
/// divided and the second multiplied by s, both are `sqrt(r_i * t_i)`. Where either is 0, s is 1.
pub(crate) fn equalizing_scales(first: &FloatLinear, second: &FloatLinear) -> Vec<f32> {
    let mut read = vec![0.0_f32; second.k()];
    for row in second.weight().chunks_exact(second.k()) {
        read.iter_mut().zip(row).for_each(|(read, w)| *read = read.max(w.abs()));
    }
    let made = first.weight().chunks_exact(first.k());
    let made = made.map(|row| row.iter().fold(0.0_f32, |most, w| most.max(w.abs())));
    let scale = |(made, read): (f32, &f32)| match made > 0.0 && *read > 0.0 {
        true => (f64::from(made) / f64::from(*read)).sqrt() as f32,
        false => 1.0,
    };
    made.zip(&read).map(scale).collect()
}

/// Whether scales change anything to speak of.
pub(crate) fn are_close(scales: &[f32]) -> bool {
    scales.iter().all(|scale| (f64::from(*scale).log2()).abs() < CLOSE)
}

/// `layer` with each output divided by a scale.
///
/// # Errors
/// [`FloatLinearError`] if a quotient is not finite.
pub(crate) fn outputs_divided(layer: &FloatLinear, scales: &[f32]) -> Result<FloatLinear, FloatLinearError> {
    let rows = layer.weight().chunks_exact(layer.k()).zip(scales);
    let divided = layer.with_weight(rows.flat_map(|(row, s)| row.iter().map(move |w| w / s)).collect())?;
    match layer.bias() {
        Some(bias) => divided.with_bias(bias.iter().zip(scales).map(|(bias, s)| bias / s).collect()),
        None => Ok(divided),
    }
}

#[cfg(test)]
mod tests {
    use super::super::smooth::smoothed;
    use super::*;

    #[test]
    fn both_layers_have_the_same_largest_weights_then() {
        let first = FloatLinear::new("a", 3, 1, vec![16.0, -1.0, 0.0], vec![8.0, 1.0, 2.0]).unwrap();
        let second = FloatLinear::without_bias("b", 2, 3, vec![1.0, 0.25, 1.0, -0.5, 0.125, 3.0]).unwrap();
        let scales = equalizing_scales(&first, &second);
        assert_eq!(scales, [4.0, 2.0, 1.0]);
        let (first, second) =
            (outputs_divided(&first, &scales).unwrap(), smoothed(&second, &scales).unwrap());
        assert_eq!((first.weight(), first.bias()), (&[4.0, -0.5, 0.0][..], Some(&[2.0, 0.5, 2.0][..])));
        assert_eq!(second.weight(), [4.0, 0.5, 1.0, -2.0, 0.25, 3.0]);
        assert!(are_close(&equalizing_scales(&first, &second)) && !are_close(&scales));
        assert!(outputs_divided(&first, &[f32::MIN_POSITIVE / 1e6, 1.0, 1.0]).is_err());
    }
}
