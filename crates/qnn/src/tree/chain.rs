//! Whether layers make a model: there is at least one, their names differ, and each takes as many
//! values as the one before it gives.

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

/// What the check needs to know about a layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link<'l> {
    pub(crate) name: &'l str,
    pub(crate) n: usize,
    pub(crate) k: usize,
}

pub(crate) fn check_chain(links: &[Link<'_>]) -> Result<(), ChainError> {
    if links.is_empty() {
        return Err(ChainError::NoLayers);
    }
    check_names(links.iter().map(|link| link.name))?;
    for pair in links.windows(2) {
        let (previous, layer) = (pair[0], pair[1]);
        if previous.n != layer.k {
            return Err(ChainError::Mismatch {
                layer: layer.name.to_owned(),
                k: layer.k,
                previous: previous.name.to_owned(),
                n: previous.n,
            });
        }
    }
    Ok(())
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
