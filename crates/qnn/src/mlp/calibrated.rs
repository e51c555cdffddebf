//! The MLP's short way to integers: batches run through the f32 model while an observer watches the
//! input of every layer, and the ranges that were found make static layers.

use qcore::{MinMaxObserver, Observer, ObserverError, Range, Scheme, first_non_finite};
use qkernels::{Kernel, MatRef, Threads};

use super::float::FloatMlp;
use super::mixed::Mlp;
use super::quant::{QuantMlp, QuantizeModelError};
use crate::config::method::StaticConfig;
use crate::config::mlp::QuantConfig;
use crate::config::weights::WeightConfig;
use crate::layer::float::FloatLinear;
use crate::layer::forward_error::ForwardError;
use crate::layer::linear::Linear;
use crate::layer::rows::gather;
use crate::layer::workspace::LinearWorkspace;
use crate::pass::error::Refusal;
use crate::pass::plan::static_form;

/// Why a model could not be calibrated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrateError {
    /// No batch has a row.
    #[error("the calibration set is empty: {batches} batches without a row")]
    Empty {
        /// Batches given.
        batches: usize,
    },
    /// A batch has the wrong width.
    #[error("batch {batch}: layer {layer:?} takes k = {expected} inputs, the batch has {got} columns")]
    Width {
        /// Index of the batch.
        batch: usize,
        /// The first layer.
        layer: String,
        /// Its inputs.
        expected: usize,
        /// Columns of the batch.
        got: usize,
    },
    /// A value of a batch is NaN or infinite.
    #[error("batch {batch}: input value {value} of layer {layer:?} at row {row}, column {col} is not finite")]
    NonFiniteInput {
        /// Index of the batch.
        batch: usize,
        /// The first layer.
        layer: String,
        /// Row of the batch.
        row: usize,
        /// Column of the batch.
        col: usize,
        /// The value.
        value: f32,
    },
    /// A layer's output overflowed f32 on finite input.
    #[error("batch {batch}: output {value} of layer {layer:?} at row {row}, channel {channel} is not finite")]
    NonFiniteOutput {
        /// Index of the batch.
        batch: usize,
        /// The layer.
        layer: String,
        /// Row of the batch.
        row: usize,
        /// Output channel.
        channel: usize,
        /// The value.
        value: f32,
    },
    /// An observer gave no range.
    #[error("input of layer {layer:?}: {error}")]
    Observer {
        /// The layer.
        layer: String,
        /// Why.
        error: ObserverError,
    },
    /// The model could not be run.
    #[error(transparent)]
    Forward(#[from] ForwardError),
}

/// A model whose layers' input ranges are known, so that it can be quantized. It is the state
/// between [`FloatMlp`] and [`QuantMlp`].
#[derive(Clone, Debug)]
pub struct CalibratedMlp<'m> {
    model: &'m FloatMlp,
    input_ranges: Vec<Range>,
    rows: usize,
}

impl<'m> CalibratedMlp<'m> {
    /// The model.
    pub fn model(&self) -> &'m FloatMlp {
        self.model
    }

    /// The range of each layer's input: first that of the model's input, then those of the hidden
    /// activations after ReLU.
    pub fn input_ranges(&self) -> &[Range] {
        &self.input_ranges
    }

    /// Rows seen.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Makes the int8 model. Weights become symmetric i8, biases become int32 in the unit of the
    /// sums, and the input of every layer becomes u8 or i8 with the parameters that the calibrated
    /// range gives.
    ///
    /// If a weight scale is so small that the bias or the sums would not fit int32, it is raised
    /// just enough. [`QuantMlp::report`] says where.
    ///
    /// # Errors
    /// [`QuantizeModelError`] if no kernel can be selected, or ranges are so extreme that their
    /// scales leave f32.
    pub fn quantize(&self, config: &QuantConfig) -> Result<QuantMlp, QuantizeModelError> {
        let kernel = match config.kernel {
            Some(kernel) => kernel,
            None => Kernel::select()?,
        };
        let config = StaticConfig {
            activations: config.activations.scheme(),
            weights: WeightConfig { scheme: Scheme::weights_i8(), granularity: config.weights },
            reduce_range: config.reduce_range,
            ..StaticConfig::default()
        };
        let quantized = |(layer, &range): (&FloatLinear, &Range)| {
            let quantized = static_form(layer, range, &config, kernel);
            quantized.map(Linear::from).map_err(|error| Refusal { layer: layer.name().to_owned(), error })
        };
        let layers = self.model.layers().iter().zip(&self.input_ranges).map(quantized);
        QuantMlp::try_from(Mlp::linked(layers.collect::<Result<_, _>>()?))
    }
}

