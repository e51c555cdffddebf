//! The product in f32, by the `gemm` crate, as qnn's models before quantization compute it.

use qbenches::Kind;
use qkernels::{MatMut, MatRef, Threads, float};

use crate::contender::{Contender, Operands, Prepared, Problem, Result};

/// The f32 product.
pub(crate) struct Float;

struct Widened {
    m: usize,
    n: usize,
    k: usize,
    a: Vec<f32>,
    w: Vec<f32>,
    y: Vec<f32>,
}

impl Contender for Float {
    fn name(&self) -> &'static str {
        "gemm crate"
    }

    fn kind(&self) -> Kind {
        Kind::Float
    }

    fn operands(&self) -> Operands {
        Operands::F32
    }

    fn prepare<'d>(&self, problem: &Problem<'d>) -> Result<Option<Box<dyn Prepared + 'd>>> {
        let qbenches::Shape { m, n, k, .. } = problem.shape;
        Ok(Some(Box::new(Widened {
            m,
            n,
            k,
            a: problem.a.iter().copied().map(f32::from).collect(),
            w: problem.w.iter().copied().map(f32::from).collect(),
            y: vec![0.0; m * n],
        })))
    }
}

impl Prepared for Widened {
    fn run(&mut self) -> Result<()> {
        let (a, w) = (MatRef::new(&self.a, self.m, self.k)?, MatRef::new(&self.w, self.n, self.k)?);
        Ok(float::matmul(a, w, MatMut::new(&mut self.y, self.m, self.n)?, Threads::Serial)?)
    }

    fn product(&self) -> Vec<i32> {
        self.y.iter().map(|&y| y as i32).collect()
    }
}
