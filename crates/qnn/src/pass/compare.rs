//! The whole model in one scheme after the other: what each costs in accuracy, bytes and time.

use core::fmt;
use core::ops::ControlFlow;

use super::calibration::Calibration;
use super::error::Refusal;
use super::quality::{ModelOutput, Quality};
use super::trial::{Bench, Trial, TrialError, TrialProgress};
use crate::config::method::Method;
use crate::evidence::sizes::analyze_model_sizes;
use crate::evidence::table::Table;
use crate::tree::exchange::or_undo;
use crate::tree::layers::Layers;

/// Runs the whole model in one scheme after the other, and measures what each costs: first as
/// `calibration` planned, then with every layer that is to be quantized in each of
/// [`PassConfig::candidates`](crate::PassConfig::candidates).
///
/// `evaluate` runs the model on rows of the caller's choice, which must be the same every time. The
/// time in the report is that of its fastest call: of five, or of fewer if they take long.
/// `progress` is called after each scheme; if it breaks off, that is
/// [`TrialError::Cancelled`].
///
/// When this returns, the model is in f32 again, also if the caller's code panics.
///
/// ```
/// use std::ops::ControlFlow;
/// use qkernels::{MatRef, Threads};
/// use qnn::{FloatLinear, FloatMlp, ForwardError, LinearWorkspace, Method, Mlp, ModelOutput, PassConfig};
/// use qnn::{calibrate_model, compare_schemes};
/// let mut model = Mlp::from(FloatMlp::new(vec![
///     FloatLinear::new("fc1", 2, 2, vec![1.0, 0.5, -1.0, 0.9], vec![0.0, 0.25])?,
///     FloatLinear::new("fc2", 1, 2, vec![2.0, 1.0], vec![-1.0])?,
/// ])?);
/// let x = [1.0, 2.0, 0.5, 0.1, 0.3, 0.7];
/// let x = MatRef::new(&x, 3, 2)?;
/// let config = PassConfig { candidates: Method::schemes(), ..PassConfig::default() };
/// let calibration = calibrate_model(&mut model, &config, [x], Mlp::run_batch, |_| {})?;
/// let evaluate = |model: &mut Mlp| {
///     let values = model.forward_vec(x, Threads::Serial, &mut LinearWorkspace::new())?;
///     Ok::<_, ForwardError>(ModelOutput { values, cols: 1 })
/// };
/// let report = compare_schemes(&mut model, &calibration, evaluate, |at| {
///     println!("{} of {}", at.done, at.expected);
///     ControlFlow::Continue(())
/// })?;
/// println!("{report}");
/// assert!(report.best().is_some_and(|(_, quality)| quality.sqnr_db > 40.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`TrialError`] if `evaluate` fails, gives outputs of another shape than before, or in f32 values
/// that are not finite; if `progress` breaks off, no layer is to be quantized, or the layers are
/// not those that were calibrated. A scheme that a layer cannot have is no error: the report says
/// why.
pub fn compare_schemes<M: Layers + ?Sized, E>(
    model: &mut M,
    calibration: &Calibration,
    evaluate: impl FnMut(&mut M) -> Result<ModelOutput, E>,
    progress: impl FnMut(TrialProgress) -> ControlFlow<()>,
) -> Result<SchemeReport, TrialError<E>> {
    let mut trial = Trial::new(model, calibration)?;
    let mut bench = Bench::new(evaluate, progress);
    bench.expected = calibration.candidates.len() + 2;
    or_undo(&mut trial, |trial| compare(trial, &calibration.candidates, &mut bench), Trial::restore)
}

fn compare<M, E, F, P>(
    trial: &mut Trial<'_, M>,
    candidates: &[Method],
    bench: &mut Bench<F, P>,
) -> Result<SchemeReport, TrialError<E>>
where
    M: Layers + ?Sized,
    F: FnMut(&mut M) -> Result<ModelOutput, E>,
    P: FnMut(TrialProgress) -> ControlFlow<()>,
{
    let (_, float_seconds) = bench.time(trial.model)?;
    let float_bytes = analyze_model_sizes(&*trial.model).stored().total();
    let mut schemes = Vec::with_capacity(candidates.len() + 1);
    for method in core::iter::once(None).chain(candidates.iter().map(Some)) {
        let installed = match method {
            None => (0..trial.len()).try_for_each(|layer| trial.install(layer, &trial.planned(layer))),
            Some(method) => trial.install_all(method),
        };
        let cost = match installed {
            Err(refusal) if refusal.is_mismatch() => return Err(refusal.into()),
            Err(refusal) => {
                bench.advance()?;
                Err(refusal)
            }
            Ok(()) => {
                let (quality, seconds) = bench.time(trial.model)?;
                Ok(SchemeCost {
                    quality,
                    seconds,
                    bytes: analyze_model_sizes(&*trial.model).stored().total(),
                })
            }
        };
        trial.restore();
        schemes.push(SchemeResult { method: method.copied(), cost });
    }
    Ok(SchemeReport { float_bytes, float_seconds, schemes })
}

