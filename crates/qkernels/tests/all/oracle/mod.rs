//! The results that every product must have, and inputs that are the same in every run.

pub(crate) mod in_parts;
pub(crate) mod sums;

use std::env;
use std::fmt::Debug;
use std::process::Command;

use half::f16;
use qcore::Code;
use qkernels::{
    Activation, Activations, Int32, Kernel, Left, MatMut, MatRef, Output, OutputStage, PackedNibbles,
    PackedWeights, ScaledWeights, Threads, Weight, WeightScales, Weights, Workspace, ZeroPoints, gemm,
    reference,
};

/// The value of an element before a product is written over it.
pub(crate) const CANARY: i32 = 0x5a5a_5a5a;

/// u8 or i8, as the activations or weights of a test.
pub(crate) trait TestCode: Activation + Weight + Into<i64> + Debug + PartialEq {
    /// The code with these bits.
    fn from_bits(bits: u8) -> Self;

    /// The weight that is packed as `w`.
    fn from_signed(w: i8) -> Self;
}

impl TestCode for u8 {
    fn from_bits(bits: u8) -> Self {
        bits
    }

    fn from_signed(w: i8) -> Self {
        w.cast_unsigned() ^ 0x80
    }
}

impl TestCode for i8 {
    fn from_bits(bits: u8) -> Self {
        bits.cast_signed()
    }

    fn from_signed(w: i8) -> Self {
        w
    }
}

/// Noise that is the same for the same seed (xorshift64*).
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// A number in `0..end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.bits() as usize % end
    }

    /// One of `choices`.
    pub(crate) fn choose<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Codes of the whole range, every fourth of them an extreme one.
    pub(crate) fn codes<C: TestCode>(&mut self, len: usize) -> Vec<C> {
        const EXTREMES: [u8; 4] = [0, 127, 128, 255];
        let code = |bits: u64| match bits & 3 {
            0 => EXTREMES[(bits >> 8) as usize & 3],
            _ => (bits >> 8) as u8,
        };
        (0..len).map(|_| C::from_bits(code(self.bits()))).collect()
    }

    /// Weights (n, k) in panels of 16 channels. Each panel has codes of the whole range or of fewer
    /// bits, for which a kernel may have a faster form.
    pub(crate) fn weights<W: TestCode>(&mut self, n: usize, k: usize) -> Vec<W> {
        let mut w = Vec::with_capacity(n * k);
        for first in (0..n).step_by(16) {
            let bits = self.choose(&[8, 8, 7, 6, 5]);
            let panel: Vec<i8> = self.codes(16.min(n - first) * k);
            w.extend(panel.into_iter().map(|w| W::from_signed(w >> (8 - bits))));
        }
        w
    }

    /// Zero points among the codes of `W`, every fourth of them an extreme one.
    pub(crate) fn zero_points<W: TestCode>(&mut self, n: usize) -> Vec<i32> {
        self.codes::<W>(n).into_iter().map(Code::widen).collect()
    }

    /// Integers in `-magnitude..=magnitude`.
    pub(crate) fn integers(&mut self, len: usize, magnitude: i32) -> Vec<i32> {
        let span = 2 * magnitude as usize + 1;
        (0..len).map(|_| self.below(span) as i32 - magnitude).collect()
    }

    /// Floats of both signs with magnitudes in `[low, 2 * low)`.
    pub(crate) fn floats(&mut self, len: usize, low: f32) -> Vec<f32> {
        let float = |bits: u64| {
            let magnitude = low * (1.0 + (bits >> 8 & 0xffff) as f32 / 65536.0);
            if bits & 1 == 0 { magnitude } else { -magnitude }
        };
        (0..len).map(|_| float(self.bits())).collect()
    }
}

/// Weights (n, k) and their zero points. A plain view has none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Right<'w, W> {
    pub(crate) view: MatRef<'w, W>,
    pub(crate) zero_points: ZeroPoints<'w>,
}

impl<'w, W: TestCode> From<MatRef<'w, W>> for Right<'w, W> {
    fn from(view: MatRef<'w, W>) -> Self {
        Self { view, zero_points: ZeroPoints::PerTensor(0) }
    }
}

impl<'w, W: TestCode> From<(MatRef<'w, W>, ZeroPoints<'w>)> for Right<'w, W> {
    fn from((view, zero_points): (MatRef<'w, W>, ZeroPoints<'w>)) -> Self {
        Self { view, zero_points }
    }
}

/// The sums of the triple loop in i64, all of which must fit int32.
pub(crate) fn sums<'w, A: TestCode, W: TestCode>(
    a: MatRef<'_, A>,
    zero_point: i32,
    w: impl Into<Right<'w, W>>,
) -> Vec<i32> {
    let fits = |sum| i32::try_from(sum).expect("a test whose sums fit int32");
    let w = w.into();
    reference::product(a, zero_point, Weights::new(w.view, w.zero_points)).into_iter().map(fits).collect()
}

/// `w` (n, k), packed by the constructor for the order in which its elements lie.
pub(crate) fn pack<'w, W: TestCode>(kernel: Kernel, w: impl Into<Right<'w, W>>) -> PackedWeights {
    let Right { view, zero_points } = w.into();
    let packed = if view.row_stride() == 1 && view.col_stride() != 1 {
        PackedWeights::from_kn(Weights::new(view.transposed(), zero_points), kernel)
    } else {
        PackedWeights::from_nk(Weights::new(view, zero_points), kernel)
    };
    packed.expect("weights that can be packed")
}

