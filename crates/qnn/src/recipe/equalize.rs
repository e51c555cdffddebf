//! Cross-layer equalization as a step: pairs of layers that the caller names are balanced in f32,
//! before anything is calibrated.

use qcore::ActivationFunction;

use crate::accuracy::equalize::{are_close, equalizing_scales, outputs_divided};
use crate::accuracy::smooth::smoothed;
use crate::config::recipe::LayerPair;
use crate::layer::float::FloatLinear;
use crate::layer::linear::Linear;
use crate::pass::error::{PairError, PassError, PassLayerError, Refusal};
use crate::tree::layers::Layers;

/// Layers of chains have two neighbours, so pairs are balanced again and again, so often at most.
const MOST_SWEEPS: usize = 32;

/// The f32 layers of all `pairs`.
pub(super) fn named<M: Layers + ?Sized>(model: &M, pairs: &[LayerPair]) -> Vec<FloatLinear> {
    let mut layers = Vec::new();
    model.visit(&mut |layer| {
        let is_named =
            |pair: &LayerPair| [&pair.first, &pair.second].into_iter().any(|name| name == layer.name());
        if let (Linear::Float(layer), true) = (layer, pairs.iter().any(is_named)) {
            layers.push(layer.clone());
        }
    });
    layers
}

/// The f32 layers of all `pairs` as they are balanced.
///
/// # Errors
/// [`PassError::Pair`] if two layers of a pair do not fit, and [`PassError::Layer`] if weights
/// leave f32.
pub(super) fn equalized<E>(
    mut layers: Vec<FloatLinear>,
    pairs: &[LayerPair],
) -> Result<Vec<FloatLinear>, PassError<E>> {
    let mut places = Vec::with_capacity(pairs.len());
    for (index, pair) in pairs.iter().enumerate() {
        let place = fitting(&layers, pair, &pairs[..index]);
        places.push(place.map_err(|error| PassError::Pair { pair: pair.clone(), error })?);
    }
    for _ in 0..MOST_SWEEPS {
        let mut changed = false;
        for &(first, second) in &places {
            let scales = equalizing_scales(&layers[first], &layers[second]);
            if !are_close(&scales) {
                let refused = |layer: &FloatLinear, error| {
                    let error = PassLayerError::Rescaled(error);
                    PassError::Layer(Refusal { layer: layer.name().to_owned(), error })
                };
                let divided = outputs_divided(&layers[first], &scales);
                layers[first] = divided.map_err(|error| refused(&layers[first], error))?;
                let multiplied = smoothed(&layers[second], &scales);
                layers[second] = multiplied.map_err(|error| refused(&layers[second], error))?;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    Ok(layers)
}

/// Where the two layers of a pair are, if the second may read what the first gives.
fn fitting(
    layers: &[FloatLinear],
    pair: &LayerPair,
    before: &[LayerPair],
) -> Result<(usize, usize), PairError> {
    let place = |name: &String| {
        let place = layers.iter().position(|layer| layer.name() == name);
        place.ok_or_else(|| PairError::NoSuchLayer { layer: name.clone() })
    };
    let (first, second) = (place(&pair.first)?, place(&pair.second)?);
    let (n, k) = (layers[first].n(), layers[second].k());
    if n != k {
        return Err(PairError::Width { n, k });
    }
    let function = layers[first].activation();
    match function {
        ActivationFunction::Identity | ActivationFunction::Relu | ActivationFunction::LeakyRelu { .. } => {}
        _ => return Err(PairError::Activation { function }),
    }
    match before.iter().any(|other| other.first == pair.first || other.second == pair.second) {
        true => Err(PairError::Twice),
        false => Ok((first, second)),
    }
}
