//! Block formats against the values that ggml's own package makes of the same bytes, bit for bit.

use std::collections::BTreeSet;
use std::fs;

use qcore::{BlockFormat, BlockGroup, BlockPart, GgmlQ8_0};
use safetensors::SafeTensors;

use crate::fixture;

#[test]
fn values_are_those_of_ggml() {
    let bytes = fs::read(fixture::dir().join("10_block_formats.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut seen = BTreeSet::new();
    for name in tensors.names().into_iter().filter_map(|name| name.strip_suffix("/bytes")) {
        let format = name.split('/').next().unwrap();
        let format = BlockFormat::ALL.into_iter().find(|known| known.name() == format).unwrap();
        seen.insert(format.name());
        let blocks = tensors.tensor(&format!("{name}/bytes")).unwrap();
        let expected = tensors.tensor(&format!("{name}/dequant")).unwrap();
        let expected: Vec<f32> =
            expected.data().as_chunks().0.iter().map(|v| f32::from_le_bytes(*v)).collect();
        let mut values = vec![f32::NAN; expected.len()];
        format.dequantize(blocks.data(), &mut values).unwrap();
        for (at, (got, expected)) in values.iter().zip(&expected).enumerate() {
            // Both zeros are a value of 0.
            let same = got.to_bits() == expected.to_bits() || (*got == 0.0 && *expected == 0.0);
            assert!(same, "{name}: {got} at {at}, expected {expected}");
        }
        // Codes and groups make the same values.
        let mut codes = vec![0; values.len()];
        let mut groups = vec![BlockGroup::default(); values.len() / format.group_len()];
        format.unpack(blocks.data(), &mut codes, &mut groups).unwrap();
        for (at, &value) in values.iter().enumerate() {
            let group = groups[at / format.group_len()];
            let code = i32::from(codes[at]) - i32::from(format.zero_point());
            assert_eq!(code as f32 * group.scale + group.minimum, value, "{name}: {at}");
        }
        if let BlockFormat::Q8_0 | BlockFormat::Q4_0 = format {
            let mut again = vec![0xa5; blocks.data().len()];
            format.pack(&codes, &groups, &mut again).unwrap();
            assert_eq!(again, blocks.data(), "{name}");
        }
        let Some(part_len) = format.part_len() else { continue };
        let mut codes_again = vec![0; values.len()];
        let mut wholes = vec![BlockGroup::default(); values.len() / format.block_len()];
        let mut parts = vec![BlockPart::default(); values.len() / part_len];
        format.unpack_parts(blocks.data(), &mut codes_again, &mut wholes, &mut parts).unwrap();
        assert_eq!(codes_again, codes, "{name}");
        for (at, &value) in values.iter().enumerate() {
            let (whole, part) = (wholes[at / format.block_len()], parts[at / part_len]);
            let group = groups[at / format.group_len()];
            assert_eq!(whole.scale * f32::from(part.scale), group.scale, "{name}: {at}");
            assert_eq!(whole.minimum * f32::from(part.minimum), group.minimum, "{name}: {at}");
            assert!(part.minimum >= 0 && (format.has_minimum() || part.minimum == 0), "{name}: {at}");
            // Exactly, but for the roundings of the two products and the sum.
            let code = f64::from(codes[at]) - f64::from(format.zero_point());
            let scaled = f64::from(whole.scale) * f64::from(part.scale) * code;
            let minimum = f64::from(whole.minimum) * f64::from(part.minimum);
            let bound = (scaled.abs() + minimum.abs()) * 4.0 * f64::from(f32::EPSILON);
            assert!((scaled + minimum - f64::from(value)).abs() <= bound, "{name}: {at}");
        }
    }
    assert_eq!(seen.len(), BlockFormat::ALL.len());
}

#[test]
fn blocks_of_values_are_those_of_ggml() {
    let tensors = fixture::load_tensors(&fixture::dir().join("11_ggml_dot.safetensors"));
    let mut checked = 0;
    for (name, of_blocks) in &tensors {
        let Some(values) = name.strip_suffix("_bytes").and_then(|name| tensors.get(name)) else { continue };
        let (mut codes, mut groups) = (Vec::new(), Vec::new());
        for values in values.f32().chunks(GgmlQ8_0::BLOCK_LEN) {
            let block = GgmlQ8_0::of(values);
            codes.extend(values.iter().map(|&x| block.quantize(x) as i8));
            groups.push(BlockGroup { scale: block.scale(), minimum: 0.0 });
        }
        let mut bytes = vec![0xa5; of_blocks.bytes.len()];
        BlockFormat::Q8_0.pack(&codes, &groups, &mut bytes).unwrap();
        assert!(bytes == of_blocks.bytes, "{name}");
        checked += 1;
    }
    // Activations of all cases, and the weights of those whose weights are Q8_0.
    assert_eq!(checked, 10 + 6);
}
