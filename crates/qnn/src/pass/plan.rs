//! The plan: which form each layer will have, how the layer gets it, and what that costs.

use std::borrow::Cow;

use qcore::{Observer, QParams, Range, SqnrAboutMean, clipped_fraction};
use qkernels::{Kernel, MatRef, Threads};

use super::error::{PassError, PassLayerError};
use super::report::{Decision, PassLayer};
use crate::accuracy::smooth::smoothed;
use crate::config::method::{Method, StaticConfig};
use crate::config::pass::{PassConfig, Rule};
use crate::evidence::warning::{ChannelPeaks, Warning};
use crate::layer::dynamic::DynamicLinear;
use crate::layer::float::FloatLinear;
use crate::layer::forward_error::ForwardError;
use crate::layer::layer_error::LayerError;
use crate::layer::linear::Linear;
use crate::layer::rows::in_vec;
use crate::layer::static_linear::build::StaticLinear;
use crate::layer::static_linear::quantize::static_params;
use crate::layer::watch::Watch;
use crate::layer::weight_codes::{WeightCodes, dynamic_params, group_len, scaled_params, scheme_params};
use crate::layer::weight_only::WeightOnlyLinear;
use crate::layer::workspace::LinearWorkspace;
use crate::tree::chain::{ChainError, check_names};
use crate::tree::layers::Layers;
use crate::tree::shape::LayerShape;

/// What will become of a layer, and what calibration saw of it.
pub(crate) struct Planned {
    pub(crate) shape: LayerShape,
    pub(crate) method: Method,
    pub(crate) decision: Decision,
    /// The static forms whose ranges are watched, one for each observer of the watch.
    watched: Vec<StaticConfig>,
    pub(crate) watch: Watch,
    /// What a recipe found out for the layer in the form `method`.
    pub(crate) refined: Refined,
}

/// What the steps of a recipe found out for a layer. Without steps it is nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refined {
    /// What each input is divided by, and its weights are multiplied by.
    pub(crate) input_scale: Option<Vec<f32>>,
    /// The parameters of each channel or group of weights, if they are not what the scheme says.
    pub(crate) params: Option<Vec<QParams>>,
    /// The codes of the weights, if they are not the nearest ones.
    pub(crate) codes: Option<WeightCodes>,
    /// The bias, if it is not the layer's own.
    pub(crate) bias: Option<Vec<f32>>,
}

impl Refined {
    /// `float` as it is quantized: with weights for inputs that are divided, and its new bias.
    pub(crate) fn source<'f>(&self, float: &'f FloatLinear) -> Result<Cow<'f, FloatLinear>, PassLayerError> {
        let mut source = Cow::Borrowed(float);
        if let Some(scale) = &self.input_scale {
            source = Cow::Owned(smoothed(float, scale)?);
        }
        if let Some(bias) = &self.bias {
            source = Cow::Owned(source.with_bias(bias.clone())?);
        }
        Ok(source)
    }
}

