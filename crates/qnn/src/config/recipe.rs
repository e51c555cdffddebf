//! Which steps make quantized layers more accurate, and how each is done.

use qkernels::Threads;

use super::gptq::GptqConfig;

/// Steps that make a quantized model more accurate without training, in the order of the fields.
/// [`quantize`](Self::quantize) takes them while it quantizes a model.
///
/// Each step is tried on each layer, and what it gains is measured on rows that are held out from
/// calibration. Where it gains nothing, the layer is left as it was without the step.
///
/// ```
/// use qkernels::{MatRef, Threads};
/// use qnn::{FloatLinear, FloatMlp, Mlp, PassConfig, Recipe};
/// // The second input is 100 times as large as the first.
/// let fc1 = FloatLinear::new("fc1", 2, 2, vec![1.0, 0.01, -0.7, 0.02], vec![0.25, 0.0])?;
/// let mut model = Mlp::from(FloatMlp::new(vec![fc1])?);
/// let rows: Vec<f32> = (0..64).flat_map(|i| [(i * 7 % 13) as f32 - 6.0, (i * 5 % 11) as f32 * 100.0]).collect();
/// let (calibration, held_out) = rows.split_at(96);
/// let (calibration, held_out) = (MatRef::new(calibration, 48, 2)?, MatRef::new(held_out, 16, 2)?);
/// let recipe = Recipe::default();
/// let report =
///     recipe.quantize(&mut model, &PassConfig::default(), [calibration], [held_out], Mlp::run_batch, |_| {})?;
/// println!("{report}");
/// assert!(report.layers[0].gain_db() > 6.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Recipe<'t> {
    /// Inputs are divided by a scale of their own, by which the weights are multiplied.
    pub smooth_quant: Option<SmoothQuant>,
    /// Pairs of layers whose weights are balanced in f32, before anything else is found out:
    /// cross-layer equalization. It is for weights with a scale per tensor.
    pub equalize: Vec<LayerPair>,
    /// Ranges of weights are clipped where the finer steps of all others are worth it: each
    /// channel's or group's range is multiplied by the share, 1 to 1/2, with the least squared
    /// error of the weights, each weighted by the mean square of its input. (The trade between
    /// clipping and rounding: Banner, Nahshan, Soudry, 2019, "Post training 4-bit quantization of
    /// convolutional networks for rapid-deployment".)
    pub clip_weights: bool,
    /// Codes of weights are chosen such that their errors cancel in the layer's outputs.
    pub gptq: Option<GptqConfig>,
    /// The mean error of each output is added to the bias: that of the layer, and that of the
    /// quantized layers before it (Nagel, van Baalen, Blankevoort, Welling, 2019: "Data-Free
    /// Quantization Through Weight Equalization and Bias Correction", the empirical form). A layer
    /// without a bias gets one.
    pub bias_correction: bool,
    /// The least finite rows that each layer must see in calibration, and as an eighth as many that
    /// are held out: with fewer, [`quantize`](Self::quantize) refuses to take any step. The default
    /// is 32. (GPTQ does its best with at least as many rows as a layer has inputs; the report
    /// warns where there are fewer.)
    pub min_rows: usize,
    /// How many rows of each layer's input the steps look at, spread over all batches. They take
    /// rows * k * 4 bytes for each layer, twice: of calibration, and of what is held out. The
    /// default is 256. ([`PassConfig::evidence_rows`](crate::PassConfig::evidence_rows) is not
    /// looked at.)
    pub rows: usize,
    /// Which threads may work on the steps. (The caller's code runs on the calling thread.) They
    /// change no bit of what is found.
    pub threads: Threads<'t>,
}

impl Default for Recipe<'_> {
    /// All steps, each as its paper recommends it, on the calling thread.
    fn default() -> Self {
        Self {
            smooth_quant: Some(SmoothQuant::default()),
            clip_weights: true,
            gptq: Some(GptqConfig::default()),
            bias_correction: true,
            ..Self::none()
        }
    }
}

impl Recipe<'_> {
    /// No step at all.
    pub fn none() -> Self {
        Self {
            smooth_quant: None,
            equalize: Vec::new(),
            clip_weights: false,
            gptq: None,
            bias_correction: false,
            min_rows: 32,
            rows: 256,
            threads: Threads::Serial,
        }
    }
}

/// SmoothQuant (Xiao, Lin, Seznec, Wu, Demouth, Han: "SmoothQuant: Accurate and Efficient
/// Post-Training Quantization for Large Language Models", 2022): input channel j is divided by
///
/// ```text
/// s_j = max |x_j| ^ alpha / max |w_j| ^ (1 - alpha)
/// ```
///
/// and column j of the weights is multiplied by it, so that a channel with large values costs
/// others less of their resolution. Layers that share an input share s, and its largest weights are
/// those of all of them.
///
/// The best alpha is searched for each group of layers that share an input, on rows of calibration.
/// (Layers share an input if they were shown exactly the same values.) In layers with float
/// activations this is the idea of AWQ (Lin et al., 2023).
#[derive(Clone, Debug, PartialEq)]
pub struct SmoothQuant {
    /// The values of alpha that are tried, each from 0 to 1. The default is 0 to 1 in tenths.
    pub alphas: Vec<f64>,
}

impl Default for SmoothQuant {
    fn default() -> Self {
        Self { alphas: (0..=10).map(|tenths| f64::from(tenths) / 10.0).collect() }
    }
}

/// Two layers, of which the second reads what the first gives and nothing else does, with nothing
/// between them but the first layer's activation function: none, ReLU or leaky ReLU. Only the
/// caller knows that.
///
/// In cross-layer equalization (Nagel, van Baalen, Blankevoort, Welling, 2019: "Data-Free
/// Quantization Through Weight Equalization and Bias Correction") channel i between them is divided
/// by
///
/// ```text
/// s_i = sqrt(max |w_first[i]| / max |w_second[..][i]|)
/// ```
///
/// in the first layer's weights and bias, and multiplied by it in the second's. The model computes
/// the same, and weights of all channels are equally large. Chains of pairs are balanced until
/// nothing changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerPair {
    /// The name of the layer that gives.
    pub first: String,
    /// The name of the layer that reads.
    pub second: String,
}

impl LayerPair {
    /// The layers of these names.
    pub fn new(first: impl Into<String>, second: impl Into<String>) -> Self {
        Self { first: first.into(), second: second.into() }
    }
}
