//! How layers are put into a model in place of others, and taken out again after an error, or after
//! a panic in the caller's code.

use core::mem::swap;
use core::panic::AssertUnwindSafe;
use std::panic::{catch_unwind, resume_unwind};

use super::layers::Layers;
use super::shape::{LayerMismatch, LayerShape, Walk};
use crate::layer::linear::Linear;

/// Does `work` on `state`. If it fails or panics, `undo` runs before the error is returned or the
/// panic goes on. If `undo` panics, it runs once more. (A guard that restores when it is dropped is
/// no way to do this: it would run the caller's code during a panic, and a second panic would abort
/// the process.)
pub(crate) fn or_undo<S, R, E>(
    state: &mut S,
    work: impl FnOnce(&mut S) -> Result<R, E>,
    mut undo: impl FnMut(&mut S),
) -> Result<R, E> {
    let done = catch_unwind(AssertUnwindSafe(|| work(state)));
    if matches!(done, Ok(Ok(_))) {
        return done.unwrap_or_else(|panic| resume_unwind(panic));
    }
    let mut try_undo = || catch_unwind(AssertUnwindSafe(|| undo(state)));
    let undone = try_undo().or_else(|_| try_undo());
    match (done, undone) {
        (Err(panic), _) | (_, Err(panic)) => resume_unwind(panic),
        (Ok(done), Ok(())) => done,
    }
}

/// Exchanges the layer at each position of the model with the one at the same position of `layers`,
/// if there is one. The model must show the layers that `expected` names.
///
/// # Errors
/// [`LayerMismatch`] if the model shows other layers. The layers before the first different one are
/// exchanged then, which [`put_back`] undoes.
pub(crate) fn put_in<M: Layers + ?Sized>(
    model: &mut M,
    expected: &[LayerShape],
    layers: &mut [Option<Linear>],
) -> Result<(), LayerMismatch> {
    let mut walk = Walk::visit_mut(expected);
    model.visit_mut(&mut |slot| {
        let layer = walk.next(slot).and_then(|position| layers.get_mut(position));
        if let Some(Some(layer)) = layer {
            swap(slot, layer);
        }
    });
    walk.finish()
}

/// Puts the f32 layers among `layers` back into the places that have their names. The others were
/// never in the model.
pub(crate) fn put_back<'l, M: Layers + ?Sized>(
    model: &mut M,
    layers: impl IntoIterator<Item = &'l mut Linear>,
) {
    let mut floats: Vec<_> = layers.into_iter().filter(|layer| matches!(layer, Linear::Float(_))).collect();
    if floats.is_empty() {
        return;
    }
    model.visit_mut(&mut |slot| {
        if let Some(at) = floats.iter().position(|layer| layer.name() == slot.name()) {
            swap(slot, floats.swap_remove(at));
        }
    });
    model.replaced();
}

/// Exchanges `layer` with the layer of the same name in the model.
pub(crate) fn exchange<M: Layers + ?Sized>(
    model: &mut M,
    shape: &LayerShape,
    layer: &mut Linear,
) -> Result<(), LayerMismatch> {
    let (mut shown, mut found) = (0, false);
    model.visit_mut(&mut |slot| {
        if !found && slot.name() == shape.name {
            swap(slot, layer);
            found = true;
        }
        shown += 1;
    });
    if found { Ok(()) } else { Err(LayerMismatch::missing(shown, shape)) }
}
