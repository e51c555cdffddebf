//! One product under many output stages.

use qkernels::{Activations, Kernel, MatRef, Output, OutputStage, Workspace, ZeroPoints};

use crate::oracle::{Noise, Right, TestCode, around, pack, product, sums};

/// One product, and the values that its sums plus int32 bias must have.
pub(crate) struct Sums<A, W> {
    a: Vec<A>,
    w: Vec<W>,
    zero_point: i32,
    /// Zero points of each channel; empty if all are 0.
    w_zero_points: Vec<i32>,
    pub(crate) shape: (usize, usize, usize),
    pub(crate) bias: Vec<i32>,
    /// The sums without the bias.
    acc: Vec<i32>,
    workspace: Workspace,
}

impl<A: TestCode> Sums<A, i8> {
    /// Any sums at all, the same in every row. The weights are 0, and the sums are the bias.
    pub(crate) fn given(sums: &[i32], m: usize) -> Self {
        Self::made((vec![A::from_bits(200); m * 3], 0), (vec![0; sums.len() * 3], vec![]), m, sums.to_vec())
    }
}

impl<A: TestCode, W: TestCode> Sums<A, W> {
    /// Random codes. If `zero_points`, the weights have zero points from all their codes.
    pub(crate) fn random(noise: &mut Noise, (m, n, k): (usize, usize, usize), zero_points: bool) -> Self {
        let w_zero_points = if zero_points { noise.zero_points::<W>(n) } else { Vec::new() };
        let (a, w) = (noise.codes(m * k), noise.weights(n, k));
        Self::made((a, 9), (w, w_zero_points), m, noise.integers(n, 100_000))
    }

    /// As `given`, with weights that all equal their zero points.
    pub(crate) fn given_by_zero_points(noise: &mut Noise, sums: &[i32], m: usize) -> Self {
        let w_zero_points = noise.zero_points::<W>(sums.len());
        let w = w_zero_points.iter().flat_map(|&z| [W::from_bits(z as u8); 3]).collect();
        Self::made((noise.codes(m * 3), -7), (w, w_zero_points), m, sums.to_vec())
    }

    /// Runs `check` on random sums whose columns end at and around the ends of each kernel's
    /// vectors and panels.
    pub(crate) fn at_the_edges(seed: u64, zero_points: bool, check: impl Fn(&mut Self, &mut Noise)) {
        let mut noise = Noise::new(seed);
        for desc in Kernel::available().map(Kernel::desc) {
            for n in around(desc.vector_columns).chain(around(desc.nr)) {
                let m = 1 + noise.below(desc.mr + 2);
                let mut sums = Self::random(&mut noise, (m, n, 40), zero_points);
                check(&mut sums, &mut noise);
            }
        }
    }

    fn made(
        (a, zero_point): (Vec<A>, i32),
        (w, w_zero_points): (Vec<W>, Vec<i32>),
        m: usize,
        bias: Vec<i32>,
    ) -> Self {
        let (n, k) = (bias.len(), w.len() / bias.len());
        let shape = (m, n, k);
        let mut made =
            Self { a, w, zero_point, w_zero_points, shape, bias, acc: vec![], workspace: Workspace::new() };
        made.acc = sums(MatRef::new(&made.a, m, k).unwrap(), zero_point, made.right());
        made
    }

    fn right(&self) -> Right<'_, W> {
        let view = MatRef::new(&self.w, self.shape.1, self.shape.2).unwrap();
        match self.w_zero_points.as_slice() {
            [] => view.into(),
            zero_points => (view, ZeroPoints::PerChannel(zero_points)).into(),
        }
    }

    /// The channel and the sum of each element.
    pub(crate) fn expected(&self, bias: bool) -> impl Iterator<Item = (usize, i32)> {
        let channel = |at| at % self.shape.1;
        let bias = move |at| if bias { self.bias[channel(at)] } else { 0 };
        self.acc.iter().enumerate().map(move |(at, acc)| (channel(at), acc + bias(at)))
    }

    /// The output that every kernel stores.
    pub(crate) fn run<S: OutputStage>(
        &mut self,
        stage: &S,
        before: Output<S>,
    ) -> impl Iterator<Item = (Kernel, Vec<Output<S>>)> {
        let (m, _, k) = self.shape;
        Kernel::available().map(move |kernel| {
            let a = Activations::new(MatRef::new(&self.a, m, k).unwrap(), self.zero_point);
            let w = pack(kernel, self.right());
            (kernel, product(a, m, &w, stage, before, &mut self.workspace))
        })
    }
}
