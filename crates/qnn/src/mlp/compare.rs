//! Runs both models on the same rows, layer by layer, and counts what a report says.

use core::ops::Range;

use qcore::{
    Agreement, OnCodes, SqnrAboutMean, clipped_fraction, dequantize_acc, first_non_finite,
    requantize_activation, requantize_scaled,
};
use qkernels::{Activation, MatMut, MatRef, Threads};

use super::float::FloatMlp;
use super::quant::QuantMlp;
use crate::evidence::warning::ChannelPeaks;
use crate::layer::forward_error::ForwardError;
use crate::layer::rows::grown;
use crate::layer::rows::{blocks, gather};
use crate::layer::static_linear::build::StaticLinear;
use crate::layer::workspace::LinearWorkspace;

/// How many rows go through both models together. This bounds the memory.
const BLOCK_ROWS: usize = 256;

/// A share that is counted: some of all.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Share {
    some: u64,
    all: u64,
}

impl Share {
    fn count(&mut self, is: impl Iterator<Item = bool>) {
        for is in is {
            self.some += u64::from(is);
            self.all += 1;
        }
    }

    /// Counts this share of `all`.
    fn count_share(&mut self, share: f64, all: usize) {
        self.some += (share * all as f64).round() as u64;
        self.all += all as u64;
    }

    pub(crate) fn share(self) -> f64 {
        self.some as f64 / self.all.max(1) as f64
    }
}

/// What is counted for a layer.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    /// Inputs without a code of their own.
    pub(crate) clipped: Share,
    /// Output codes that were clamped from above; `None` for the last layer.
    pub(crate) saturated: Option<Share>,
    /// SQNR of the output.
    pub(crate) sqnr: SqnrAboutMean,
    /// The largest inputs of each channel.
    pub(crate) peaks: ChannelPeaks,
}

impl Tally {
    fn new(n: usize) -> Self {
        let (clipped, peaks) = (Share::default(), ChannelPeaks::default());
        Self { clipped, saturated: None, sqnr: SqnrAboutMean::new(n), peaks }
    }
}

/// What is counted for a model.
#[derive(Clone, Debug)]
pub(crate) struct Tallies {
    pub(crate) layers: Vec<Tally>,
    /// Rows whose largest logit is the same one in both models.
    pub(crate) agreement: Agreement,
}

/// Runs both models on one block of rows after the other.
pub(crate) struct Comparison<'m, C> {
    layers: Vec<&'m StaticLinear>,
    float: &'m FloatMlp,
    tallies: Tallies,
    /// The f32 inputs of all layers for one block, then the logits.
    float_values: Vec<Vec<f32>>,
    /// The first inputs, divided by the first layer's input scale; empty if it has none.
    quotients: Vec<f32>,
    codes: Vec<C>,
    sums: Vec<i32>,
    values: Vec<f32>,
    workspace: LinearWorkspace,
}

impl<'m, C: Activation> Comparison<'m, C> {
    pub(crate) fn new(quantized: &'m QuantMlp, float: &'m FloatMlp) -> Self {
        let inputs = float.layers().len() + 1;
        Self {
            layers: quantized.layers().collect(),
            float,
            tallies: Tallies {
                layers: float.layers().iter().map(|layer| Tally::new(layer.n())).collect(),
                agreement: Agreement::default(),
            },
            float_values: vec![Vec::new(); inputs],
            quotients: Vec::new(),
            codes: Vec::new(),
            sums: Vec::new(),
            values: Vec::new(),
            workspace: LinearWorkspace::new(),
        }
    }

    pub(crate) fn run(mut self, x: MatRef<'_, f32>) -> Result<Tallies, ForwardError> {
        for rows in blocks(x.rows(), BLOCK_ROWS) {
            let m = rows.len();
            let first_row = rows.start;
            self.read_block(&x, rows)?;
            if let Some(&first) = self.layers.first() {
                self.divide(first).map_err(|error| error.of_block_at(first_row))?;
                let values = if self.quotients.is_empty() { &self.float_values[0] } else { &self.quotients };
                self.codes.clear();
                self.codes.extend(values.iter().map(|&v| C::from_clamped(first.input().quantize(v))));
            }
            for index in 0..self.float.layers().len() {
                self.compare_layer(index, m)?;
            }
            self.compare_classes()?;
        }
        Ok(self.tallies)
    }

