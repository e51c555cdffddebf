//! Weights whose k is in another order than the inputs': GPTQ's `desc_act` sorts inputs, so that
//! those of a group may come from anywhere. Rows are put in that order as they are read.

use crate::weights::scaled::ScaledWeights;
use crate::weights::scales::ScaleError;

impl ScaledWeights {
    /// The same weights, of which column p multiplies input `order[p]`. Groups and parts are those
    /// of the columns as they are packed. Products take their rows as before, in the order of the
    /// inputs, and have the bits of a product whose rows were put in this order beforehand; they do
    /// that where they copy or quantize a row, so no second matrix is in memory. Activations with a
    /// scale for each group are refused
    /// ([`DynamicError::GroupOrder`](crate::DynamicError::GroupOrder)), but for a single group.
    ///
    /// An order that these weights had before is replaced. One that leaves each input in its place
    /// is not kept.
    ///
    /// ```
    /// use qkernels::{FloatStage, Kernel, MatMut, MatRef, PackedWeights, ScaledWeights, Threads};
    /// use qkernels::{WeightScales, Workspace, weight_only};
    /// let w = PackedWeights::from_nk(MatRef::new(&[1i8, 2, 3], 1, 3)?, Kernel::select()?)?;
    /// let w = ScaledWeights::new(w, WeightScales::per_channel(&[0.5]))?.with_input_order(&[2, 0, 1])?;
    /// assert_eq!(w.unpack(), [1, 2, 3]);
    /// assert_eq!(w.dequantize(), [1.0, 1.5, 0.5]); // as the inputs lie
    /// let (x, mut y) = (MatRef::new(&[1.0f32, 0.0, 4.0], 1, 3)?, [0f32]);
    /// let out = MatMut::new(&mut y, 1, 1)?;
    /// weight_only(x, &w, &FloatStage::new(), out, Threads::Serial, &mut Workspace::new())?;
    /// assert_eq!(y, [1.0 * 1.0 + 0.5 * 4.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ScaleError`] if `order` does not have each of 0 to k - 1 once.
    pub fn with_input_order(mut self, order: &[u32]) -> Result<Self, ScaleError> {
        let k = self.k();
        if order.len() != k {
            return Err(ScaleError::OrderLength { k, len: order.len() });
        }
        let mut seen = vec![false; k];
        for (position, &input) in order.iter().enumerate() {
            let Some(seen) = seen.get_mut(input as usize) else {
                return Err(ScaleError::NoInput { position, input, k });
            };
            if core::mem::replace(seen, true) {
                return Err(ScaleError::SameInput { position, input });
            }
        }
        let in_place = order.iter().enumerate().all(|(position, &input)| position == input as usize);
        self.input_order = if in_place { Box::default() } else { order.into() };
        Ok(self)
    }

    /// The input that each column of the packed weights multiplies, if it is not the column's own.
    pub fn input_order(&self) -> Option<&[u32]> {
        (!self.input_order.is_empty()).then_some(&self.input_order)
    }

    /// `values` (n, k) of the columns, in the order of the inputs.
    pub(super) fn by_input(&self, values: Vec<f32>) -> Vec<f32> {
        let Some(order) = self.input_order() else { return values };
        let mut by_input = vec![0.0; values.len()];
        for (from, to) in values.chunks_exact(order.len()).zip(by_input.chunks_exact_mut(order.len())) {
            for (&value, &input) in from.iter().zip(order) {
                to[input as usize] = value;
            }
        }
        by_input
    }
}
