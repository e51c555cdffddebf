//! Layers and tensors of GGUF files.

use std::borrow::Cow;

use qcore::ActivationFunction;
use qkernels::Kernel;
use safetensors::Dtype;

use super::container::{GgufFile, GgufTensor};
use super::error::GgufError;
use super::tensor_type::GgufType;
use crate::file::codes_form::CodesForm;
use crate::file::tensors::Tensor;
use crate::layer::float::FloatLinear;
use crate::layer::linear::Linear;
use crate::layer::tensor::FloatTensor;

impl GgufFile<'_> {
    /// Takes a layer out: `name.weight` (n, k) and, if it is there, `name.bias` (n) of floats.
    /// Codes go to the kernel's form without a matrix of floats between: those of Q4_0, Q4_1 and
    /// Q4_K keep their 4 bits, others take 8. Minimums and scales of scales are those of the file,
    /// too. If it fails, all tensors stay.
    ///
    /// # Errors
    /// [`GgufError`] if a tensor is missing or has another shape, or a type that has no such form,
    /// or its values do not make a layer.
    pub fn take_linear(
        &mut self,
        name: &str,
        form: CodesForm,
        activation: ActivationFunction,
        kernel: Kernel,
    ) -> Result<Linear, GgufError> {
        self.take_tied(name, &format!("{name}.weight"), form, activation, kernel)
    }

    /// As [`take_linear`](Self::take_linear), for a layer `name` whose weights are the tensor
    /// `weight`, which the model uses elsewhere and which must be [tied](Self::tie) for that:
    /// `token_embd.weight` as the weights of `output`.
    ///
    /// # Errors
    /// As [`take_linear`](Self::take_linear).
    pub fn take_tied(
        &mut self,
        name: &str,
        weight: &str,
        form: CodesForm,
        activation: ActivationFunction,
        kernel: Kernel,
    ) -> Result<Linear, GgufError> {
        let bias = format!("{name}.bias");
        let layer = self.read_linear(name, [weight, &bias], form, activation, kernel)?;
        self.take(weight);
        self.take(&bias);
        Ok(layer)
    }

    /// Takes any tensor out in f32: norms, embeddings, and whatever else is no layer. Blocks become
    /// the values that they stand for.
    ///
    /// # Errors
    /// [`GgufError`] if there is no such tensor (any more), its type is not read, or it has another
    /// shape than `shape`, if that is given. (Shapes are row-major, the reverse of ggml's.)
    pub fn take_tensor(&mut self, name: &str, shape: Option<&[usize]>) -> Result<FloatTensor, GgufError> {
        let found = self.find(name)?;
        if let Some(expected) = shape
            && expected != found.shape
        {
            let (tensor, expected, got) = (name.to_owned(), expected.to_vec(), found.shape.clone());
            return Err(GgufError::Shape { tensor, expected, got });
        }
        let tensor = FloatTensor::new(name, found.shape.clone(), found.values(name)?)?;
        self.take(name);
        Ok(tensor)
    }

    /// The form of a layer with this weight, for a constructor that does not ask for one.
    pub(in crate::file) fn source_form(&self, weight: &str) -> CodesForm {
        match self.describe(weight) {
            None | Some((GgufType::Blocks(_), _)) => self.form,
            Some(_) => CodesForm::Float,
        }
    }

    fn read_linear(
        &self,
        name: &str,
        [weight, bias]: [&str; 2],
        form: CodesForm,
        activation: ActivationFunction,
        kernel: Kernel,
    ) -> Result<Linear, GgufError> {
        let found = self.find(weight)?;
        let &[n, k] = &found.shape[..] else {
            return Err(GgufError::Matrix { tensor: weight.to_owned(), got: found.shape.clone() });
        };
        // One that was taken by itself would be lost.
        let bias = match self.describe(bias) {
            None => None,
            Some(_) => {
                let found = self.find(bias)?;
                if found.shape != [n] {
                    let (tensor, expected, got) = (bias.to_owned(), vec![n], found.shape.clone());
                    return Err(GgufError::Shape { tensor, expected, got });
                }
                Some(found.values(bias)?)
            }
        };
        let of_layer = |error| GgufError::Layer { layer: name.to_owned(), error };
        if let CodesForm::Float = form {
            // Whatever the type: floats have no codes.
            let layer = FloatLinear::from_parts(name.to_owned(), n, k, found.values(weight)?, bias)?;
            return Ok(layer.with_activation(activation).into());
        }
        let weights = found.scaled(weight, (n, k), kernel)?.map_err(of_layer)?;
        form.layer(name, weights, bias, activation, of_layer)
    }
}

impl GgufTensor<'_> {
    /// The values, in f32.
    pub(super) fn values(&self, tensor: &str) -> Result<Vec<f32>, GgufError> {
        let dtype = match self.element {
            GgufType::F32 => Dtype::F32,
            GgufType::F16 => Dtype::F16,
            GgufType::Bf16 => Dtype::BF16,
            GgufType::Blocks(format) => {
                let mut values = vec![0.0; self.data.len() / format.block_bytes() * format.block_len()];
                format.dequantize(self.data, &mut values)?;
                return Ok(values);
            }
            got @ GgufType::Other(_) => {
                return Err(GgufError::Type { tensor: tensor.to_owned(), got });
            }
        };
        let floats = Tensor { dtype, shape: Vec::new(), data: Cow::Borrowed(self.data) };
        Ok(floats.floats().unwrap_or_default())
    }
}
