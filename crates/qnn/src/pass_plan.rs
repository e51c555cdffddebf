//! What is to become of each layer, and how it does.

use qcore::{Observer, ObserverError, SettingError, clipped_fraction};
use qkernels::{Kernel, MatMut, MatRef, Threads};

use crate::calibrating::Watch;
use crate::chain::{ChainError, check_names};
use crate::dynamic_linear::DynamicLinear;
use crate::float_linear::FloatLinear;
use crate::forward::ForwardError;
use crate::layers::Layers;
use crate::linear::Linear;
use crate::method::Method;
use crate::noise::Noise;
use crate::pass_config::{PassConfig, Rule};
use crate::pass_error::{PassError, PassLayerError};
use crate::pass_report::{Decision, PassLayer};
use crate::static_linear::StaticLinear;
use crate::static_quantize::QuantizeLinearError;
use crate::weight_only_linear::WeightOnlyLinear;
use crate::workspace::LinearWorkspace;

/// What is to become of a layer, and what calibration saw of it.
pub(crate) struct Planned {
    pub(crate) name: String,
    pub(crate) method: Method,
    pub(crate) decision: Decision,
    pub(crate) watch: Watch,
}

/// What `config` says about each layer.
pub(crate) fn plan<M: Layers + ?Sized, E>(
    model: &M,
    config: &PassConfig,
) -> Result<Vec<Planned>, PassError<E>> {
    let mut layers: Vec<(String, usize, bool)> = Vec::new();
    model.visit(&mut |layer| {
        layers.push((layer.name().to_owned(), layer.n() * layer.k(), matches!(layer, Linear::Float(_))));
    });
    if layers.is_empty() {
        return Err(PassError::Layers(ChainError::NoLayers));
    }
    check_names(layers.iter().map(|(name, ..)| &name[..])).map_err(PassError::Layers)?;
    let unused = |rule: &&Rule| !layers.iter().any(|(name, ..)| rule.matches(name));
    if let Some(rule) = config.rules.iter().find(unused) {
        return Err(PassError::UnusedRule { pattern: rule.pattern.clone() });
    }
    let last = layers.len() - 1;
    let decide = |(index, (name, weights, is_float)): (usize, (String, usize, bool))| {
        let rule = config.rules.iter().find(|rule| rule.matches(&name));
        let (method, decision) = match rule {
            _ if !is_float => (Method::Float, Decision::Already),
            Some(rule) => (rule.method, Decision::Rule(rule.pattern.clone())),
            None if config.first_in_float && index == 0 => (Method::Float, Decision::First),
            None if config.last_in_float && index == last => (Method::Float, Decision::Last),
            None if weights < config.min_weights => (Method::Float, Decision::TooSmall),
            None => (config.method, Decision::Default),
        };
        Planned { name, method, decision, watch: Watch::default() }
    };
    Ok(layers.into_iter().enumerate().map(decide).collect())
}

impl Planned {
    /// Whether the method needs a range of the layer's input.
    pub(crate) fn observes(&self) -> bool {
        matches!(self.method, Method::Static(_))
    }

    pub(crate) fn observer(&self) -> Result<Option<Box<dyn Observer + Send>>, SettingError> {
        match &self.method {
            Method::Static(config) => config.observer.observer(&config.activations).map(Some),
            _ => Ok(None),
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
            Method::Static(config) => {
                let range = self.watch.observer.as_ref().map(|observer| observer.range());
                let range = range.unwrap_or(Err(ObserverError::NoData { non_finite: 0 }));
                let rows = self.watch.rows;
                let range = range.map_err(|source| PassLayerError::Observer { rows, source })?;
                let input = config.activations.choose(range)?;
                Ok(StaticLinear::quantize(float, input, &config.weights, kernel)?.into())
            }
            Method::Dynamic(config) => {
                Ok(DynamicLinear::quantize(float, config.activations, &config.weights, kernel)?.into())
            }
            Method::WeightOnly(config) => {
                let layer = WeightOnlyLinear::quantize(float, config, kernel);
                Ok(layer.map_err(QuantizeLinearError::from)?.into())
            }
        }
    }

    /// Both forms of the layer on the rows that were kept.
    pub(crate) fn measure(
        &self,
        float: &FloatLinear,
        quantized: &Linear,
    ) -> Result<PassLayer, PassLayerError> {
        let (x, m) = self.watch.sample.concat();
        let mut report = PassLayer::unchanged(quantized, self.decision.clone());
        report.rows = self.watch.rows;
        report.non_finite = self.watch.observer.as_ref().map_or(0, |observer| observer.non_finite());
        if let Linear::Static(layer) = quantized {
            report.input = Some(*layer.input());
            report.clipped = (m > 0).then(|| clipped_fraction(&x, layer.input()));
        }
        if m > 0 {
            let (n, k) = (float.n(), float.k());
            let (mut expected, mut got, mut noise) = (vec![0.0; m * n], vec![0.0; m * n], Noise::default());
            let view = |values| MatMut::new(values, m, n).map_err(ForwardError::from);
            let x = MatRef::new(&x, m, k).map_err(ForwardError::from)?;
            float.forward(x, view(&mut expected)?, Threads::Serial)?;
            quantized.forward(x, view(&mut got)?, Threads::Serial, &mut LinearWorkspace::new())?;
            noise.add(&expected, &got);
            report.sqnr_db = Some(noise.sqnr_db());
        }
        Ok(report)
    }
}