/// What each scheme costs the whole model. `Display` gives a table, in which the best number of
/// each column is marked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SchemeReport {
    /// Bytes of all linear layers of the model as it was, in f32 but for layers that had been
    /// quantized before.
    pub float_bytes: usize,
    /// Seconds that this model takes.
    pub float_seconds: f64,
    /// The plan, then each candidate in its order, but none twice.
    pub schemes: Vec<SchemeResult>,
}

/// What a scheme costs the whole model, or why it cannot have it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SchemeResult {
    /// What every layer becomes; `None` for each layer as it was planned.
    pub method: Option<Method>,
    /// What that costs, or the layer that cannot become this, and why.
    pub cost: Result<SchemeCost, Refusal>,
}

/// What a scheme costs.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct SchemeCost {
    /// How close the model's output is to that of the f32 model.
    pub quality: Quality,
    /// Bytes of all linear layers that must be stored.
    pub bytes: usize,
    /// Seconds that the model takes.
    pub seconds: f64,
}

impl SchemeReport {
    /// The scheme with the highest SQNR, the first of several. `None` if the
    /// layers can have none, or its outputs are not finite.
    pub fn best(&self) -> Option<(Option<Method>, Quality)> {
        let costs = self
            .schemes
            .iter()
            .filter_map(|scheme| Some((scheme.method, scheme.cost.as_ref().ok()?.quality)));
        costs
            .filter(|(_, quality)| !quality.sqnr_db.is_nan())
            .reduce(|best, next| if next.1.sqnr_db > best.1.sqnr_db { next } else { best })
    }
}

impl fmt::Display for SchemeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let costs = || self.schemes.iter().filter_map(|scheme| scheme.cost.as_ref().ok());
        let highest = |of: fn(&SchemeCost) -> f64| costs().map(of).fold(f64::NEG_INFINITY, f64::max);
        let lowest = |of: fn(&SchemeCost) -> f64| costs().map(of).fold(f64::INFINITY, f64::min);
        let (sqnr, cosine) = (highest(|cost| cost.quality.sqnr_db), highest(|cost| cost.quality.cosine));
        let agreement = highest(|cost| cost.quality.agreement);
        let (bytes, seconds) = (lowest(|cost| cost.bytes as f64), lowest(|cost| cost.seconds));
        let cell = |text: String, best: bool| if best { format!("{text} *") } else { format!("{text}  ") };
        let titles = ["all layers", "SQNR dB  ", "cosine  ", "same class %  ", "bytes  ", "ms  "];
        let mut rows = vec![titles.map(str::to_owned).to_vec()];
        let float = self.float_seconds * 1e3;
        let float = ["as it was", "", "", "", &format!("{}  ", self.float_bytes), &format!("{float:.2}  ")];
        rows.push(float.map(str::to_owned).to_vec());
        let mut refused = Vec::new();
        for SchemeResult { method, cost } in &self.schemes {
            let name = method.map_or_else(|| "as planned".to_owned(), |method| method.to_string());
            match cost {
                Err(refusal) => refused.push(format!("{name}: {refusal}")),
                Ok(SchemeCost { quality, bytes: stored, seconds: took }) => rows.push(vec![
                    name,
                    cell(format!("{:.2}", quality.sqnr_db), quality.sqnr_db == sqnr),
                    cell(format!("{:.5}", quality.cosine), quality.cosine == cosine),
                    cell(format!("{:.2}", 100.0 * quality.agreement), quality.agreement == agreement),
                    cell(stored.to_string(), *stored as f64 == bytes),
                    cell(format!("{:.2}", took * 1e3), *took == seconds),
                ]),
            }
        }
        write!(f, "{}", Table(&rows))?;
        refused.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}
