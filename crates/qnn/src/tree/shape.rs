//! Which layer a layer is, and whether a model shows the layers that it should.

use core::fmt;

use super::layers::Layers;
use crate::layer::linear::Linear;

/// What tells one layer of a model from another.
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

/// A model that shows other layers than it should: another model than the one that was calibrated, or one whose
/// [`Layers::visit`] and [`Layers::visit_mut`] differ in layers or order. Nothing was replaced.
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
    /// How many layers were shown before, all of them as expected.
    pub position: usize,
    /// The layer that belongs there; none after the last one.
    pub expected: Option<LayerShape>,
    /// The layer that is shown there; none if the walk ends too early.
    pub found: Option<LayerShape>,
}

fn or_none(layer: &Option<LayerShape>) -> String {
    layer.as_ref().map_or_else(|| "no layer".to_owned(), LayerShape::to_string)
}

/// A walk over a model's layers beside those that it should show.
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

    /// The position of the layer shown next; `None` from the first one on that is not as expected.
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

    /// Whether all layers were shown, and no others.
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
    /// A walk that ended without `layer`, at whatever position.
    pub(crate) fn missing(position: usize, layer: &LayerShape) -> Self {
        Self { walk: "visit_mut", position, expected: Some(layer.clone()), found: None }
    }
}

/// Both walks over `model` show just these layers, in this order.
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
