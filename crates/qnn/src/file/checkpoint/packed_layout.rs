//! Layouts in which several codes share a word of 32 bits: compressed-tensors' `pack-quantized`,
//! GPTQ and AWQ.

use qcore::ActivationFunction;
use qkernels::Kernel;
use safetensors::Dtype;

use super::error::CheckpointError;
use super::layers::Checkpoint;
use crate::file::codes_form::CodesForm;
use crate::file::packed::input_groups::input_order;
use crate::file::packed::parts::{Parts, each};
use crate::file::tensors::TensorFileError;
use crate::layer::linear::Linear;
use crate::layer::weight_codes::check_shape;

/// How codes of 4 or 8 bits lie in a checkpoint, which the model's configuration says and the
/// tensors do not. `group` is how many consecutive k share a scale (`group_size`), a multiple of
/// [`qkernels::GROUP_STEP`]; `None` is a scale for each channel, or one for all (`group_size` -1).
///
/// ```
/// use qnn::{GptqZeros, PackedLayout};
/// let gptq = PackedLayout::Gptq { bits: 4, group: Some(128), zeros: GptqZeros::LessOne };
/// let awq = PackedLayout::Awq { group: Some(128) };
/// # _ = (gptq, awq);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PackedLayout {
    /// `pack-quantized` of compressed-tensors: `name.weight_packed` I32 (n, k / codes of a word),
    /// `name.weight_shape` (n, k), `name.weight_scale` (n, groups), and, if they are there,
    /// `name.weight_zero_point` I32 (n / codes of a word, groups) and `name.weight_g_idx` (k), the
    /// group of each input, or -1 for all of them where they are in their own order.
    PackQuantized {
        /// Bits of a code.
        bits: u32,
        /// The length of groups.
        group: Option<usize>,
    },
    /// `name.qweight` I32 (k / codes of a word, n), `name.qzeros` I32 (groups, n / codes of a
    /// word), `name.scales` (groups, n), and, if it is there, `name.g_idx` (k), the group of each
    /// input.
    Gptq {
        /// Bits of a code.
        bits: u32,
        /// The length of groups.
        group: Option<usize>,
        /// What is stored of a zero point.
        zeros: GptqZeros,
    },
    /// AutoAWQ's `gemm`, of 4 bits: `name.qweight` I32 (k, n / 8), `name.qzeros` I32 (groups, n /
    /// 8), `name.scales` (groups, n).
    Awq {
        /// The length of groups.
        group: Option<usize>,
    },
}

/// What GPTQ's `qzeros` hold. Files look alike, and their `checkpoint_format` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GptqZeros {
    /// `gptq`, version 1, as AutoGPTQ writes it: each zero point less 1, so they are 1 to 16, or to
    /// 256 with 8 bits.
    LessOne,
    /// `gptq` made from version 2: 1 was taken off each code of a word in one subtraction, in which
    /// a zero point of 0 borrows from the next.
    LessOneInWords,
    /// `gptq_v2`, as GPTQModel writes it: the zero points.
    Plain,
}

/// Codes as they are stored, of which all are read in one way.
struct Words {
    bits: u32,
    words: Vec<u32>,
}

impl Words {
    /// Code `i` of word `at`, from the lowest bits.
    fn code(&self, at: usize, i: usize) -> u8 {
        let mask = (1_u32 << self.bits) - 1;
        (self.words[at] >> (self.bits * i as u32) & mask) as u8
    }
}

