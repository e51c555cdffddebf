//! What a model must do for the quantize pass: show its linear layers, wherever they are.

use crate::layer::linear::Linear;

/// A tree of layers that can show its linear layers, in the order in which a forward pass meets
/// them.
///
/// An engine implements it for its own model, in one line for each field that has layers. The pass
/// replaces the layers that it is shown, and needs to know nothing else. A layer's name must be
/// unique in the model. Both walks must show the same layers in the same order, in whatever form
/// they are. The pass compares names and shapes before it replaces anything, and gives a
/// [`LayerMismatch`](crate::LayerMismatch) where they differ.
///
/// ```
/// use qnn::{FloatLinear, Layers, Linear};
///
/// struct Block {
///     up: Linear,
///     down: Linear,
/// }
/// impl Layers for Block {
///     fn visit(&self, visit: &mut dyn FnMut(&Linear)) {
///         [&self.up, &self.down].into_iter().for_each(visit);
///     }
///     fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Linear)) {
///         [&mut self.up, &mut self.down].into_iter().for_each(visit);
///     }
/// }
///
/// let layer = |name: &str| FloatLinear::without_bias(name, 1, 1, vec![1.0]).map(Linear::from);
/// let model = vec![Block { up: layer("0.up")?, down: layer("0.down")? }]; // a `Vec` of trees is a tree
/// let mut names = Vec::new();
/// model.visit(&mut |layer| names.push(layer.name().to_owned()));
/// assert_eq!(names, ["0.up", "0.down"]);
/// # Ok::<(), qnn::FloatLinearError>(())
/// ```
pub trait Layers {
    /// Shows every linear layer.
    fn visit(&self, visit: &mut dyn FnMut(&Linear));

    /// Shows every linear layer so that it can be replaced: the same layers in the same order.
    fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Linear));

    /// Called when layers were replaced. A model that hands codes from one static layer to the next
    /// links them here ([`StaticLinear::set_output`](crate::StaticLinear::set_output)).
    fn replaced(&mut self) {}
}

impl Layers for Linear {
    fn visit(&self, visit: &mut dyn FnMut(&Linear)) {
        visit(self);
    }

    fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Linear)) {
        visit(self);
    }
}

impl<T: Layers> Layers for [T] {
    fn visit(&self, visit: &mut dyn FnMut(&Linear)) {
        self.iter().for_each(|part| part.visit(visit));
    }

    fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Linear)) {
        self.iter_mut().for_each(|part| part.visit_mut(visit));
    }

    fn replaced(&mut self) {
        self.iter_mut().for_each(T::replaced);
    }
}

impl<T: Layers> Layers for Vec<T> {
    fn visit(&self, visit: &mut dyn FnMut(&Linear)) {
        self[..].visit(visit);
    }

    fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Linear)) {
        self[..].visit_mut(visit);
    }

    fn replaced(&mut self) {
        self[..].replaced();
    }
}