impl FloatMlp {
    /// Runs `batches`, each (any, inputs), through the model and keeps the smallest and largest
    /// input of every layer ([`MinMaxObserver`]). Batches are taken one at a time, so they need not
    /// be in memory together. Of one batch, the values on both sides of a layer are in memory:
    /// 4 * m * (k + n) bytes.
    ///
    /// ```
    /// use qkernels::MatRef;
    /// use qnn::{FloatLinear, FloatMlp};
    /// let model = FloatMlp::new(vec![
    ///     FloatLinear::new("fc1", 1, 2, vec![1.0, -1.0], vec![0.0])?,
    ///     FloatLinear::new("fc2", 1, 1, vec![1.0], vec![0.0])?,
    /// ])?;
    /// let calibrated = model.calibrate([MatRef::new(&[0.0, 1.0, 3.0, 0.5], 2, 2)?])?;
    /// assert_eq!(calibrated.input_ranges()[0].max(), 3.0);
    /// assert_eq!(calibrated.input_ranges()[1].max(), 2.5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`CalibrateError`] if there is no row, a batch has the wrong width, or a value is not
    /// finite.
    pub fn calibrate<'b>(
        &self,
        batches: impl IntoIterator<Item = MatRef<'b, f32>>,
    ) -> Result<CalibratedMlp<'_>, CalibrateError> {
        self.calibrate_with(batches, MinMaxObserver::default)
    }

    /// Like [`calibrate`](Self::calibrate), with other observers. `observer` makes one for each
    /// layer. As in [`quantize_model`](crate::quantize_model), an observer sees its layer's input
    /// once for each batch that has rows, all rows together, however large the batch is.
    ///
    /// ```
    /// use qcore::Scheme;
    /// use qkernels::MatRef;
    /// use qnn::{FloatLinear, FloatMlp, ObserverChoice};
    /// let model = FloatMlp::new(vec![FloatLinear::new("fc1", 1, 1, vec![1.0], vec![0.0])?])?;
    /// let observer = ObserverChoice::MovingAverage(0.5).observer(&Scheme::activations_u8())?;
    /// let batches = [MatRef::new(&[1.0, 0.0], 2, 1)?, MatRef::new(&[3.0, 0.0], 2, 1)?];
    /// let mut observer = Some(observer); // the model has one layer
    /// let calibrated = model.calibrate_with(batches, || observer.take().expect("asked for once"))?;
    /// assert_eq!(calibrated.input_ranges()[0].max(), 2.0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`calibrate`](Self::calibrate), or if an observer gives no range.
    pub fn calibrate_with<'b, O: Observer>(
        &self,
        batches: impl IntoIterator<Item = MatRef<'b, f32>>,
        mut observer: impl FnMut() -> O,
    ) -> Result<CalibratedMlp<'_>, CalibrateError> {
        let mut observers: Vec<O> = self.layers().iter().map(|_| observer()).collect();
        let (mut values, mut workspace) = (Vec::new(), LinearWorkspace::new());
        let (mut batch_count, mut rows) = (0, 0_usize);
        for (batch, x) in batches.into_iter().enumerate() {
            self.check_batch(batch, &x)?;
            if x.rows() > 0 {
                self.observe_batch(batch, x, &mut observers, &mut values, &mut workspace)?;
            }
            batch_count += 1;
            rows = rows.saturating_add(x.rows());
        }
        if rows == 0 {
            return Err(CalibrateError::Empty { batches: batch_count });
        }
        let ranges = self.layers().iter().zip(&observers).map(|(layer, observer)| {
            let named = |error| CalibrateError::Observer { layer: layer.name().to_owned(), error };
            observer.range().map_err(named)
        });
        Ok(CalibratedMlp { model: self, input_ranges: ranges.collect::<Result<_, _>>()?, rows })
    }

    /// Shows each observer the input of its layer for a whole batch, which has rows, at once
    /// because some observers count batches.
    fn observe_batch<O: Observer>(
        &self,
        batch: usize,
        x: MatRef<'_, f32>,
        observers: &mut [O],
        values: &mut Vec<f32>,
        workspace: &mut LinearWorkspace,
    ) -> Result<(), CalibrateError> {
        let input = gather(&x, values)?;
        if let Some((index, value)) = first_non_finite(input) {
            let (layer, row, col) = (self.layer_name(0), index / x.cols(), index % x.cols());
            return Err(CalibrateError::NonFiniteInput { batch, layer, row, col, value });
        }
        let mut observers = observers.iter_mut();
        if let Some(first) = observers.next() {
            first.observe(input);
        }
        // All rows are one block, so each layer gives one output, which is the next observer's
        // input.
        self.walk(x, x.rows(), Threads::Serial, workspace, |output| {
            if let Some((index, value)) = first_non_finite(output.values) {
                let n = output.values.len() / x.rows();
                let (layer, row, channel) = (self.layer_name(output.layer), index / n, index % n);
                return Err(CalibrateError::NonFiniteOutput { batch, layer, row, channel, value });
            }
            if let Some(next) = observers.next() {
                next.observe(output.values);
            }
            Ok(())
        })
    }

    fn check_batch(&self, batch: usize, x: &MatRef<'_, f32>) -> Result<(), CalibrateError> {
        if x.cols() == self.inputs() {
            return Ok(());
        }
        let (layer, expected) = (self.layer_name(0), self.inputs());
        Err(CalibrateError::Width { batch, layer, expected, got: x.cols() })
    }

    fn layer_name(&self, index: usize) -> String {
        self.layers().get(index).map_or_else(String::new, |layer| layer.name().to_owned())
    }
}