/// What `config` says about each layer.
pub(crate) fn plan<M: Layers + ?Sized, E>(
    model: &M,
    config: &PassConfig,
) -> Result<Vec<Planned>, PassError<E>> {
    let mut layers: Vec<(LayerShape, bool)> = Vec::new();
    model.visit(&mut |layer| {
        layers.push((LayerShape::of(layer), matches!(layer, Linear::Float(_))));
    });
    if layers.is_empty() {
        return Err(PassError::Layers(ChainError::NoLayers));
    }
    check_names(layers.iter().map(|(shape, _)| &shape.name[..])).map_err(PassError::Layers)?;
    let unused = |rule: &&Rule| !layers.iter().any(|(shape, _)| rule.matches(&shape.name));
    if let Some(rule) = config.rules.iter().find(unused) {
        return Err(PassError::UnusedRule { pattern: rule.pattern.clone() });
    }
    let last = layers.len() - 1;
    let decide = |(index, (shape, is_float)): (usize, (LayerShape, bool))| {
        let rule = config.rules.iter().find(|rule| rule.matches(&shape.name));
        let weights = shape.n.saturating_mul(shape.k);
        let (method, decision) = match rule {
            _ if !is_float => (Method::Float, Decision::Already),
            Some(rule) => (rule.method, Decision::Rule(rule.pattern.clone())),
            None if config.first_in_float && index == 0 => (Method::Float, Decision::First),
            None if config.last_in_float && index == last => (Method::Float, Decision::Last),
            None if weights < config.min_weights => (Method::Float, Decision::TooSmall),
            None => (config.method, Decision::Default),
        };
        let mut watched: Vec<StaticConfig> = Vec::new();
        if !matches!(method, Method::Float) {
            for method in core::iter::once(&method).chain(&config.candidates) {
                if let Method::Static(config) = method
                    && !watched.iter().any(|watched| watched.sees_as(config))
                {
                    watched.push(*config);
                }
            }
        }
        Planned { shape, method, decision, watched, watch: Watch::default(), refined: Refined::default() }
    };
    Ok(layers.into_iter().enumerate().map(decide).collect())
}

/// The static form of `float` for inputs in `range`.
pub(crate) fn static_form(
    float: &FloatLinear,
    range: Range,
    config: &StaticConfig,
    kernel: Kernel,
) -> Result<StaticLinear, PassLayerError> {
    let input = config.input().choose(range).map_err(PassLayerError::Input)?;
    Ok(StaticLinear::quantize(float, input, &config.weights, kernel)?)
}

fn name_of(config: &StaticConfig) -> String {
    Method::Static(*config).to_string()
}

impl Planned {
    /// Whether the layer will be quantized, and so is watched.
    pub(crate) fn is_watched(&self) -> bool {
        !matches!(self.method, Method::Float)
    }

    /// Whether a method needs a range of the layer's input.
    pub(crate) fn observes(&self) -> bool {
        !self.watched.is_empty()
    }

    /// An observer for each kind of range that is needed.
    pub(crate) fn observers(&self) -> Result<Vec<Box<dyn Observer + Send>>, PassLayerError> {
        let observer = |config: &StaticConfig| {
            let observer = config.observer.observer(&config.input());
            observer.map_err(|error| PassLayerError::Setting { scheme: name_of(config), error })
        };
        self.watched.iter().map(observer).collect()
    }

    /// The range for a static form as `config` says.
    fn range(&self, config: &StaticConfig) -> Result<Range, PassLayerError> {
        let rows = self.watch.rows;
        if rows == 0 {
            return Err(PassLayerError::DidNotRun);
        }
        let at = self.watched.iter().position(|watched| watched.sees_as(config));
        match at.and_then(|at| self.watch.observers.get(at)) {
            None => Err(PassLayerError::NotWatched { scheme: name_of(config) }),
            Some(observer) => observer.range().map_err(|error| PassLayerError::Observer { rows, error }),
        }
    }

    /// `float` in the form that `method` asks for.
    pub(crate) fn quantize(
        &self,
        float: &FloatLinear,
        method: &Method,
        kernel: Kernel,
    ) -> Result<Linear, PassLayerError> {
        let Some(weights) = method.weights() else { return Ok(float.clone().into()) };
        let (source, input) = (self.refined.source(float)?, self.input(method)?);
        let nearest;
        let codes = match &self.refined.codes {
            Some(codes) => codes,
            None => {
                let params = self.params(&source, method, input.as_ref())?;
                let (n, k, group) = (source.n(), source.k(), group_len(weights));
                nearest = WeightCodes::nearest(source.weight(), n, k, params, group)?;
                &nearest
            }
        };
        let quantized: Linear = match (method, input) {
            (Method::Static(_), Some(input)) => StaticLinear::of_codes(&source, input, codes, kernel)?.into(),
            (Method::Dynamic(config), _) => {
                DynamicLinear::of_codes(&source, config.activations, codes, kernel)?.into()
            }
            (Method::WeightOnly(_), _) => WeightOnlyLinear::of_codes(&source, codes, kernel)?.into(),
            (Method::Float | Method::Static(_), _) => source.into_owned().into(),
        };
        match &self.refined.input_scale {
            Some(scale) => Ok(quantized.with_input_scale(scale.clone())?),
            None => Ok(quantized),
        }
    }