/// The values, or, as often, the f16 next to each: panels keep both in their own precision.
pub(crate) fn perhaps_f16(noise: &mut Noise, values: Vec<f32>) -> Vec<f32> {
    if noise.below(2) == 0 {
        values
    } else {
        values.into_iter().map(|value| f16::from_f32(value).to_f32()).collect()
    }
}

/// Codes of 8 bits, or of 4.
pub(crate) fn codes_of(noise: &mut Noise, bits: u32, len: usize) -> Vec<i8> {
    let codes: Vec<i8> = noise.codes(len);
    if bits == 4 { codes.into_iter().map(|code| code & 15).collect() } else { codes }
}

/// Packs weights (n, k) of 8 or 4 bits with their scales, per channel or in groups, and zero points
/// if they have any.
pub(crate) fn pack_scaled(
    kernel: Kernel,
    bits: u32,
    w: MatRef<'_, i8>,
    group_len: Option<usize>,
    scales: &[f32],
    zero_points: Option<&[i8]>,
) -> ScaledWeights {
    let scales = match group_len {
        None => WeightScales::per_channel(scales),
        Some(len) => WeightScales::per_group(scales, len),
    };
    let scales = match zero_points {
        None => scales,
        Some(zero_points) => scales.with_zero_points(zero_points),
    };
    if bits == 8 {
        return ScaledWeights::new(pack(kernel, w), scales).unwrap();
    }
    let codes: Vec<u8> =
        (0..w.rows()).flat_map(|i| w.row_slice(i).unwrap()).map(|w| w.cast_unsigned()).collect();
    let codes = MatRef::new(&codes, w.rows(), w.cols()).unwrap();
    ScaledWeights::of_nibbles(PackedNibbles::from_nk(codes, kernel).unwrap(), scales).unwrap()
}

/// The product on the calling thread, in a matrix without gaps that held `before`.
pub(crate) fn product<S: OutputStage>(
    a: impl Left,
    m: usize,
    w: &PackedWeights,
    stage: &S,
    before: Output<S>,
    workspace: &mut Workspace,
) -> Vec<Output<S>> {
    let mut y = vec![before; m * w.n()];
    let out = MatMut::new(&mut y, m, w.n()).expect("an output of m * n elements");
    gemm(a, w, stage, out, Threads::Serial, workspace).expect("operands that fit each other");
    y
}

/// Compares kernels with the oracle. One workspace serves all products, and so carries the
/// leftovers of every shape.
#[derive(Default)]
pub(crate) struct Conformance {
    workspace: Workspace,
    pub(crate) products: usize,
}

impl Conformance {
    /// Every kernel of this machine gives the oracle's sums.
    pub(crate) fn check<'w, A: TestCode, W: TestCode>(
        &mut self,
        a: MatRef<'_, A>,
        zero_point: i32,
        w: impl Into<Right<'w, W>>,
    ) {
        let w = w.into();
        let expected = sums(a, zero_point, w);
        for kernel in Kernel::available() {
            self.compare(kernel, a, zero_point, w, &expected);
        }
    }

    /// `kernel` gives the oracle's sums.
    pub(crate) fn check_on<'w, A: TestCode, W: TestCode>(
        &mut self,
        kernel: Kernel,
        a: MatRef<'_, A>,
        zero_point: i32,
        w: impl Into<Right<'w, W>>,
    ) {
        let w = w.into();
        let expected = sums(a, zero_point, w);
        self.compare(kernel, a, zero_point, w, &expected);
    }

    /// `kernel` gives `expected`.
    pub(crate) fn compare<'w, A: TestCode, W: TestCode>(
        &mut self,
        kernel: Kernel,
        a: MatRef<'_, A>,
        zero_point: i32,
        w: impl Into<Right<'w, W>>,
        expected: &[i32],
    ) {
        let (w, activations) = (w.into(), Activations::new(a, zero_point));
        let y = product(activations, a.rows(), &pack(kernel, w), &Int32::new(), CANARY, &mut self.workspace);
        self.products += 1;
        let (m, n, k) = (a.rows(), w.view.rows(), a.cols());
        assert_eq!(expected.len(), m * n);
        if let Some(at) = (0..m * n).find(|&at| y[at] != expected[at]) {
            panic!(
                "{kernel}, {} by {}, m = {m}, n = {n}, k = {k}, a strides ({}, {}), w strides ({}, {}), zero points \
                 {zero_point} and {:?}: element ({}, {}) is {}, expected {}",
                std::any::type_name::<A>(),
                std::any::type_name::<W>(),
                a.row_stride(),
                a.col_stride(),
                w.view.row_stride(),
                w.view.col_stride(),
                w.zero_points,
                at / n,
                at % n,
                y[at],
                expected[at],
            );
        }
    }
}

/// This program, to be run as a process of its own. If cargo runs it by an emulator, so does this.
pub(crate) fn this_program() -> Command {
    let program = env::current_exe().expect("a program that knows where it is");
    let runner = format!("CARGO_TARGET_{}_UNKNOWN_LINUX_GNU_RUNNER", env::consts::ARCH.to_uppercase());
    let runner = env::var(runner).unwrap_or_default();
    let mut words = runner.split_whitespace();
    let Some(emulator) = words.next() else { return Command::new(program) };
    let mut command = Command::new(emulator);
    command.args(words).arg(program);
    command
}

/// One less than `step`, `step` itself and one more, without 0.
pub(crate) fn around(step: usize) -> impl Iterator<Item = usize> {
    (step - 1..=step + 1).filter(|&x| x > 0)
}
