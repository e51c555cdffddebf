//! The codes of blocks, packed as they are, with what stands beside them.

use qcore::{BlockError, BlockFormat, BlockGroup, BlockPart};
use qkernels::{Kernel, MatRef, ScaledWeights};

use super::container::GgufTensor;
use super::error::GgufError;
use super::tensor_type::GgufType;
use crate::layer::layer_error::LayerError;
use crate::layer::stored::{StoredGroups, StoredParts};
use crate::layer::weight_codes::StoredCodes;

impl GgufTensor<'_> {
    /// The codes of a matrix (n, k), packed. What the codes do not make is the inner error.
    pub(super) fn scaled(
        &self,
        tensor: &str,
        (n, k): (usize, usize),
        kernel: Kernel,
    ) -> Result<Result<ScaledWeights, LayerError>, GgufError> {
        let tensor = || tensor.to_owned();
        let format = match self.element {
            GgufType::Blocks(format) => format,
            got @ GgufType::Other(_) => return Err(GgufError::Type { tensor: tensor(), got }),
            got => return Err(GgufError::NoCodes { tensor: tensor(), got }),
        };
        Ok(Unpacked::new(format, self.data)?.pack(format, (n, k), kernel))
    }
}

/// Blocks taken apart.
struct Unpacked {
    /// As they are stored.
    codes: Vec<i8>,
    scales: Vec<f32>,
    groups: StoredGroups,
}

impl Unpacked {
    fn new(format: BlockFormat, data: &[u8]) -> Result<Self, BlockError> {
        let blocks = data.len() / format.block_bytes();
        let mut codes = vec![0i8; blocks * format.block_len()];
        // One for each block: smaller groups are parts.
        let mut groups = vec![BlockGroup::default(); blocks];
        let parts = match format.part_len() {
            None => {
                format.unpack(data, &mut codes, &mut groups)?;
                None
            }
            Some(len) => {
                let mut parts = vec![BlockPart::default(); codes.len() / len];
                format.unpack_parts(data, &mut codes, &mut groups, &mut parts)?;
                let minimums = format.has_minimum().then(|| parts.iter().map(|part| part.minimum).collect());
                Some(StoredParts { len, scales: parts.iter().map(|part| part.scale).collect(), minimums })
            }
        };
        let minimums = format.has_minimum().then(|| groups.iter().map(|group| group.minimum).collect());
        Ok(Self {
            codes,
            scales: groups.iter().map(|group| group.scale).collect(),
            groups: StoredGroups { len: Some(format.block_len()), minimums, parts, order: None },
        })
    }

    /// The weights of a layer (n, k). Codes of 4 bits stay as they are, others become bytes about
    /// 0.
    fn pack(
        self,
        format: BlockFormat,
        (n, k): (usize, usize),
        kernel: Kernel,
    ) -> Result<ScaledWeights, LayerError> {
        let Self { mut codes, scales, groups } = self;
        let zero_point = format.zero_point();
        if let BlockFormat::Q4_0 | BlockFormat::Q4_1 | BlockFormat::Q4K = format {
            let zero_points = (zero_point != 0).then(|| vec![zero_point; scales.len()]);
            let codes = MatRef::new(bytemuck::cast_slice::<i8, u8>(&codes), n, k)?;
            return groups.pack(StoredCodes::Nibbles(codes), &scales, zero_points.as_deref(), kernel);
        }
        codes.iter_mut().for_each(|code| *code -= zero_point);
        groups.pack(StoredCodes::Bytes(MatRef::new(&codes, n, k)?), &scales, None, kernel)
    }
}
