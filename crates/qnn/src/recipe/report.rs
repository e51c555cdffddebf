//! What each step of a recipe gained for each layer.

use core::fmt;

use crate::evidence::table::Table;
use crate::pass::report::PassReport;

/// A step of a [`Recipe`](crate::Recipe).
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Step {
    /// [`Recipe::smooth_quant`](crate::Recipe::smooth_quant).
    SmoothQuant {
        /// The alpha that was best on rows of calibration.
        alpha: f64,
    },
    /// [`Recipe::equalize`](crate::Recipe::equalize).
    Equalize,
    /// [`Recipe::clip_weights`](crate::Recipe::clip_weights).
    ClipWeights,
    /// [`Recipe::gptq`](crate::Recipe::gptq).
    Gptq {
        /// The damping that was used: what was asked for, or more.
        damping: f64,
        /// Rows of calibration.
        rows: usize,
        /// Inputs of the layer. With fewer rows than inputs, weights make up for errors by what a
        /// few rows happen to have in common.
        k: usize,
    },
    /// [`Recipe::bias_correction`](crate::Recipe::bias_correction). Its figures are those of the
    /// layer behind quantized layers, compared with the same layer in the f32 model.
    BiasCorrection,
}

impl Step {
    /// The names of all steps, in the order in which they are taken.
    const NAMES: [&'static str; 5] = ["equalization", "SmoothQuant", "clipping", "GPTQ", "bias correction"];

    /// What the step is called.
    pub fn name(&self) -> &'static str {
        let [equalization, smooth_quant, clipping, gptq, bias_correction] = Self::NAMES;
        match self {
            Step::Equalize => equalization,
            Step::SmoothQuant { .. } => smooth_quant,
            Step::ClipWeights => clipping,
            Step::Gptq { .. } => gptq,
            Step::BiasCorrection => bias_correction,
        }
    }
}

/// What a step did to a layer, measured on rows that are held out from calibration.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct StepGain {
    /// The step.
    pub step: Step,
    /// SQNR of the layer's output without it, in dB.
    pub before_db: f64,
    /// And with it.
    pub after_db: f64,
    /// Whether the layer has it now: if layers that share an input gained by it on average.
    pub is_kept: bool,
}

/// A layer of a [`RecipeReport`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RecipeLayer {
    /// Name.
    pub name: String,
    /// The steps that were tried, in their order.
    pub steps: Vec<StepGain>,
}

impl RecipeLayer {
    pub(super) fn new(name: String) -> Self {
        Self { name, steps: Vec::new() }
    }

    pub(super) fn add(&mut self, step: StepGain) {
        self.steps.push(step);
    }

    /// What the steps that were kept gained together, in dB.
    pub fn gain_db(&self) -> f64 {
        let kept = self.steps.iter().filter(|step| step.is_kept);
        kept.map(|step| step.after_db - step.before_db).sum()
    }
}

/// What a [`Recipe`](crate::Recipe) did. `Display` gives a table of the steps, and the pass's.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RecipeReport {
    /// The layers that steps were tried on.
    pub layers: Vec<RecipeLayer>,
    /// What became of all layers. Its figures are those of each layer alone, on the rows that are
    /// held out. (Where a corrected bias makes up for the layers before, too, it counts against the
    /// layer there.)
    pub pass: PassReport,
}

impl RecipeReport {
    /// The gains of each layer by a step of this name.
    fn gains<'r>(&'r self, name: &'r str) -> impl Iterator<Item = (&'r RecipeLayer, &'r StepGain)> {
        let of_layer = move |layer: &'r RecipeLayer| {
            layer.steps.iter().filter(move |gain| gain.step.name() == name).map(move |gain| (layer, gain))
        };
        self.layers.iter().flat_map(of_layer)
    }

    /// What each layer gained by each step, without those that nobody took.
    fn cells(&self) -> Vec<Vec<String>> {
        let taken: Vec<_> =
            Step::NAMES.into_iter().filter(|name| self.gains(name).next().is_some()).collect();
        let titles = ["layer", "without, dB"].into_iter().chain(taken.iter().copied());
        let mut cells = vec![titles.map(str::to_owned).collect::<Vec<_>>()];
        for layer in &self.layers {
            let without = layer.steps.first().map_or(f64::NAN, |gain| gain.before_db);
            let mut row = vec![layer.name.clone(), format!("{without:.2}")];
            row.extend(taken.iter().map(|name| {
                let gain = layer.steps.iter().find(|gain| gain.step.name() == *name);
                gain.map_or_else(|| "-".to_owned(), StepGain::to_string)
            }));
            cells.push(row);
        }
        cells
    }
}

impl fmt::Display for StepGain {
    /// The gain in dB, in parentheses if it was undone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gain = self.after_db - self.before_db;
        if self.is_kept { write!(f, "{gain:+.2}") } else { write!(f, "({gain:+.2})") }
    }
}

impl fmt::Display for RecipeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.layers.is_empty() {
            writeln!(f, "gains in dB on rows that are held out, in parentheses where they were undone:")?;
            write!(f, "{}", Table(&self.cells()))?;
        }
        for name in Step::NAMES {
            let (count, kept) = (self.gains(name).count(), self.gains(name).filter(|(_, gain)| gain.is_kept));
            let (kept, sum) = kept
                .fold((0, 0.0), |(kept, sum), (_, gain)| (kept + 1, sum + gain.after_db - gain.before_db));
            if count > 0 {
                let mean = sum / count as f64;
                writeln!(f, "{name}: kept in {kept} of {count} layers, {mean:+.2} dB on average of all")?;
            }
        }
        for (layer, gain) in Step::NAMES.into_iter().flat_map(|name| self.gains(name)) {
            if let Step::Gptq { rows, k, .. } = gain.step
                && rows < k
            {
                let name = &layer.name;
                writeln!(
                    f,
                    "note: GPTQ of {name} saw {rows} rows, fewer than its {k} inputs; more would help"
                )?;
            }
        }
        writeln!(f)?;
        write!(f, "{}", self.pass)
    }
}
