//! gemmkit: i8 x i8 -> int32.

use gemmkit::{MatMut, MatRef, PackedRhs, Parallelism, Workspace};
use qbenches::{Kind, Shape};

use crate::contender::{Contender, Operands, Prepared, Problem, Result};

/// Weights packed once, which gemmkit allows only for a column-major output.
pub(crate) struct Gemmkit;

/// Weights packed in each call, which is all there is for a row-major output and the only way to
/// its matrix-vector product.
pub(crate) struct GemmkitUnpacked;

struct Multiply<'d> {
    shape: Shape,
    a: &'d [i8],
    w: &'d [i8],
    packed: Option<PackedRhs<i8>>,
    y: Vec<i32>,
    workspace: Workspace,
}

/// The (n, k) weights as the (k, n) operand on the right.
fn right<'w>(w: &'w [i8], shape: &Shape) -> MatRef<'w, i8> {
    MatRef::from_col_major(w, shape.k, shape.n)
}

fn multiply<'d>(problem: &Problem<'d>, pack: bool) -> Box<dyn Prepared + 'd> {
    let shape = problem.shape;
    Box::new(Multiply {
        shape,
        a: problem.a_i8,
        w: problem.w,
        packed: pack.then(|| gemmkit::prepack_rhs_i8(right(problem.w, &shape))),
        y: vec![0; shape.m * shape.n],
        workspace: Workspace::new(),
    })
}

impl Contender for Gemmkit {
    fn name(&self) -> &'static str {
        "gemmkit"
    }

    fn kind(&self) -> Kind {
        Kind::Peer
    }

    fn operands(&self) -> Operands {
        Operands::I8I8
    }

    fn prepare<'d>(&self, problem: &Problem<'d>) -> Result<Option<Box<dyn Prepared + 'd>>> {
        Ok(Some(multiply(problem, true)))
    }
}

impl Contender for GemmkitUnpacked {
    fn name(&self) -> &'static str {
        "gemmkit unpacked"
    }

    fn kind(&self) -> Kind {
        Kind::Peer
    }

    fn operands(&self) -> Operands {
        Operands::I8I8
    }

    fn prepare<'d>(&self, problem: &Problem<'d>) -> Result<Option<Box<dyn Prepared + 'd>>> {
        Ok(Some(multiply(problem, false)))
    }
}

impl Prepared for Multiply<'_> {
    fn run(&mut self) -> Result<()> {
        let Shape { m, n, k, .. } = self.shape;
        let a = MatRef::from_row_major(self.a, m, k);
        match &self.packed {
            Some(packed) => {
                let y = MatMut::from_col_major(&mut self.y, m, n);
                gemmkit::gemm_i8_packed_b_with(&mut self.workspace, 1, a, packed, 0, y, Parallelism::Serial);
            }
            None => {
                let y = MatMut::from_row_major(&mut self.y, m, n);
                let b = right(self.w, &self.shape);
                gemmkit::gemm_i8_with(&mut self.workspace, 1, a, b, 0, y, Parallelism::Serial);
            }
        }
        Ok(())
    }

    fn product(&self) -> Vec<i32> {
        let Shape { m, n, .. } = self.shape;
        if self.packed.is_none() {
            return self.y.clone();
        }
        (0..m * n).map(|at| self.y[at % n * m + at / n]).collect()
    }
}
