//! What a model must do for the quantize pass: show its linear layers, wherever they are.

use crate::layer::linear::Linear;
use crate::layer::tensor::FloatTensor;

/// A tree of layers that can show its linear layers, in the order in which a forward pass meets
/// them.
///
/// An engine implements it for its own model with the macro [`layers!`](crate::layers), which takes
/// a list of the fields. The pass replaces the layers that it is shown, and needs to know nothing
/// else. A layer's name must be unique in the model. Both walks must show the same layers in the
/// same order, in whatever form they are. The pass compares names and shapes before it replaces
/// anything, and gives a [`LayerMismatch`](crate::LayerMismatch) where they differ.
///
/// Where a list of fields is not enough, the walks are written by hand, in one line for each field
/// that has layers:
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

    /// Shows every tensor that is no linear layer but belongs to the model, so that files have it,
    /// too. A model that shows none is saved without them.
    fn visit_tensors(&self, visit: &mut dyn FnMut(&FloatTensor)) {
        let _ = visit;
    }

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

/// A tensor has no linear layers. It shows itself.
impl Layers for FloatTensor {
    fn visit(&self, _visit: &mut dyn FnMut(&Linear)) {}

    fn visit_mut(&mut self, _visit: &mut dyn FnMut(&mut Linear)) {}

    fn visit_tensors(&self, visit: &mut dyn FnMut(&FloatTensor)) {
        visit(self);
    }
}

/// Implements [`Layers`] for the parts of `$self` that an iterator gives.
macro_rules! layers_of_parts {
    (($($generics:tt)*) $tree:ty, |$this:ident| $parts:expr, $parts_mut:expr) => {
        impl<$($generics)*> Layers for $tree {
            fn visit(&self, visit: &mut dyn FnMut(&Linear)) {
                let $this = self;
                $parts.for_each(|part| part.visit(visit));
            }

            fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Linear)) {
                let $this = self;
                $parts_mut.for_each(|part| part.visit_mut(visit));
            }

            fn visit_tensors(&self, visit: &mut dyn FnMut(&FloatTensor)) {
                let $this = self;
                $parts.for_each(|part| part.visit_tensors(visit));
            }

            fn replaced(&mut self) {
                let $this = self;
                $parts_mut.for_each(|part| part.replaced());
            }
        }
    };
}
layers_of_parts!((T: Layers) [T], |parts| parts.iter(), parts.iter_mut());
layers_of_parts!((T: Layers, const N: usize) [T; N], |parts| parts.iter(), parts.iter_mut());
layers_of_parts!((T: Layers) Vec<T>, |parts| parts.iter(), parts.iter_mut());
layers_of_parts!((T: Layers) Option<T>, |part| part.iter(), part.iter_mut());
layers_of_parts!((T: Layers + ?Sized) Box<T>, |part| core::iter::once(&**part), core::iter::once(&mut **part));

/// Implements [`Layers`](trait@crate::Layers) for a struct by one list of its fields that have
/// layers or tensors, in the order in which a forward pass meets them. So the walks cannot differ.
///
/// A field may be a [`Linear`](crate::Linear), a [`FloatTensor`](crate::FloatTensor), another such
/// struct, or a `Vec`, array, `Option` or `Box` of them. Fields of a tuple struct are its numbers.
/// [`Layers::replaced`](trait@crate::Layers) is handed on to the fields.
///
/// ```
/// use qnn::{FloatLinear, FloatTensor, Layers, Linear};
///
/// struct Block {
///     norm: FloatTensor,
///     up: Linear,
///     down: Linear,
///     epsilon: f32,
/// }
/// qnn::layers!(Block { norm, up, down });
///
/// struct Model {
///     blocks: Vec<Block>,
///     head: Option<Linear>,
/// }
/// qnn::layers!(Model { blocks, head });
///
/// let layer = |name: &str| FloatLinear::without_bias(name, 1, 1, vec![1.0]).map(Linear::from);
/// let norm = FloatTensor::new("0.norm", [1], vec![1.0])?;
/// let block = Block { norm, up: layer("0.up")?, down: layer("0.down")?, epsilon: 1e-5 };
/// let model = Model { blocks: vec![block], head: None };
/// let mut names = Vec::new();
/// model.visit(&mut |layer| names.push(layer.name().to_owned()));
/// assert_eq!(names, ["0.up", "0.down"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[macro_export]
macro_rules! layers {
    ($model:ty { $($field:tt),* $(,)? }) => {
        impl $crate::Layers for $model {
            fn visit(&self, visit: &mut dyn FnMut(&$crate::Linear)) {
                $($crate::Layers::visit(&self.$field, visit);)*
            }

            fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut $crate::Linear)) {
                $($crate::Layers::visit_mut(&mut self.$field, visit);)*
            }

            fn visit_tensors(&self, visit: &mut dyn FnMut(&$crate::FloatTensor)) {
                $($crate::Layers::visit_tensors(&self.$field, visit);)*
            }

            fn replaced(&mut self) {
                $($crate::Layers::replaced(&mut self.$field);)*
            }
        }
    };
}
