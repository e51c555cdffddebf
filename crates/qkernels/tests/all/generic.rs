//! Code in other crates that is generic over what a product stores, or over how.

use std::error::Error;
use std::fmt::Debug;

use half::{bf16, f16};
use qcore::Q31Multiplier;
use qkernels::{
    Activation, Dequantize, DequantizeTo, Dynamic, FixedPointRounding, Int32, Kernel, Left, MatMut, MatRef,
    Output, OutputStage, PackedWeights, Requantize, RequantizeFixedPoint, Residual, Scales, StoredCode,
    StoredFloat, Threads, Workspace, gemm, gemm_columns, gemm_dynamic,
};

type Outcome = Result<(), Box<dyn Error>>;

fn codes<C: StoredCode>(x: MatRef<'_, u8>, w: &PackedWeights, mut y: MatMut<'_, C>) -> Outcome {
    let (multipliers, workspace) = ([Q31Multiplier::from_real(0.5)?], &mut Workspace::new());
    let fixed = RequantizeFixedPoint::<C>::new(&multipliers, FixedPointRounding::Double);
    gemm(x, w, &fixed, y.reborrow(), Threads::Serial, workspace)?;
    let stage = Requantize::<C>::new(Scales::PerTensor(0.5))?.with_zero_point(C::from_clamped(1));
    Ok(gemm(x, w, &stage, y, Threads::Serial, workspace)?)
}

/// Activations are codes that can be stored and added.
fn codes_like<A: Activation>(
    x: MatRef<'_, A>,
    w: &PackedWeights,
    y: MatMut<'_, A>,
    skip: MatRef<'_, A>,
) -> Outcome {
    let stage = Requantize::<A>::new(Scales::PerTensor(0.5))?.with_residual(Residual::new(skip, 0, 1.0)?);
    Ok(gemm(x, w, &stage, y, Threads::Serial, &mut Workspace::new())?)
}

fn floats<T: StoredFloat>(x: MatRef<'_, u8>, w: &PackedWeights, y: MatMut<'_, T>) -> Outcome {
    let stage = DequantizeTo::<T>::new(Scales::PerTensor(0.5))?;
    Ok(gemm(x, w, &stage, y, Threads::Serial, &mut Workspace::new())?)
}

fn dynamic<T: StoredFloat>(x: MatRef<'_, T>, w: &PackedWeights, y: MatMut<'_, T>) -> Outcome {
    let stage = DequantizeTo::<T>::new(Scales::PerTensor(1.0))?;
    Ok(gemm_dynamic(x, Dynamic::default(), w, &stage, y, Threads::Serial, &mut Workspace::new())?)
}

fn any_stage<A: Left, S: OutputStage>(
    x: A,
    w: &PackedWeights,
    stage: &S,
    y: MatMut<'_, Output<S>>,
) -> Outcome {
    Ok(gemm(x, w, stage, y, Threads::Serial, &mut Workspace::new())?)
}

fn any_stage_that_stores<T, S: OutputStage<Out = T>>(
    x: MatRef<'_, u8>,
    w: &PackedWeights,
    stage: &S,
    y: MatMut<'_, T>,
) -> Outcome {
    Ok(gemm_columns(x, w, 0..w.n(), stage, y, &mut Workspace::new())?)
}

/// How a struct or a function of another crate describes its stage, by the associated type alone.
fn filled<S: OutputStage>(
    x: MatRef<'_, u8>,
    w: &PackedWeights,
    stage: &S,
    with: S::Out,
) -> Result<Vec<S::Out>, Box<dyn Error>>
where
    S::Out: Debug + PartialEq,
{
    let mut y = vec![with; x.rows() * w.n()];
    any_stage(x, w, stage, MatMut::new(&mut y, x.rows(), w.n())?)?;
    Ok(y)
}

#[test]
fn whatever_the_type_that_is_stored() {
    let kernel = Kernel::select().unwrap();
    let w = PackedWeights::from_nk(MatRef::new(&[1i8, -2, 3, 4, 5, -6], 2, 3).unwrap(), kernel).unwrap();
    let x = MatRef::new(&[1u8, 0, 2], 1, 3).unwrap(); // sums 7, -8
    fn row<T>(y: &mut [T; 2]) -> MatMut<'_, T> {
        MatMut::new(y, 1, 2).unwrap()
    }
    let (mut signed, mut unsigned) = ([9i8; 2], [9u8; 2]);
    codes(x, &w, row(&mut signed)).unwrap();
    codes(x, &w, row(&mut unsigned)).unwrap();
    assert_eq!((signed, unsigned), ([5, -3], [5, 0]));
    codes_like(x, &w, row(&mut unsigned), MatRef::new(&[1u8, 10], 1, 2).unwrap()).unwrap();
    assert_eq!(unsigned, [4, 6]);

    let (mut y32, mut y16, mut yb16) = ([9f32; 2], [f16::ONE; 2], [bf16::ONE; 2]);
    floats(x, &w, row(&mut y32)).unwrap();
    floats(x, &w, row(&mut y16)).unwrap();
    floats(x, &w, row(&mut yb16)).unwrap();
    assert_eq!((y32, y16.map(f16::to_f32), yb16.map(bf16::to_f32)), ([3.5, -4.0], [3.5, -4.0], [3.5, -4.0]));
    dynamic(MatRef::new(&[127f32, 0.0, 127.0], 1, 3).unwrap(), &w, row(&mut y32)).unwrap();
    assert_eq!(y32, [508.0, -254.0]);

    let mut y = [9; 2];
    any_stage_that_stores(x, &w, &Int32::new(), row(&mut y)).unwrap();
    assert_eq!(y, [7, -8]);
    any_stage_that_stores(x, &w, &Dequantize::new(Scales::PerTensor(0.25)).unwrap(), row(&mut y32)).unwrap();
    assert_eq!(y32, [1.75, -2.0]);
    let stage = Requantize::<i8>::new(Scales::PerTensor(2.0)).unwrap();
    any_stage_that_stores(x, &w, &stage, row(&mut signed)).unwrap();
    assert_eq!((signed, filled(x, &w, &stage, 0).unwrap()), ([14, -16], vec![14, -16]));
    assert_eq!(filled(x, &w, &Int32::new(), 0).unwrap(), [7, -8]);
}
