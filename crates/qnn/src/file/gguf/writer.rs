//! Writes a GGUF file as another one, with some of its tensors quantized.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;

use qcore::{BlockError, BlockFormat, BlockGroup};
use qkernels::ScaledWeights;

use super::container::{GgufFile, GgufTensor};
use super::tensor_type::GgufType;
use super::write_error::GgufWriteError;
use crate::layer::dynamic::weights::DynamicWeights;
use crate::layer::linear::Linear;
use crate::layer::weight_codes::usual_zero_point;

/// Writes a GGUF file that is a copy of another one, but for tensors that were quantized here, so
/// that llama.cpp runs the model with these very codes and scales.
///
/// Weights of 8 bits with zero point 0 become `Q8_0`, those of 4 bits with zero point 8 become
/// `Q4_0`. Both have groups of 32, and scales that are exact in f16, as
/// [`ScaleArithmetic::F16`](qcore::ScaleArithmetic) makes them; nothing is rounded here, and what
/// has no place in such blocks is an error.
///
/// All else is the source's, byte for byte: the version, the metadata, names, shapes and order of
/// all tensors, and the data of those that are not replaced, whether this library reads their type
/// or not. Data are aligned as the source says (`general.alignment`). So `general.file_type` stays
/// as it is, too, if it is there: llama.cpp takes each tensor's type from its own description, and
/// that key for nothing but the name it shows. `general.quantization_version`, which the format
/// asks of files with quantized tensors, is not added where the source lacks it; llama.cpp's
/// converters write it into files of floats, too.
///
/// ```
/// use qcore::{ActivationFunction, ScaleArithmetic, Scheme};
/// use qkernels::Kernel;
/// use qnn::{CodesForm, GgufFile, GgufWriter, Linear, WeightConfig, WeightOnlyLinear};
/// # let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
/// # let mut bytes = b"GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
/// # bytes.extend(text("up.weight"));
/// # bytes.extend([2u32, 32, 0, 1, 0, 0, 0, 0].map(u32::to_le_bytes).concat());
/// # bytes.resize(96, 0);
/// # bytes.extend((0..32).flat_map(|i| (i as f32 - 7.0).to_le_bytes()));
/// let mut file = GgufFile::parse(&bytes)?; // of a model in F32 or F16
/// let (kernel, identity) = (Kernel::select()?, ActivationFunction::Identity);
/// let Linear::Float(float) = file.take_linear("up", CodesForm::Float, identity, kernel)? else { return Ok(()) };
/// let scheme = Scheme { scale: ScaleArithmetic::F16, ..Scheme::weights_i8() };
/// let config = WeightConfig { scheme, ..WeightConfig::default() }.in_groups_of(32);
/// let layer = Linear::from(WeightOnlyLinear::quantize(&float, &config, kernel)?);
///
/// let mut writer = GgufWriter::new(&file)?;
/// writer.replace_layer(&layer)?;
/// let quantized = writer.to_bytes()?; // or `write` to a file
/// let mut file = GgufFile::parse(&quantized)?;
/// let again = file.take_linear("up", CodesForm::WeightOnly, identity, kernel)?;
/// # let (Linear::WeightOnly(layer), Linear::WeightOnly(again)) = (layer, again) else { panic!() };
/// assert_eq!(again.unpack(), layer.unpack());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct GgufWriter<'f> {
    source: &'f GgufFile<'f>,
    replaced: BTreeMap<&'f str, (BlockFormat, Vec<u8>)>,
    /// The bytes of tensors whose type is not read.
    unread: BTreeMap<&'f str, &'f [u8]>,
}

/// The values of a block of either format.
const BLOCK_LEN: usize = BlockFormat::Q8_0.block_len();

/// Padding is written in pieces of at most this length, whatever alignment a file claims.
const ZEROS: [u8; 4096] = [0; 4096];

