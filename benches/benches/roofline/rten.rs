//! rten-gemm: u8 x i8 -> int32. It has no argument for threads: main sizes rayon's pool, which it
//! runs on, to one.

use qbenches::Kind;
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions, PackedBMatrix};
use rten_tensor::NdTensorView;

use crate::contender::{Contender, Operands, Prepared, Problem, Result};

/// Weights packed once.
pub(crate) struct Rten;

/// Weights as they are, one row only: rten has a matrix-vector product, but not for packed weights.
pub(crate) struct RtenVector;

struct Multiply<'d> {
    executor: GemmExecutor<u8, i8, i32>,
    a: NdTensorView<'d, u8, 2>,
    w: NdTensorView<'d, i8, 2>,
    packed: Option<PackedBMatrix<i8>>,
    y: Vec<i32>,
}

fn multiply<'d>(problem: &Problem<'d>, pack: bool) -> Box<dyn Prepared + 'd> {
    let shape = problem.shape;
    let executor = GemmExecutor::new();
    let w = NdTensorView::from_data([shape.n, shape.k], problem.w);
    Box::new(Multiply {
        a: NdTensorView::from_data([shape.m, shape.k], problem.a),
        packed: pack.then(|| executor.prepack_b(w.transposed())),
        executor,
        w,
        y: vec![0; shape.m * shape.n],
    })
}

impl Contender for Rten {
    fn name(&self) -> &'static str {
        "rten-gemm"
    }

    fn kind(&self) -> Kind {
        Kind::Peer
    }

    fn operands(&self) -> Operands {
        Operands::U8I8
    }

    fn prepare<'d>(&self, problem: &Problem<'d>) -> Result<Option<Box<dyn Prepared + 'd>>> {
        Ok(Some(multiply(problem, true)))
    }

    fn may_saturate(&self) -> bool {
        GemmExecutor::<u8, i8, i32>::new().may_saturate()
    }
}

impl Contender for RtenVector {
    fn name(&self) -> &'static str {
        "rten-gemm unpacked"
    }

    fn kind(&self) -> Kind {
        Kind::Peer
    }

    fn operands(&self) -> Operands {
        Operands::U8I8
    }

    fn prepare<'d>(&self, problem: &Problem<'d>) -> Result<Option<Box<dyn Prepared + 'd>>> {
        Ok((problem.shape.m == 1).then(|| multiply(problem, false)))
    }

    fn may_saturate(&self) -> bool {
        Rten.may_saturate()
    }
}

impl Prepared for Multiply<'_> {
    fn run(&mut self) -> Result<()> {
        let b = match &self.packed {
            Some(packed) => GemmInputB::Packed(packed),
            None => GemmInputB::Unpacked(self.w.transposed()),
        };
        let options = GemmOptions::default();
        let result = self.executor.gemm(&mut self.y, GemmInputA::Unpacked(self.a), b, options);
        result.map_err(|error| format!("rten-gemm: {error:?}").into())
    }

    fn product(&self) -> Vec<i32> {
        self.y.clone()
    }
}
