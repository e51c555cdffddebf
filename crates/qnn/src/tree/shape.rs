//! What identifies a layer, and whether a model shows the layers that it should.

use core::fmt;

use super::layers::Layers;
use crate::layer::linear::Linear;

/// The name and the shape that identify a layer in its model.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerShape {
    /// Name.
    pub name: String,
    /// Outputs.
    pub n: usize,
    /// Inputs.
    pub k: usize,
}

impl LayerShape {
    pub(crate) fn of(layer: &Linear) -> Self {
        Self { name: layer.name().to_owned(), n: layer.n(), k: layer.k() }
    }

    fn is(&self, layer: &Linear) -> bool {
        (&self.name[..], self.n, self.k) == (layer.name(), layer.n(), layer.k())
    }
}

impl fmt::Display for LayerShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} (n = {}, k = {})", self.name, self.n, self.k)
    }
}

/// A model shows other layers than it should. It is another model than the one that was calibrated,
/// or its [`Layers::visit`] and [`Layers::visit_mut`] differ. Nothing was replaced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "at position {position} the model's {walk} shows {}, expected {}",
    or_none(.found),
    or_none(.expected)
)]
#[non_exhaustive]
pub struct LayerMismatch {
    /// `visit` or `visit_mut`.
    pub walk: &'static str,
    /// How many layers were shown before this one, all as expected.
    pub position: usize,
    /// The layer that was expected there; `None` after the last one.
    pub expected: Option<LayerShape>,
    /// The layer that was shown there; `None` if the walk ended too early.
    pub found: Option<LayerShape>,
}

fn or_none(layer: &Option<LayerShape>) -> String {
    layer.as_ref().map_or_else(|| "no layer".to_owned(), LayerShape::to_string)
}

/// Compares a walk over a model's layers with the layers that it should show.
pub(crate) struct Walk<'s> {
    name: &'static str,
    expected: &'s [LayerShape],
    position: usize,
    mismatch: Option<LayerMismatch>,
}

impl<'s> Walk<'s> {
    pub(crate) fn visit(expected: &'s [LayerShape]) -> Self {
        Self { name: "visit", expected, position: 0, mismatch: None }
    }

    pub(crate) fn visit_mut(expected: &'s [LayerShape]) -> Self {
        Self { name: "visit_mut", ..Self::visit(expected) }
    }

    /// Takes the next layer that is shown and gives its position, or `None` from the first layer on
    /// that is not as expected.
    pub(crate) fn next(&mut self, layer: &Linear) -> Option<usize> {
        if self.mismatch.is_some() {
            return None;
        }
        let expected = self.expected.get(self.position);
        if !expected.is_some_and(|expected| expected.is(layer)) {
            self.mismatch = Some(self.found(Some(LayerShape::of(layer))));
            return None;
        }
        self.position += 1;
        Some(self.position - 1)
    }

    /// Checks that all layers were shown, and no others.
    pub(crate) fn finish(self) -> Result<(), LayerMismatch> {
        match self.mismatch {
            Some(mismatch) => Err(mismatch),
            None if self.position < self.expected.len() => Err(self.found(None)),
            None => Ok(()),
        }
    }

    fn found(&self, found: Option<LayerShape>) -> LayerMismatch {
        let (walk, position) = (self.name, self.position);
        LayerMismatch { walk, position, expected: self.expected.get(position).cloned(), found }
    }
}

impl LayerMismatch {
    /// A walk over `position` layers ended without showing `layer`.
    pub(crate) fn missing(position: usize, layer: &LayerShape) -> Self {
        Self { walk: "visit_mut", position, expected: Some(layer.clone()), found: None }
    }
}

/// Checks that both walks over `model` show exactly these layers, in this order.
pub(crate) fn check_layers<M: Layers + ?Sized>(
    model: &mut M,
    expected: &[LayerShape],
) -> Result<(), LayerMismatch> {
    let mut walk = Walk::visit(expected);
    model.visit(&mut |layer| {
        walk.next(layer);
    });
    walk.finish()?;
    let mut walk = Walk::visit_mut(expected);
    model.visit_mut(&mut |layer| {
        walk.next(layer);
    });
    walk.finish()
}
