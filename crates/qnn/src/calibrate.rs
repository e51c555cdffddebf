//! Calibration: f32 batches run through the model while an observer watches the input of every layer.

use qcore::{MinMaxObserver, Observer, ObserverError, Range, first_non_finite};
use qkernels::{MatRef, Threads};

use crate::float_mlp::{FloatMlp, FloatWorkspace};
use crate::forward::ForwardError;
use crate::rows::row;

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
    #[error("input of layer {layer:?}: {source}")]
    Observer {
        /// The layer.
        layer: String,
        /// Why.
        source: ObserverError,
    },
    /// The model could not be run.
    #[error(transparent)]
    Forward(#[from] ForwardError),
}

/// A model whose layers' input ranges are known, so that it can be quantized: the state between [`FloatMlp`] and
/// [`QuantMlp`](crate::QuantMlp).
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

    /// The range of the input of each layer: of the model's input, then of each hidden activation after ReLU.
    pub fn input_ranges(&self) -> &[Range] {
        &self.input_ranges
    }

    /// Rows seen.
    pub fn rows(&self) -> usize {
        self.rows
    }
}

impl FloatMlp {
    /// Runs `batches`, each (any, inputs), through the model and keeps the smallest and largest input of every layer
    /// ([`MinMaxObserver`]). Batches are taken one at a time, so they need not be in memory together.
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
    /// [`CalibrateError`] if there is no row, a batch has the wrong width, or a value is not finite.
    pub fn calibrate<'b>(
        &self,
        batches: impl IntoIterator<Item = MatRef<'b, f32>>,
    ) -> Result<CalibratedMlp<'_>, CalibrateError> {
        self.calibrate_with(batches, MinMaxObserver::default)
    }

    /// [`calibrate`](Self::calibrate) with other observers: `observer` makes one for each layer.
    ///
    /// # Errors
    /// As [`calibrate`](Self::calibrate), or if an observer gives no range.
    pub fn calibrate_with<'b, O: Observer>(
        &self,
        batches: impl IntoIterator<Item = MatRef<'b, f32>>,
        mut observer: impl FnMut() -> O,
    ) -> Result<CalibratedMlp<'_>, CalibrateError> {
        let mut observers: Vec<O> = self.layers().iter().map(|_| observer()).collect();
        let mut workspace = FloatWorkspace::new();
        let mut buffer = Vec::new();
        let (mut batch_count, mut rows) = (0, 0_usize);
        for (batch, x) in batches.into_iter().enumerate() {
            self.check_batch(batch, &x)?;
            if let Some(inputs) = observers.first_mut() {
                for i in 0..x.rows() {
                    let row = row(&x, i, &mut buffer);
                    self.check_input_row(batch, i, row)?;
                    inputs.observe(row);
                }
            }
            let mut overflow = None;
            self.trace(x, Threads::Serial, &mut workspace, |output| {
                if let Some((index, value)) = first_non_finite(output.values) {
                    overflow = overflow.or(Some((output.layer, output.rows.start, index, value)));
                }
                if let Some(inputs) = observers.get_mut(output.layer + 1) {
                    inputs.observe(output.values);
                }
            })?;
            if let Some((layer, first_row, index, value)) = overflow {
                let layer = &self.layers()[layer];
                return Err(CalibrateError::NonFiniteOutput {
                    batch,
                    layer: layer.name().to_owned(),
                    row: first_row + index / layer.n(),
                    channel: index % layer.n(),
                    value,
                });
            }
            batch_count += 1;
            rows = rows.saturating_add(x.rows());
        }
        if rows == 0 {
            return Err(CalibrateError::Empty { batches: batch_count });
        }
        let ranges = self.layers().iter().zip(&observers).map(|(layer, observer)| {
            let named = |source| CalibrateError::Observer { layer: layer.name().to_owned(), source };
            observer.range().map_err(named)
        });
        Ok(CalibratedMlp { model: self, input_ranges: ranges.collect::<Result<_, _>>()?, rows })
    }

    fn check_batch(&self, batch: usize, x: &MatRef<'_, f32>) -> Result<(), CalibrateError> {
        if x.cols() == self.inputs() {
            return Ok(());
        }
        let (layer, expected) = (self.first_layer_name(), self.inputs());
        Err(CalibrateError::Width { batch, layer, expected, got: x.cols() })
    }

    fn check_input_row(&self, batch: usize, row: usize, values: &[f32]) -> Result<(), CalibrateError> {
        match first_non_finite(values) {
            None => Ok(()),
            Some((col, value)) => {
                let layer = self.first_layer_name();
                Err(CalibrateError::NonFiniteInput { batch, layer, row, col, value })
            }
        }
    }

    fn first_layer_name(&self) -> String {
        self.layers().first().map_or_else(String::new, |layer| layer.name().to_owned())
    }
}