    /// Fills `float_values` for a block of rows.
    fn read_block(&mut self, x: &MatRef<'_, f32>, rows: Range<usize>) -> Result<(), ForwardError> {
        let (m, k) = (rows.len(), x.cols());
        let (input, outputs) = match &mut self.float_values[..] {
            [input, outputs @ ..] => (input, outputs),
            [] => return Ok(()),
        };
        input.clear();
        let Some(block) = x.row_range(rows.clone()) else { return Ok(()) };
        if let Some((index, value)) = first_non_finite(gather(&block, input)?) {
            return Err(ForwardError::NonFinite { row: rows.start + index / k, col: index % k, value });
        }
        outputs.iter_mut().for_each(Vec::clear);
        self.float.trace(MatRef::new(input, m, k)?, Threads::Serial, &mut self.workspace, |output| {
            if let Some(values) = outputs.get_mut(output.layer) {
                values.extend_from_slice(output.values);
            }
        })
    }

    /// Fills `quotients` for the block of rows, if the first layer has an input scale.
    fn divide(&mut self, first: &StaticLinear) -> Result<(), ForwardError> {
        self.quotients.clear();
        let scales = first.input_scale().unwrap_or_default();
        let values = self.float_values[0].iter().zip(scales.iter().cycle());
        self.quotients.extend(values.map(|(value, scale)| value / scale));
        match first_non_finite(&self.quotients) {
            None => Ok(()),
            Some((at, value)) => {
                let k = first.k();
                Err(ForwardError::NonFinite { row: at / k, col: at % k, value })
            }
        }
    }

    /// Runs layer `index` on the codes of its input, counts, and leaves the codes of its output for
    /// the next layer.
    fn compare_layer(&mut self, index: usize, m: usize) -> Result<(), ForwardError> {
        let layer = self.layers[index];
        let next = self.layers.get(index + 1).map(|next| *next.input());
        let tally = &mut self.tallies.layers[index];
        let divided = index == 0 && !self.quotients.is_empty();
        let input = if divided { &self.quotients } else { &self.float_values[index] };
        let output = &self.float_values[index + 1];
        tally.clipped.count_share(clipped_fraction(input, layer.input()), input.len());
        tally.peaks.add(input, layer.k());

        let all_sums = grown(&mut self.sums, m, layer.n())?;
        let x = MatRef::new(&self.codes, m, layer.k())?;
        let sums = MatMut::new(&mut *all_sums, m, layer.n())?;
        layer.forward_sums(x, sums, Threads::Serial, &mut self.workspace)?;

        let function = layer.activation();
        let sums = || all_sums.iter().zip(layer.factors().iter().cycle());
        self.values.clear();
        if let Some(next) = next {
            let (scale, zero_point) = (next.scale(), next.zero_point());
            let (lowest, high) = (next.codes().min(), next.codes().max());
            // The code before it is clamped to the largest one.
            let bounds = function.as_code_bounds(scale, zero_point, lowest, i32::MAX);
            let (low, most) = bounds.unwrap_or((lowest, i32::MAX));
            let unclamped = |((&sum, &factor), &multiplier): ((&i32, &f32), &f32)| match function.on_codes() {
                OnCodes::RealValues => {
                    requantize_activation(sum, factor, function, scale, zero_point, low, most)
                }
                _ => {
                    let scaled = function.after_multiplier(sum as f32 * multiplier);
                    requantize_scaled(scaled, zero_point, low, most)
                }
            };
            let unclamped = || sums().zip(layer.multipliers().iter().cycle()).map(unclamped);
            tally.saturated.get_or_insert_default().count(unclamped().map(|code| code > high));
            self.codes.clear();
            self.codes.extend(unclamped().map(|code| C::from_clamped(code.min(high))));
            self.values.extend(self.codes.iter().map(|code| next.dequantize(code.widen())));
        } else {
            self.values.extend(sums().map(|(&sum, &factor)| function.apply(dequantize_acc(sum, factor))));
        }
        Ok(tally.sqnr.add(output, &self.values)?)
    }

    /// Counts the rows whose largest logit is the same one.
    fn compare_classes(&mut self) -> Result<(), ForwardError> {
        let Some(logits) = self.float_values.last() else { return Ok(()) };
        Ok(self.tallies.agreement.add(logits, &self.values, self.float.outputs())?)
    }
}