impl<'f> GgufWriter<'f> {
    /// A copy of `source`, all of it: which tensors were taken does not matter.
    ///
    /// The length of a tensor whose type is not read is not known. It is copied up to where the
    /// next one begins, or the data end.
    ///
    /// # Errors
    /// [`GgufWriteError`] if such a tensor shares bytes with another one, or has none in the
    /// source.
    pub fn new(source: &'f GgufFile<'f>) -> Result<Self, GgufWriteError> {
        Ok(Self { source, replaced: BTreeMap::new(), unread: unread(source)? })
    }

    /// Replaces the tensor `name.weight` by the weights of a dynamic or weight-only layer of this
    /// name. The bias, if there is one, stays the source's. Returns the format that the weights
    /// have in the file.
    ///
    /// # Errors
    /// As [`replace`](Self::replace), and if the layer has another form, scales that its input is
    /// divided by, or another bias than the source's `name.bias`. Nothing is replaced then.
    pub fn replace_layer(&mut self, layer: &Linear) -> Result<BlockFormat, GgufWriteError> {
        let form = || GgufWriteError::Form { layer: layer.name().to_owned(), form: layer.form() };
        if let Some(scale) = layer.input_scale() {
            return Err(GgufWriteError::InputScale { layer: layer.name().to_owned(), k: scale.len() });
        }
        let (weights, bias) = match layer {
            Linear::WeightOnly(layer) => (Weights::of(layer.weights()), layer.bias()),
            Linear::Dynamic(layer) => (Weights::of_dynamic(layer.weights()), layer.bias()),
            Linear::Float(_) | Linear::Static(_) => return Err(form()),
        };
        self.check_bias(format!("{}.bias", layer.name()), layer.n(), bias)?;
        self.replace_by(&format!("{}.weight", layer.name()), &weights)
    }

    /// Replaces a tensor (n, k) by quantized weights: an embedding, or the weights of a layer that
    /// have another name than the layer. Returns the format that they have in the file. Channels
    /// stay in the source's order.
    ///
    /// # Errors
    /// [`GgufWriteError`] if the source has no such tensor, or one of another shape, or it was
    /// replaced before; if k is no multiple of 32 or groups have another length; if groups have
    /// minimums, parts, inputs in an order of their own, or another zero point than 0 for 8 bits
    /// and 8 for 4; or if a scale is not exact in f16. Nothing is replaced then.
    pub fn replace(&mut self, tensor: &str, weights: &ScaledWeights) -> Result<BlockFormat, GgufWriteError> {
        self.replace_by(tensor, &Weights::of(weights))
    }

