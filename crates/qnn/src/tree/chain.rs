//! Whether layers make a model: there is at least one, their names differ, and each takes as many
//! values as the one before it gives.

use crate::layer::head::Head;

/// Why layers do not make a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// There are none.
    #[error("a model needs at least one layer, got none")]
    NoLayers,
    /// Two layers have the same name, so their tensors in a file would have the same names.
    #[error("layers {first} and {second} are both named {name:?}")]
    SameName {
        /// The name.
        name: String,
        /// Index of the first layer that has it.
        first: usize,
        /// Index of the second.
        second: usize,
    },
    /// A layer has an activation function that it would lose: an f32 MLP has ReLU between its
    /// layers, and nothing behind them. [`Mlp`](crate::Mlp) keeps any function.
    #[error("layer {layer:?} has the activation function {function}, but here it would have {instead}")]
    Activation {
        /// The layer.
        layer: String,
        /// The name of its function.
        function: &'static str,
        /// The name of the function that it would have instead.
        instead: &'static str,
    },
    /// A layer does not have as many inputs as the one before it has outputs.
    #[error("layer {layer:?} takes k = {k} inputs, but {previous:?} before it has n = {n} outputs")]
    Mismatch {
        /// The layer.
        layer: String,
        /// Its inputs.
        k: usize,
        /// The layer before it.
        previous: String,
        /// That one's outputs.
        n: usize,
    },
}

/// Checks that layers with these heads make a chain.
pub(crate) fn check_chain(heads: &[&Head]) -> Result<(), ChainError> {
    if heads.is_empty() {
        return Err(ChainError::NoLayers);
    }
    check_names(heads.iter().map(|head| &head.name[..]))?;
    match heads.windows(2).find(|pair| pair[0].n != pair[1].k) {
        None => Ok(()),
        Some(pair) => {
            let (previous, layer) = (pair[0], pair[1]);
            Err(ChainError::Mismatch {
                layer: layer.name.clone(),
                k: layer.k,
                previous: previous.name.clone(),
                n: previous.n,
            })
        }
    }
}

/// Checks that no two names are equal.
pub(crate) fn check_names<'l>(names: impl Iterator<Item = &'l str>) -> Result<(), ChainError> {
    let mut sorted: Vec<(&str, usize)> = names.enumerate().map(|(index, name)| (name, index)).collect();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        None => Ok(()),
        Some(pair) => {
            Err(ChainError::SameName { name: pair[0].0.to_owned(), first: pair[0].1, second: pair[1].1 })
        }
    }
}
