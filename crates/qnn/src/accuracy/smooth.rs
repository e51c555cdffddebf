//! SmoothQuant's scales of input channels, and weights that are multiplied by them.

use crate::layer::float::{FloatLinear, FloatLinearError};

/// The largest magnitude of each input channel's weights, of all `layers`, which take as many
/// inputs.
pub(crate) fn largest_weights(layers: &[FloatLinear]) -> Vec<f32> {
    let mut largest = vec![0.0; layers.first().map_or(0, FloatLinear::k)];
    for row in layers.iter().flat_map(|layer| layer.weight().chunks_exact(layer.k())) {
        largest.iter_mut().zip(row).for_each(|(largest, w)| *largest = w.abs().max(*largest));
    }
    largest
}

/// `s_j = max |x_j| ^ alpha / max |w_j| ^ (1 - alpha)` of each input channel, divided by the
/// geometric mean of all, so that the scales of weights stay where they were.
///
/// A channel whose inputs or weights are all 0 has nothing to balance: its scale is 1. Others are
/// kept from 2^-24 to 2^24, so that what a later input divided by its scale becomes is in f32.
pub(crate) fn smooth_scales(inputs: &[f32], weights: &[f32], alpha: f64) -> Vec<f32> {
    const MOST: f64 = 24.0;
    let log = |(&x, &w): (&f32, &f32)| {
        (x > 0.0 && w > 0.0).then(|| f64::from(x).log2() * alpha - f64::from(w).log2() * (1.0 - alpha))
    };
    let logs: Vec<Option<f64>> = inputs.iter().zip(weights).map(log).collect();
    let count = logs.iter().flatten().count().max(1) as f64;
    let mean = logs.iter().flatten().sum::<f64>() / count;
    let scale = |log: &Option<f64>| log.map_or(1.0, |log| (log - mean).clamp(-MOST, MOST).exp2() as f32);
    logs.iter().map(scale).collect()
}

/// `layer` with each weight multiplied by the scale of its input.
///
/// # Errors
/// [`FloatLinearError`] if a product is not finite.
pub(crate) fn smoothed(layer: &FloatLinear, scales: &[f32]) -> Result<FloatLinear, FloatLinearError> {
    let rows = layer.weight().chunks_exact(layer.k());
    let weight = rows.flat_map(|row| row.iter().zip(scales).map(|(w, s)| w * s)).collect();
    layer.with_weight(weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_balance_inputs_and_weights() {
        // 16 / 4 with the mean of 1 and 4.
        let scales = smooth_scales(&[16.0, 4.0, 0.0, 3.0], &[4.0, 1.0, 1.0, 0.0], 0.5);
        assert_eq!(scales, [1.0, 1.0, 1.0, 1.0]);
        let scales = smooth_scales(&[16.0, 1.0], &[1.0, 1.0], 0.5);
        assert_eq!(scales, [2.0, 0.5]);
        let scales = smooth_scales(&[16.0, 1.0], &[4.0, 1.0], 0.0);
        assert_eq!(scales, [0.5, 2.0]);
        assert_eq!(smooth_scales(&[f32::MAX, 1e-38], &[1e-38, f32::MAX], 1.0), [16_777_216.0, 5.9604645e-8]);
    }

    #[test]
    fn weights_are_multiplied_by_the_scale_of_their_input() {
        let layer = FloatLinear::new("fc", 2, 2, vec![1.0, 2.0, 3.0, 4.0], vec![0.5, 0.25]).unwrap();
        assert_eq!(smoothed(&layer, &[10.0, 0.5]).unwrap().weight(), [10.0, 1.0, 30.0, 2.0]);
        assert_eq!(largest_weights(&[layer.clone(), layer.clone()]), [3.0, 4.0]);
        assert!(smoothed(&layer, &[f32::MAX, 1.0]).is_err());
    }
}