    /// Writes the file. What is written is not collected first, so `to` had better be buffered.
    ///
    /// # Errors
    /// [`GgufWriteError::Write`] if `to` fails.
    pub fn write(&self, mut to: impl Write) -> Result<(), GgufWriteError> {
        let source = self.source;
        let alignment = u64::from(source.alignment()?);
        let mut header = b"GGUF".to_vec();
        header.extend(source.version.to_le_bytes());
        header.extend((source.all().count() as u64).to_le_bytes());
        header.extend((source.metadata().count() as u64).to_le_bytes());
        header.extend(source.entries);
        // llama.cpp wants tensors in the order of their descriptions, with nothing between.
        let mut end = 0u64;
        for (name, tensor) in source.all() {
            let (element, data) = self.contents(name, tensor);
            header.extend((name.len() as u64).to_le_bytes());
            header.extend(name.as_bytes());
            header.extend((tensor.shape.len() as u32).to_le_bytes());
            for &dimension in tensor.shape.iter().rev() {
                header.extend((dimension as u64).to_le_bytes());
            }
            header.extend(element.number().to_le_bytes());
            header.extend(end.to_le_bytes());
            end = (end + data.len() as u64).next_multiple_of(alignment);
        }
        to.write_all(&header)?;
        // Where there are data, the source is.
        if source.padded {
            pad(&mut to, header.len(), alignment)?;
        }
        for (name, tensor) in source.all() {
            let (_, data) = self.contents(name, tensor);
            to.write_all(data)?;
            pad(&mut to, data.len(), alignment)?;
        }
        to.flush()?;
        Ok(())
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// None that [`new`](Self::new) and [`replace`](Self::replace) do not find.
    pub fn to_bytes(&self) -> Result<Vec<u8>, GgufWriteError> {
        let mut bytes = Vec::new();
        self.write(&mut bytes)?;
        Ok(bytes)
    }

    /// The type and the bytes that a tensor of the source is written with.
    fn contents(&self, name: &str, tensor: &GgufTensor<'f>) -> (GgufType, &[u8]) {
        match self.replaced.get(name) {
            Some((format, bytes)) => (GgufType::Blocks(*format), bytes),
            None => (tensor.element, self.unread.get(name).copied().unwrap_or(tensor.data)),
        }
    }

    fn replace_by(&mut self, tensor: &str, weights: &Weights<'_>) -> Result<BlockFormat, GgufWriteError> {
        let named = || tensor.to_owned();
        let Some((name, found)) = self.source.get(tensor) else {
            return Err(GgufWriteError::Missing { tensor: named() });
        };
        if self.replaced.contains_key(name) {
            return Err(GgufWriteError::Twice { tensor: named() });
        }
        let &Weights { n, k, .. } = weights;
        if found.shape != [n, k] {
            return Err(GgufWriteError::Shape { tensor: named(), expected: found.shape.clone(), n, k });
        }
        let (format, blocks) = weights.blocks(tensor)?;
        self.replaced.insert(name, (format, blocks));
        Ok(format)
    }

    /// Checks that a layer's bias is the source's.
    fn check_bias(&self, tensor: String, n: usize, bias: Option<&[f32]>) -> Result<(), GgufWriteError> {
        let (found, bias) = match (self.source.get(&tensor), bias) {
            (None, None) => return Ok(()),
            (Some((_, found)), Some(bias)) => (found, bias),
            (found, _) => return Err(GgufWriteError::Bias { tensor, in_source: found.is_some() }),
        };
        if found.shape != [n] {
            return Err(GgufWriteError::BiasShape { tensor, n, got: found.shape.clone() });
        }
        let values = found.values(&tensor)?;
        match values.iter().zip(bias).position(|(expected, got)| expected != got) {
            None => Ok(()),
            Some(channel) => {
                let (expected, got) = (values[channel], bias[channel]);
                Err(GgufWriteError::BiasValue { tensor, channel, expected, got })
            }
        }
    }
}

/// What weights are made of, whatever has them.
struct Weights<'w> {
    n: usize,
    k: usize,
    bits: u32,
    group_len: usize,
    codes: Vec<i8>,
    scales: Cow<'w, [f32]>,
    zero_points: Option<Vec<i8>>,
    /// How many there are.
    minimums: Option<usize>,
    part_len: Option<usize>,
    /// Whether k is in another order than the inputs.
    ordered: bool,
}

impl<'w> Weights<'w> {
    fn of(weights: &ScaledWeights) -> Self {
        Self {
            n: weights.n(),
            k: weights.k(),
            bits: weights.bits(),
            group_len: weights.group_len(),
            codes: weights.unpack(),
            scales: weights.scales().into(),
            zero_points: weights.zero_points(),
            minimums: weights.minimums().map(|minimums| minimums.len()),
            part_len: weights.part_len(),
            ordered: weights.input_order().is_some(),
        }
    }

    fn of_dynamic(weights: &'w DynamicWeights) -> Self {
        match weights {
            DynamicWeights::Scaled(weights) => Self::of(weights),
            DynamicWeights::PerChannel { codes, scales } => Self {
                n: codes.n(),
                k: codes.k(),
                bits: weights.bits(),
                group_len: weights.group_len(),
                codes: weights.unpack(),
                scales: scales.into(),
                zero_points: weights.zero_points(),
                minimums: None,
                part_len: None,
                ordered: false,
            },
        }
    }