    /// The parameters of the input, if `method` is static.
    pub(crate) fn input(&self, method: &Method) -> Result<Option<QParams>, PassLayerError> {
        let Method::Static(config) = method else { return Ok(None) };
        Ok(Some(config.input().choose(self.range(config)?).map_err(PassLayerError::Input)?))
    }

    /// The parameters of each channel or group of the weights of `source`.
    pub(crate) fn params(
        &self,
        source: &FloatLinear,
        method: &Method,
        input: Option<&QParams>,
    ) -> Result<Vec<QParams>, LayerError> {
        let params = match (&self.refined.params, method) {
            (Some(params), _) => params.clone(),
            (None, Method::Float) => Vec::new(),
            (None, Method::Static(config)) => scheme_params(source, &config.weights)?,
            (None, Method::Dynamic(config)) => dynamic_params(source, &config.weights)?,
            (None, Method::WeightOnly(config)) => {
                scaled_params(source.weight(), source.n(), source.k(), config)?
            }
        };
        match input {
            Some(input) => static_params(source, input, params),
            None => Ok(params),
        }
    }

    /// Runs both forms of the layer on the rows that were kept, and gives the figures and warnings.
    pub(crate) fn measure(
        &self,
        float: &FloatLinear,
        quantized: &Linear,
        decision: Decision,
    ) -> Result<(PassLayer, Vec<Warning>), PassLayerError> {
        let (x, m) = self.watch.sample.concat();
        let mut report = PassLayer::unchanged(quantized, decision);
        let mut warnings = Vec::new();
        report.rows = self.watch.rows;
        report.non_finite = self.watch.observers.first().map_or(0, |observer| observer.non_finite());
        if let Linear::Static(layer) = quantized {
            report.input = Some(*layer.input());
            report.clipped = (m > 0).then(|| clipped_fraction(&x, layer.input()));
        }
        if m > 0 {
            let (sqnr, k) = (output_sqnr(float, quantized, &x, m)?, float.k());
            report.sqnr_db = Some(sqnr.sqnr_db());
            report.sqnr_about_mean_db = sqnr.db();
            warnings.extend(Warning::of_output(&self.shape.name, quantized.form(), &sqnr));
            if matches!(quantized, Linear::Static(_) | Linear::Dynamic(_)) {
                let mut peaks = ChannelPeaks::default();
                peaks.add(&x, k);
                warnings.extend(peaks.warning(&self.shape.name));
            }
        }
        Ok((report, warnings))
    }
}

/// How close the outputs of `quantized` are to those of `float` for `x` (m, k).
pub(crate) fn output_sqnr(
    float: &FloatLinear,
    quantized: &Linear,
    x: &[f32],
    m: usize,
) -> Result<SqnrAboutMean, PassLayerError> {
    let mut sqnr = SqnrAboutMean::new(float.n());
    sqnr.add(&float_output(float, x, m)?, &output(quantized, x, m)?).map_err(ForwardError::from)?;
    Ok(sqnr)
}

/// The output of `float` for `x` (m, k).
pub(crate) fn float_output(float: &FloatLinear, x: &[f32], m: usize) -> Result<Vec<f32>, ForwardError> {
    let x = MatRef::new(x, m, float.k())?;
    in_vec(m, float.n(), |out| float.forward(x, out, Threads::Serial))
}

/// The output of `layer` for `x` (m, k).
pub(crate) fn output(layer: &Linear, x: &[f32], m: usize) -> Result<Vec<f32>, ForwardError> {
    layer.forward_vec(MatRef::new(x, m, layer.k())?, Threads::Serial, &mut LinearWorkspace::new())
}
