//! Weight-only products refuse bad input with errors that contain the numbers, and nothing is
//! written.

use qkernels::{
    FloatStage, GROUP_STEP, GemmError, Kernel, MatMut, MatRef, PackedNibbles, ScaleError, ScaledWeights,
    StageError, Threads, WeightScales, Workspace, weight_only,
};

use crate::oracle::pack;

#[test]
fn bad_operands_are_refused_with_numbers() {
    let mut workspace = Workspace::new();
    for kernel in Kernel::available() {
        let packed = || pack(kernel, MatRef::new(&[1i8; 2 * 40], 2, 40).unwrap());
        let scaled = |scales| ScaledWeights::new(packed(), scales);
        let error = scaled(WeightScales::per_channel(&[1.0; 3])).unwrap_err();
        assert_eq!(error.to_string(), "expected 2 x 1 scales, got 3");
        let error = scaled(WeightScales::per_group(&[1.0; 4], 16)).unwrap_err();
        assert_eq!(error, ScaleError::Length { operand: "scales", n: 2, groups: 3, len: 4 });
        let error = scaled(WeightScales::per_channel(&[1.0; 2]).with_zero_points(&[0])).unwrap_err();
        assert_eq!(error.to_string(), "expected 2 x 1 zero points, got 1");
        for group_len in [0, 1, 8, GROUP_STEP + 1, 39] {
            let error = scaled(WeightScales::per_group(&[1.0; 80], group_len)).unwrap_err();
            assert_eq!(error, ScaleError::GroupLength { group_len });
            assert_eq!(
                error.to_string(),
                format!("groups of {group_len} along k; their length must be a multiple of 16, and not 0")
            );
        }
        let error = scaled(WeightScales::per_group(&[1.0, 2.0, f32::INFINITY, 4.0], 32)).unwrap_err();
        assert_eq!(error.to_string(), "the scale of group 0 of channel 1 is inf; it must be finite");
        // A channel's own scale is none of a group.
        let error = scaled(WeightScales::per_channel(&[1.0, f32::NAN])).unwrap_err();
        assert_eq!(error.to_string(), "the scale of channel 1 is NaN; it must be finite");
        let nibbles = PackedNibbles::from_nk(MatRef::new(&[1u8; 2 * 40], 2, 40).unwrap(), kernel).unwrap();
        let nibbles = |scales| ScaledWeights::of_nibbles(nibbles.clone(), scales).unwrap_err().to_string();
        let (channels, groups) =
            (WeightScales::per_channel(&[1.0; 2]), WeightScales::per_group(&[1.0; 4], 32));
        assert_eq!(
            nibbles(channels.with_zero_points(&[0, 16])),
            "the zero point of channel 1 is 16; codes of 4 bits are 0 to 15"
        );
        assert_eq!(
            nibbles(groups.with_zero_points(&[0, 0, 0, -1])),
            "the zero point of group 1 of channel 1 is -1; codes of 4 bits are 0 to 15"
        );

        let w = scaled(WeightScales::per_channel(&[1.0, 2.0])).unwrap();
        let (a, mut y) = ([1.0f32; 80], [9.0f32; 9]);
        let mut run = |a: MatRef<'_, f32>, rows: usize, cols: usize, stage: &FloatStage<'_>| {
            let out = MatMut::new(&mut y, rows, cols).unwrap();
            let result = weight_only(a, &w, stage, out, Threads::Serial, &mut workspace);
            assert!(y.iter().all(|&y| y == 9.0), "nothing is written");
            result.unwrap_err()
        };
        let plain = FloatStage::new();
        let fitting = MatRef::new(&a, 2, 40).unwrap();
        assert_eq!(
            run(MatRef::new(&a, 2, 39).unwrap(), 2, 2, &plain),
            GemmError::Depth { expected: 40, got: 39 }
        );
        for (rows, cols) in [(1, 2), (2, 1), (3, 2), (2, 3)] {
            assert_eq!(run(fitting, rows, cols, &plain), GemmError::OutputShape { m: 2, n: 2, rows, cols });
        }
        let short = plain.with_bias(&[1.0]).unwrap();
        let expected = StageError::Length { operand: "bias", n: 2, len: 1 };
        assert_eq!(run(fitting, 2, 2, &short), GemmError::Stage(expected));
    }
    assert!(matches!(
        FloatStage::new().with_bias(&[0.0, f32::NAN]),
        Err(StageError::NotFinite { operand: "bias", channel: 1, .. })
    ));
}