    /// The weights as blocks.
    fn blocks(&self, tensor: &str) -> Result<(BlockFormat, Vec<u8>), GgufWriteError> {
        let (tensor, block_len) = (|| tensor.to_owned(), BLOCK_LEN);
        let &Self { n, k, bits, group_len, .. } = self;
        if k == 0 || !k.is_multiple_of(block_len) {
            return Err(GgufWriteError::Row { tensor: tensor(), k, block_len });
        }
        // A channel shorter than a group is one.
        if group_len.min(k) != block_len {
            return Err(GgufWriteError::GroupLength { tensor: tensor(), group_len, block_len });
        }
        if self.ordered {
            return Err(GgufWriteError::InputOrder { tensor: tensor() });
        }
        if let Some(part_len) = self.part_len {
            return Err(GgufWriteError::Parts { tensor: tensor(), part_len });
        }
        if let Some(count) = self.minimums {
            return Err(GgufWriteError::Minimums { tensor: tensor(), count });
        }
        let groups_of_row = k / block_len;
        let place = |at: usize| (at / groups_of_row, at % groups_of_row);
        let format = if bits == 4 { BlockFormat::Q4_0 } else { BlockFormat::Q8_0 };
        let expected = usual_zero_point(bits, false);
        let zero_points = self.zero_points.as_deref().unwrap_or_default();
        // Without any, they are 0.
        let odd = match zero_points {
            [] if expected != 0 && n > 0 => Some((0, 0)),
            _ => {
                let at = zero_points.iter().position(|&zero_point| zero_point != expected);
                at.map(|at| (at, zero_points[at]))
            }
        };
        if let Some((at, got)) = odd {
            let (channel, group) = place(at);
            let tensor = tensor();
            return Err(GgufWriteError::ZeroPoint { tensor, channel, group, bits, expected, got });
        }
        let groups: Vec<BlockGroup> =
            self.scales.iter().map(|&scale| BlockGroup { scale, minimum: 0.0 }).collect();
        let mut bytes = vec![0; groups.len() * format.block_bytes()];
        match format.pack(&self.codes, &groups, &mut bytes) {
            Ok(()) => Ok((format, bytes)),
            Err(BlockError::Scale { group, scale, .. }) => {
                let (channel, group) = place(group);
                Err(GgufWriteError::Scale { tensor: tensor(), channel, group, scale })
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The bytes of tensors whose type is not read, with the padding behind them. Each tensor that has
/// bytes begins at a place of its own, so a copy is no longer than twice the source, whatever
/// alignment it claims.
fn unread<'f>(source: &'f GgufFile<'f>) -> Result<BTreeMap<&'f str, &'f [u8]>, GgufWriteError> {
    let mut sorted: Vec<_> = source.all().filter(|(_, tensor)| !tensor.shape.contains(&0)).collect();
    sorted.sort_by_key(|(_, tensor)| tensor.offset);
    for pair in sorted.windows(2) {
        let [(other, first), (name, second)] = [pair[0], pair[1]];
        // One of an unknown length has a byte.
        if second.offset - first.offset < first.data.len().max(1) {
            let (tensor, element, offset) = (name.to_owned(), second.element, second.offset);
            return Err(GgufWriteError::Overlap { tensor, element, offset, other: other.to_owned() });
        }
    }
    let mut found = BTreeMap::new();
    let ends = sorted.iter().skip(1).map(|(_, next)| next.offset).chain([source.data.len()]);
    for (&(name, tensor), end) in sorted.iter().zip(ends) {
        let &GgufTensor { element, offset, .. } = tensor;
        if let GgufType::Other(_) = element {
            let data = source.data.get(offset..end).filter(|data| !data.is_empty());
            let no_bytes = || GgufWriteError::NoBytes { tensor: name.to_owned(), element, offset };
            found.insert(name, data.ok_or_else(no_bytes)?);
        }
    }
    Ok(found)
}

/// Writes as many zeros as are missing behind `len` bytes.
fn pad(to: &mut impl Write, len: usize, alignment: u64) -> Result<(), GgufWriteError> {
    let len = len as u64;
    let mut left = len.next_multiple_of(alignment) - len;
    while left > 0 {
        let zeros = &ZEROS[..left.min(ZEROS.len() as u64) as usize];
        to.write_all(zeros)?;
        left -= zeros.len() as u64;
    }
    Ok(())
}
