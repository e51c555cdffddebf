//! The plan: which form each layer will have, how the layer gets it, and what that costs.

use qcore::{Observer, Range, SqnrAboutMean, clipped_fraction};
use qkernels::{Kernel, MatMut, MatRef, Threads};

use super::error::{PassError, PassLayerError};
use super::report::{Decision, PassLayer};
use crate::config::method::{Method, StaticConfig};
use crate::config::pass::{PassConfig, Rule};
use crate::evidence::warning::{ChannelPeaks, Warning};
use crate::layer::dynamic::DynamicLinear;
use crate::layer::float::FloatLinear;
use crate::layer::forward_error::ForwardError;
use crate::layer::linear::Linear;
use crate::layer::rows::grown;
use crate::layer::static_linear::build::StaticLinear;
use crate::layer::watch::Watch;
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
        Planned { shape, method, decision, watched, watch: Watch::default() }
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
        match method {
            Method::Float => Ok(float.clone().into()),
            Method::Static(config) => Ok(static_form(float, self.range(config)?, config, kernel)?.into()),
            Method::Dynamic(config) => {
                Ok(DynamicLinear::quantize(float, config.activations, &config.weights, kernel)?.into())
            }
            Method::WeightOnly(config) => Ok(WeightOnlyLinear::quantize(float, config, kernel)?.into()),
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
            let (n, k) = (float.n(), float.k());
            let (mut expected, mut got, mut sqnr) = (Vec::new(), Vec::new(), SqnrAboutMean::new(n));
            let (expected, got) = (grown(&mut expected, m, n)?, grown(&mut got, m, n)?);
            let rows = MatRef::new(&x, m, k).map_err(ForwardError::from)?;
            let out = MatMut::new(&mut *expected, m, n).map_err(ForwardError::from)?;
            float.forward(rows, out, Threads::Serial)?;
            let out = MatMut::new(&mut *got, m, n).map_err(ForwardError::from)?;
            quantized.forward(rows, out, Threads::Serial, &mut LinearWorkspace::new())?;
            sqnr.add(expected, got).map_err(ForwardError::from)?;
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
