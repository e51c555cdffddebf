//! The kernels of qkernels.

use std::time::Duration;

use qbenches::{Kind, is_in_time, peak_gops};
use qkernels::{Int32, Kernel, MatMut, MatRef, PackedWeights, Threads, Workspace, gemm};

use crate::contender::{Contender, Operands, Prepared, Problem, Result};

/// One kernel.
pub(crate) struct Ours(pub(crate) Kernel);

struct Packed<'d> {
    a: MatRef<'d, u8>,
    weights: PackedWeights,
    y: Vec<i32>,
    workspace: Workspace,
}

impl Contender for Ours {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn kind(&self) -> Kind {
        Kind::Kernel
    }

    fn operands(&self) -> Operands {
        Operands::U8I8
    }

    fn prepare<'d>(&self, problem: &Problem<'d>) -> Result<Option<Box<dyn Prepared + 'd>>> {
        let shape = problem.shape;
        if !is_in_time(self.0, &shape) {
            return Ok(None);
        }
        Ok(Some(Box::new(Packed {
            a: MatRef::new(problem.a, shape.m, shape.k)?,
            weights: PackedWeights::from_nk(MatRef::new(problem.w, shape.n, shape.k)?, self.0)?,
            y: vec![0; shape.m * shape.n],
            workspace: Workspace::new(),
        })))
    }

    fn peak(&self, budget: Duration) -> Option<f64> {
        Some(peak_gops(self.0, budget))
    }
}

impl Prepared for Packed<'_> {
    fn run(&mut self) -> Result<()> {
        let m = self.a.rows();
        let y = MatMut::new(&mut self.y, m, self.weights.n())?;
        Ok(gemm(self.a, &self.weights, &Int32::new(), y, Threads::Serial, &mut self.workspace)?)
    }

    fn product(&self) -> Vec<i32> {
        self.y.clone()
    }
}
