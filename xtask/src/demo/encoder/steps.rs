//! What the steps of a recipe gain, scheme by scheme.

use anyhow::Result;
use qnn::{DynamicConfig, Method, PassConfig, Recipe, RecipeReport, SmoothQuant, StaticConfig, WeightConfig};

use super::model::SentenceEncoder;
use super::{BATCH, Picture, cosines, reload};
use crate::figure::Line;
use crate::outcome::Outcome;
use crate::table::Table;

/// The schemes that the steps are for.
fn methods() -> Result<Vec<Method>> {
    Ok(vec![
        Method::Static(StaticConfig::default()),
        Method::Dynamic(DynamicConfig::default()),
        Method::WeightOnly(WeightConfig::with_bits(4)?.in_groups_of(32)),
        Method::Dynamic(DynamicConfig::in_groups_of(32, 4)?),
        Method::WeightOnly(WeightConfig::with_bits(4)?),
    ])
}

/// Quantizes the model in each scheme, without steps, with SmoothQuant, and with all of them, and
/// compares its vectors of `test` with those in f32.
pub(super) fn show(
    outcome: &mut Outcome,
    trained: &[u8],
    [calibration, held_out, test]: [&[Vec<usize>]; 3],
    float: &[f32],
    tick: &dyn Fn(&str),
) -> Result<()> {
    let smooth = Recipe { smooth_quant: Some(SmoothQuant::default()), ..Recipe::none() };
    let recipes = [("without", Recipe::none()), ("SmoothQuant", smooth), ("all steps", Recipe::default())];
    let mut table = Table::new(["cosine of vectors", "without", "SmoothQuant", "all steps"]);
    let mut of_four_bits = None;
    for method in methods()? {
        let mut row = vec![method.to_string()];
        for (name, recipe) in &recipes {
            let mut model = reload(trained)?;
            let config = PassConfig { method, ..PassConfig::default() };
            let run = |model: &mut SentenceEncoder, batch: &[Vec<usize>]| model.embed(batch).map(drop);
            let (calibration, held_out) = (calibration.chunks(BATCH), held_out.chunks(BATCH));
            let report = recipe.quantize(&mut model, &config, calibration, held_out, run, |at| {
                let of = at.total.map_or_else(String::new, |total| format!(" of {total}"));
                tick(&format!("{method}, {name}: {} {}{of}", at.stage, at.done));
            })?;
            row.push(format!("{:.5}", cosines(float, &model.embed(test)?)?));
            if let (Method::WeightOnly(_), "all steps", None) = (method, *name, &of_four_bits) {
                of_four_bits = Some((method, report));
            }
        }
        table.rows.push(row);
    }
    outcome.text("\n* What steps that need no training give back, each kept in a layer only where sentences that are held out say so");
    outcome.table(table);
    if let Some((method, report)) = of_four_bits {
        outcome.text(format!("\n* {method}, all steps\n{}", gains(&report)));
        let picture = Picture {
            name: "encoder-steps",
            title: "Sentence encoder in 4 bits: what each step gives back".to_owned(),
            caption: "The sentence encoder all-MiniLM-L6-v2 with 4-bit weights: the SQNR of each of its 36 linear layers after each step, on sentences that are held out.",
        };
        outcome.figure(picture.draw(after_steps(&report))?);
    }
    Ok(())
}

/// The report's lines on whole steps.
fn gains(report: &RecipeReport) -> String {
    let text = report.to_string();
    let lines = text.lines().filter(|line| line.contains(": kept in "));
    lines.collect::<Vec<_>>().join("\n")
}

/// The SQNR of each layer's output without steps, and after each of them that compares the layer
/// with itself.
fn after_steps(report: &RecipeReport) -> Vec<Line> {
    let mut now: Vec<f64> = report
        .layers
        .iter()
        .map(|layer| layer.steps.first().map_or(f64::NAN, |gain| gain.before_db))
        .collect();
    let line = |name: &str, now: &[f64]| {
        Line::through(name, now.iter().enumerate().map(|(i, &db)| (i as f64 + 1.0, db)).collect())
    };
    let mut lines = vec![line("without", &now)];
    for name in ["SmoothQuant", "clipping", "GPTQ"] {
        for (layer, now) in report.layers.iter().zip(&mut now) {
            let gain = layer.steps.iter().find(|gain| gain.step.name() == name && gain.is_kept);
            *now = gain.map_or(*now, |gain| gain.after_db);
        }
        lines.push(line(&format!("+ {name}"), &now));
    }
    lines
}
