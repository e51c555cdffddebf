//! Stores results from sums in L1: the path that every kernel can take.

use crate::output::curve;
use crate::output::target::Target;
use crate::output::tile::{Place, StoredTile};

/// Where and how the sums of a strip are stored.
#[derive(Debug)]
pub(crate) struct Store<'t, 'o> {
    pub(crate) place: Place<'t>,
    pub(crate) target: &'t mut Target<'o>,
}

impl Store<'_, '_> {
    /// Moves on to the panel behind `columns` columns.
    pub(crate) fn skip_columns(&mut self, columns: usize) {
        self.place.channels.start += columns;
        self.place.origin.1 += columns;
    }

    /// Applies the stage to the sums `acc` of the rows from `first` on. Rows are `stride` apart.
    #[inline(always)]
    pub(crate) fn apply(&mut self, first: usize, acc: &[i32], stride: usize) {
        let tile = StoredTile::<false> { place: &self.place, first, acc, stride };
        if !tile.place.stage.function_fits_registers() {
            return curve::store(&tile, self.target);
        }
        match &mut *self.target {
            Target::I32(out) => tile.store_sums(out),
            Target::F32(out) => tile.store_real(out),
            Target::F16(out) => tile.store_real(out),
            Target::Bf16(out) => tile.store_real(out),
            codes => {
                if let Some(mut codes) = codes.code_bytes() {
                    tile.store_codes(&mut codes);
                }
            }
        }
    }
}
