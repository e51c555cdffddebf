//! tract-linalg: i8 x i8 -> int32, through its own choice of kernel. Weights are the operand that
//! tract packs once, on the left as in tract's own plans; activations are packed in each call.

use qbenches::{Kind, Shape};
use tract_data::prelude::{DatumType, Tensor};
use tract_linalg::MmmDispatch;
use tract_linalg::mmm::{AsInputValue, FusedSpec, MMMInputValue, MatMatMul, Query, ScratchSpace};

use crate::contender::{Contender, Operands, Prepared, Problem, Result};

/// tract-linalg.
pub(crate) struct Tract;

struct Multiply {
    shape: Shape,
    kernel: Box<dyn MatMatMul>,
    /// Which of the kernel's pairs of packed forms.
    packing: usize,
    a: Tensor,
    w: Box<dyn MMMInputValue>,
    y: Tensor,
    scratch: Box<dyn ScratchSpace>,
}

impl Contender for Tract {
    fn name(&self) -> &'static str {
        "tract-linalg"
    }

    fn kind(&self) -> Kind {
        Kind::Peer
    }

    fn operands(&self) -> Operands {
        Operands::I8I8
    }

    fn prepare<'d>(&self, problem: &Problem<'d>) -> Result<Option<Box<dyn Prepared + 'd>>> {
        let Shape { m, n, k, .. } = problem.shape;
        // Its m are our output channels.
        let query =
            Query { allow_extractor: false, ..Query::plain(DatumType::I32, Some(n), Some(k), Some(m)) };
        let Some((kernel, packing, None)) = MmmDispatch::native().pick(&query) else { return Ok(None) };
        let a = Tensor::from_shape(&[m, k], problem.a_i8)?;
        let w = kernel.packings()[packing].0.prepare_one(&Tensor::from_shape(&[n, k], problem.w)?, 1, 0)?;
        // SAFETY: has no precondition of its own; the scratch space is used with the kernel that
        // made it.
        let scratch = unsafe { kernel.allocate_scratch_space() };
        let y = Tensor::zero::<i32>(&[m, n])?;
        Ok(Some(Box::new(Multiply { shape: problem.shape, kernel, packing, a, w, y, scratch })))
    }
}

impl Prepared for Multiply {
    fn run(&mut self) -> Result<()> {
        let Shape { m, n, .. } = self.shape;
        let a = self.kernel.packings()[self.packing].1.prepare_one(&self.a, 1, 0)?;
        // SAFETY: axis 1 of y has the n, axis 0 the m elements that the call below names.
        let view = unsafe { self.kernel.c_view(Some(1), Some(0)) };
        // SAFETY: y is an int32 tensor, the kernel's output, and outlives the store.
        let store = unsafe { view.wrap(&self.y.view_mut()) };
        let product = FusedSpec::AddMatMul {
            a: AsInputValue::Borrowed(&*self.w),
            b: AsInputValue::Borrowed(&*a),
            packing: self.packing,
        };
        // SAFETY: both operands were packed by this kernel's pair of forms, with n and m panels of
        // the same k.
        unsafe {
            self.kernel.run_with_scratch_space(
                n,
                m,
                self.scratch.as_mut(),
                &[product, FusedSpec::Store(store)],
            )
        }?;
        Ok(())
    }

    fn product(&self) -> Vec<i32> {
        // A tensor of another type, which it is not, would be noticed as a wrong product.
        self.y.to_plain_array_view::<i32>().map(|y| y.iter().copied().collect()).unwrap_or_default()
    }
}
