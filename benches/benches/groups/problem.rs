//! The contenders of one shape. The product of each is verified before it can take its turn.

use qbenches::{Contender, Shape};
use qkernels::{
    DequantizeTo, FloatStage, MatMut, MatRef, PackedWeights, ScaledWeights, Scales, Threads, Workspace,
    gemm_dynamic, gemm_scaled,
};

use crate::definition::is_product;
use crate::format::{Format, PER_CHANNEL};
use crate::operands::Operands;
use crate::{ACTIVATIONS, Result};

/// The operands of one shape.
#[derive(Clone, Copy)]
pub(crate) struct Problem<'d> {
    pub(crate) shape: Shape,
    /// Activations, (m, k).
    pub(crate) a: &'d [f32],
    pub(crate) operands: &'d Operands,
}

impl<'d> Problem<'d> {
    /// The product with each of the copies in turn, which have a scale per channel.
    pub(crate) fn per_channel(self, copies: Vec<PackedWeights>) -> Result<Contender<'d>> {
        let Shape { m, n, k, .. } = self.shape;
        let a = MatRef::new(self.a, m, k)?;
        let stage = DequantizeTo::<f32>::new(Scales::PerChannel(&self.operands.scales[..n]))?;
        let mut workspace = Workspace::new();
        let bytes = copies[0].bytes();
        self.verified(&PER_CHANNEL, bytes, move |copy, out| {
            let (w, out) = (&copies[copy % copies.len()], MatMut::new(out, m, n)?);
            Ok(gemm_dynamic(a, ACTIVATIONS, w, &stage, out, Threads::Serial, &mut workspace)?)
        })
    }

    /// The product with each of the copies in turn, which have a scale for each group.
    pub(crate) fn in_groups(self, format: &Format, copies: Vec<ScaledWeights>) -> Result<Contender<'d>> {
        let Shape { m, n, k, .. } = self.shape;
        let a = MatRef::new(self.a, m, k)?;
        let mut workspace = Workspace::new();
        let bytes = copies[0].bytes();
        self.verified(format, bytes, move |copy, out| {
            let (w, out) = (&copies[copy % copies.len()], MatMut::new(out, m, n)?);
            let stage = FloatStage::new();
            Ok(gemm_scaled(a, ACTIVATIONS, w, &stage, out, Threads::Serial, &mut workspace)?)
        })
    }

    /// A contender whose first product has the bits of the definition. One that has not is an
    /// error.
    fn verified(
        self,
        format: &Format,
        bytes: usize,
        mut product: impl FnMut(usize, &mut [f32]) -> Result<()> + 'd,
    ) -> Result<Contender<'d>> {
        // What is not written is not equal to anything.
        let mut out = vec![f32::NAN; self.shape.m * self.shape.n];
        product(0, &mut out)?;
        if !is_product(self.a, self.operands, format, &out)? {
            return Err(format!("{} is wrong on {}", format.name, self.shape).into());
        }
        Ok(Contender { name: format.name.into(), bytes, run: Box::new(move |copy| product(copy, &mut out)) })
    }
}