impl Checkpoint<'_> {
    /// Takes a layer of packed codes out, and `name.bias` (n) if it is there. The codes go to the
    /// kernel's form; those of 4 bits keep their 4 bits. Inputs may be in any group where a tensor
    /// says in which (act-order, `desc_act`): weights are then packed group after group, and
    /// products read their rows in that order ([`qkernels::ScaledWeights::with_input_order`]).
    ///
    /// ```no_run
    /// use qcore::{ActivationFunction, Scheme};
    /// use qkernels::{Dynamic, Kernel};
    /// use qnn::{Checkpoint, CodesForm, GptqZeros, PackedLayout};
    /// let bytes = std::fs::read("model.safetensors")?;
    /// let mut checkpoint = Checkpoint::parse(&bytes)?;
    /// let layout = PackedLayout::Gptq { bits: 4, group: Some(128), zeros: GptqZeros::LessOne };
    /// let form = CodesForm::Dynamic(Dynamic::PerToken(Scheme::weights_i8())); // W4A8
    /// let (name, kernel) = ("model.layers.0.self_attn.q_proj", Kernel::select()?);
    /// let query = checkpoint.take_packed(name, layout, form, ActivationFunction::Identity, kernel)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Layers whose inputs are in another order have no activations with a scale for each group
    /// ([`qkernels::DynamicError::GroupOrder`]).
    ///
    /// # Errors
    /// [`CheckpointError`] if a tensor is missing or of another type or shape, if the layer has
    /// another tensor, if groups do not fit or do not have their number of inputs, or if the values
    /// do not make a layer.
    pub fn take_packed(
        &mut self,
        name: &str,
        layout: PackedLayout,
        form: CodesForm,
        activation: ActivationFunction,
        kernel: Kernel,
    ) -> Result<Linear, CheckpointError> {
        let layer = self.read_packed(name, layout, form, activation, kernel);
        self.file.settle(layer)
    }

    fn read_packed(
        &mut self,
        name: &str,
        layout: PackedLayout,
        form: CodesForm,
        activation: ActivationFunction,
        kernel: Kernel,
    ) -> Result<Linear, CheckpointError> {
        let (n, k, parts) = match layout {
            PackedLayout::PackQuantized { bits, group } => self.read_pack_quantized(name, bits, group)?,
            PackedLayout::Gptq { bits, group, zeros } => self.read_gptq(name, bits, group, zeros)?,
            PackedLayout::Awq { group } => self.read_awq(name, group)?,
        };
        let bias = self.take_bias(name, n)?;
        let of_layer = |error| CheckpointError::of_layer(name, error);
        let weights = parts.scaled(n, k, kernel).map_err(of_layer)?;
        form.layer(name, weights, bias, activation, of_layer)
    }

    fn read_pack_quantized(
        &mut self,
        name: &str,
        bits: u32,
        group: Option<usize>,
    ) -> Result<(usize, usize, Parts), CheckpointError> {
        let of_word = codes_of_word(name, bits)?;
        let known =
            ["weight_packed", "weight_shape", "weight_scale", "weight_zero_point", "weight_g_idx", "bias"];
        self.check_parts(name, &known)?;
        let tensor = format!("{name}.weight_shape");
        let found = self.file.take_any(&tensor)?;
        let shape = found.integers().map(|values| values.map(usize::try_from).collect::<Vec<_>>());
        let (n, k) = match shape.as_deref() {
            Some(&[Ok(n), Ok(k)]) => (n, k),
            _ => return Err(CheckpointError::WeightShape { tensor }),
        };
        check_shape(n, k).map_err(|error| CheckpointError::of_layer(name, error))?;
        let words = self.take_words(format!("{name}.weight_packed"), [n, k.div_ceil(of_word)], bits)?;
        let groups = self.check_groups(name, n, k, group)?;
        let order = self.take_input_order(format!("{name}.weight_g_idx"), k, group, Some(-1))?;
        let scales = self.take_scales(name, n, groups)?;
        let zeros = format!("{name}.weight_zero_point");
        let zero_points = match self.file.tensors.contains_key(&zeros) {
            // Signed codes are stored with their middle at 0.
            false => vec![1 << (bits - 1); n * groups],
            true => {
                let zeros = self.take_words(zeros, [n.div_ceil(of_word), groups], bits)?;
                each(n, groups, |j, g| zeros.code(j / of_word * groups + g, j % of_word).into())
            }
        };
        let row = k.div_ceil(of_word);
        let codes = each(n, k, |j, p| words.code(j * row + p / of_word, p % of_word));
        Ok((n, k, Parts { bits, group, codes, scales, zero_points, minimums: None, order }))
    }

    fn read_gptq(
        &mut self,
        name: &str,
        bits: u32,
        group: Option<usize>,
        kind: GptqZeros,
    ) -> Result<(usize, usize, Parts), CheckpointError> {
        let of_word = codes_of_word(name, bits)?;
        self.check_parts(name, &["qweight", "qzeros", "scales", "g_idx", "bias"])?;
        let (rows, n) = self.matrix_shape(&format!("{name}.qweight"))?;
        let k = rows.saturating_mul(of_word);
        check_shape(n, k).map_err(|error| CheckpointError::of_layer(name, error))?;
        let words = self.take_words(format!("{name}.qweight"), [rows, n], bits)?;
        let (groups, scales) = self.take_scales_by_group(name, n, k, group)?;
        let row = n.div_ceil(of_word);
        let mut zeros = self.take_words(format!("{name}.qzeros"), [groups, row], bits)?;
        if kind == GptqZeros::LessOneInWords {
            let ones = (0..of_word as u32).fold(0_u32, |ones, i| ones | 1 << (bits * i));
            zeros.words.iter_mut().for_each(|word| *word = word.wrapping_add(ones));
        }
        let order = self.take_input_order(format!("{name}.g_idx"), k, group, None)?;
        let more = u16::from(kind == GptqZeros::LessOne);
        let zero_points =
            each(n, groups, |j, g| u16::from(zeros.code(g * row + j / of_word, j % of_word)) + more);
        let codes = each(n, k, |j, p| words.code(p / of_word * n + j, p % of_word));
        Ok((n, k, Parts { bits, group, codes, scales, zero_points, minimums: None, order }))
    }

    fn read_awq(
        &mut self,
        name: &str,
        group: Option<usize>,
    ) -> Result<(usize, usize, Parts), CheckpointError> {
        /// Where in a word the code of each of eight columns is.
        const PLACES: [usize; 8] = [0, 4, 1, 5, 2, 6, 3, 7];
        let bits = 4;
        self.check_parts(name, &["qweight", "qzeros", "scales", "bias"])?;
        let (k, row) = self.matrix_shape(&format!("{name}.qweight"))?;
        let n = row.saturating_mul(PLACES.len());
        check_shape(n, k).map_err(|error| CheckpointError::of_layer(name, error))?;
        let words = self.take_words(format!("{name}.qweight"), [k, row], bits)?;
        let (groups, scales) = self.take_scales_by_group(name, n, k, group)?;
        let zeros = self.take_words(format!("{name}.qzeros"), [groups, row], bits)?;
        let zero_points = each(n, groups, |j, g| zeros.code(g * row + j / 8, PLACES[j % 8]).into());
        let codes = each(n, k, |j, p| words.code(p * row + j / 8, PLACES[j % 8]));
        Ok((n, k, Parts { bits, group, codes, scales, zero_points, minimums: None, order: None }))
    }

    /// Checks that the layer has no other tensors than these.
    fn check_parts(&self, name: &str, known: &[&str]) -> Result<(), CheckpointError> {
        match self.own_tensors(name).find(|(_, part)| !known.contains(part)) {
            None => Ok(()),
            Some((tensor, _)) => Err(TensorFileError::Unexpected { tensor: tensor.to_owned() }.into()),
        }
    }

    /// The shape of a matrix that is still to be taken.
    fn matrix_shape(&mut self, tensor: &str) -> Result<(usize, usize), CheckpointError> {
        let found = self.file.take_any(tensor)?;
        match found.shape[..] {
            [rows, columns] => Ok((rows, columns)),
            _ => {
                let tensor = tensor.to_owned();
                Err(TensorFileError::Rank { tensor, expected: 2, got: found.shape }.into())
            }
        }
    }

    fn take_words(&mut self, tensor: String, shape: [usize; 2], bits: u32) -> Result<Words, CheckpointError> {
        let found = self.file.take_shaped(&tensor, Dtype::I32, &shape)?;
        Ok(Words { bits, words: found.to_i32().into_iter().map(i32::cast_unsigned).collect() })
    }

    /// Takes `name.scales` (groups, n). The number of groups, and the scales (n, groups).
    fn take_scales_by_group(
        &mut self,
        name: &str,
        n: usize,
        k: usize,
        group: Option<usize>,
    ) -> Result<(usize, Vec<f32>), CheckpointError> {
        let tensor = format!("{name}.scales");
        let groups = match group {
            Some(0) => return Err(CheckpointError::GroupLength { layer: name.to_owned(), k, group: 0 }),
            group => k.div_ceil(group.unwrap_or(k)),
        };
        let found = self.file.take_any(&tensor)?;
        let Some(scales) = found.floats() else {
            return Err(TensorFileError::NotFloat { tensor, got: found.dtype }.into());
        };
        if found.shape != [groups, n] {
            let expected = vec![groups, n];
            return Err(TensorFileError::Shape { tensor, expected, got: found.shape }.into());
        }
        Ok((groups, each(n, groups, |j, g| scales[g * n + j])))
    }

    /// Takes the tensor that says which group each input is in, if it is there. The order in which
    /// groups lie side by side, if it is not that of the inputs. `unset` is the group of inputs for
    /// which the layout names none.
    fn take_input_order(
        &mut self,
        tensor: String,
        k: usize,
        group: Option<usize>,
        unset: Option<i128>,
    ) -> Result<Option<Vec<u32>>, CheckpointError> {
        if !self.file.tensors.contains_key(&tensor) {
            return Ok(None);
        }
        let found = self.file.take_any(&tensor)?;
        let Some(of_inputs) = found.integers() else {
            return Err(TensorFileError::Dtype { tensor, expected: Dtype::I32, got: found.dtype }.into());
        };
        if found.shape != [k] {
            return Err(TensorFileError::Shape { tensor, expected: vec![k], got: found.shape.clone() }.into());
        }
        let of_inputs: Vec<i128> = of_inputs.collect();
        if unset.is_some() && of_inputs.iter().all(|&group| Some(group) == unset) {
            return Ok(None);
        }
        let order = input_order(of_inputs.into_iter(), k, group.unwrap_or(k));
        order.map_err(|error| CheckpointError::InputGroups { tensor, error })
    }
}

/// How many codes of so many bits a word has.
fn codes_of_word(name: &str, bits: u32) -> Result<usize, CheckpointError> {
    match bits {
        4 | 8 => Ok(32 / bits as usize),
        _ => Err(CheckpointError::Bits { layer: name.to_owned(), bits }),
    }
}
