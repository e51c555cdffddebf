//! `cargo xtask demo encoder`: a sentence encoder, from its checkpoint to a saved int8 model.

#[path = "../../../../crates/qnn/examples/transformer/encoder.rs"]
mod blocks;
mod files;
mod model;
mod steps;

use std::fs;
use std::ops::ControlFlow;

use anyhow::{Context, Result, ensure};
use qcore::{ErrorMetrics, argmax};
use qkernels::{MatMut, MatRef, Threads};
use qnn::{
    Calibration, Checkpoint, ForwardError, LayerFile, Layers, Linear, LinearWorkspace, Method, ModelOutput,
    PassConfig, PassReport, StaticConfig, calibrate_model, compare_schemes, layers_to_bytes,
};

use crate::figure::{Axis, Curve, Figure, Line, Words};
use crate::outcome::Outcome;
use crate::pace;
use crate::table::Table;
use model::{SentenceEncoder, WIDTH};

/// Sentences for calibration, then those that are held out from it, those to search in, and
/// queries: one from each topic.
const SENTENCES: &str = include_str!("sentences.txt");
const CALIBRATION: usize = 108;
const HELD_OUT: usize = 24;
const SEARCHED: usize = 24;

/// Sentences of a calibration batch.
const BATCH: usize = 4;

/// Runs the demonstration; `tick` is called with what is being done.
pub(crate) fn outcome(tick: &dyn Fn(&str)) -> Result<Outcome> {
    tick("the encoder's files");
    files::fetch()?;
    let sentences: Vec<&str> = SENTENCES.lines().collect();
    let tokens = files::tokens(&sentences)?;
    let (calibration_tokens, test) = tokens.split_at(CALIBRATION);
    let (held_out, test) = test.split_at(HELD_OUT);

    let trained = files::trained()?;
    let mut checkpoint = Checkpoint::parse(&trained)?;
    let mut model = SentenceEncoder::new(checkpoint.source())?;
    checkpoint.finish_except(&["pooler.*", "embeddings.position_ids"])?;
    let float = model.embed(test)?;

    let mut outcome = Outcome::new("demo encoder", "A sentence encoder in int8");
    outcome.text(format!(
        "* all-MiniLM-L6-v2, {CALIBRATION} sentences for calibration, {HELD_OUT} held out from it, {} others for the test; f32 file of {} bytes",
        test.len(),
        trained.len()
    ));
    let config = PassConfig { candidates: Method::schemes(), ..PassConfig::default() };
    let run = |model: &mut SentenceEncoder, batch: &[Vec<usize>]| model.embed(batch).map(drop);
    let batches = calibration_tokens.chunks(BATCH);
    let calibration = calibrate_model(&mut model, &config, batches, run, |at| {
        tick(&format!("calibration, batch {}", at.done));
    })?;
    outcome.text("\n* All 36 linear layers in each scheme, the vectors of the test sentences");
    outcome.text(compare(&mut model, &calibration, test, tick)?);

    let dynamic = Method::Dynamic(qnn::DynamicConfig::default());
    let methods =
        [Method::Static(StaticConfig::default()), dynamic, Method::WeightOnly(qnn::WeightConfig::default())];
    let mut lines = Vec::new();
    for method in methods {
        tick(&format!("layer by layer, {method}"));
        let mut quantized = reload(&trained)?;
        let report = calibration.quantize_as(&mut quantized, &method)?;
        lines.push(by_layer(&method, &report));
        if method.form() == dynamic.form() {
            model = quantized;
        }
    }
    let int8 = model.embed(test)?;
    let cosine = cosines(&float, &int8)?;
    outcome.text(format!(
        "\n* {dynamic} from here on: cosine of a vector in f32 and in int8, on average {cosine:.5}"
    ));
    let picture = Picture {
        name: "encoder",
        title: "Sentence encoder: every layer keeps its signal".to_owned(),
        caption: "The sentence encoder all-MiniLM-L6-v2: what quantizing costs each of its 36 linear layers.",
    };
    outcome.figure(picture.draw(lines)?);

    let (table, same) = nearest(&sentences[CALIBRATION + HELD_OUT..], &float, &int8);
    outcome.text(format!(
        "\n* The sentence nearest to each query: the same one in {same} of {}",
        table.rows.len()
    ));
    outcome.table(table);

    steps::show(&mut outcome, &trained, [calibration_tokens, held_out, test], &float, tick)?;

    tick("times");
    outcome.text("\n* The 36 linear layers alone, one thread, in alternation with f32");
    let float_model = reload(&trained)?;
    outcome.table(times(&float_model, &model, test)?);

    tick("saving and loading");
    let path = files::folder().join("int8.safetensors");
    let bytes = layers_to_bytes(&model)?;
    fs::write(&path, &bytes).with_context(|| path.display().to_string())?;
    let saved = fs::read(&path)?;
    let mut file = LayerFile::parse(&saved)?;
    let restored = SentenceEncoder::new(file.source())?;
    file.finish()?;
    let again = restored.embed(test)?;
    let bits = |vectors: &[f32]| vectors.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    ensure!(bits(&again) == bits(&int8), "the loaded model gives other bits");
    outcome.text(format!(
        "\n* Saved with embeddings and norms: {} bytes (the linear layers {} instead of {}); loaded, with the same bits",
        saved.len(),
        stored(&model),
        stored(&float_model)
    ));
    Ok(outcome)
}

/// The f32 model.
fn reload(trained: &[u8]) -> Result<SentenceEncoder> {
    Ok(SentenceEncoder::new(Checkpoint::parse(trained)?.source())?)
}

/// Bytes of the linear layers.
fn stored(model: &SentenceEncoder) -> usize {
    qnn::analyze_model_sizes(model).stored().total()
}

fn compare(
    model: &mut SentenceEncoder,
    calibration: &Calibration,
    test: &[Vec<usize>],
    tick: &dyn Fn(&str),
) -> Result<String> {
    let evaluate = |model: &mut SentenceEncoder| {
        Ok::<_, ForwardError>(ModelOutput { values: model.embed(test)?, cols: WIDTH })
    };
    let report = compare_schemes(model, calibration, evaluate, |at| {
        tick(&format!("schemes, {} of {}", at.done, at.expected));
        ControlFlow::Continue(())
    })?;
    Ok(report.to_string())
}

/// The SQNR of each layer's output.
fn by_layer(method: &Method, report: &PassReport) -> Line {
    let sqnr = report.layers.iter().filter_map(|layer| layer.sqnr_db);
    Line::through(&method.to_string(), sqnr.enumerate().map(|(i, db)| (i as f64 + 1.0, db)).collect())
}

/// A picture of the SQNR of all layers.
struct Picture {
    name: &'static str,
    title: String,
    caption: &'static str,
}

impl Picture {
    fn draw(&self, lines: Vec<Line>) -> Result<Figure> {
        let all = || lines.iter().flat_map(|line| &line.points);
        let (low, high) =
            all().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), p| (low.min(p.1), high.max(p.1)));
        let layers = lines.first().map_or(0, |line| line.points.len());
        // Six layers in each block.
        let starts: Vec<f64> = (0..layers).step_by(6).map(|i| i as f64 + 1.0).collect();
        let chart = Curve {
            area: (10, 60, 850, 460),
            title: "SQNR of each layer's output, dB".into(),
            x: Axis::linear(
                "linear layer; a block has query, key, value, output, up, down",
                (0.0, layers as f64 + 1.0),
                6,
            )
            .with_ticks(&starts),
            y: Axis::linear("dB", ((low / 5.0).floor() * 5.0, (high / 5.0).ceil() * 5.0), 6),
            lines,
            levels: Vec::new(),
        };
        Figure::draw(self.name, self.caption, (860, 470), |canvas| {
            Words::TITLE.write(canvas, &self.title, (28, 34))?;
            chart.draw(canvas)
        })
    }
}

/// The mean cosine of each vector and the same one in f32.
fn cosines(float: &[f32], other: &[f32]) -> Result<f64> {
    let mut sum = 0.0;
    for (float, other) in float.chunks_exact(WIDTH).zip(other.chunks_exact(WIDTH)) {
        sum += ErrorMetrics::of(float, other)?.cosine_similarity;
    }
    Ok(sum / (float.len() / WIDTH) as f64)
}

/// For each query, the sentence that is nearest to it in f32, and how near it is in both; and for
/// how many it is the same one in int8.
fn nearest(sentences: &[&str], float: &[f32], int8: &[f32]) -> (Table, usize) {
    let (searched, queries) = sentences.split_at(SEARCHED);
    let mut table = Table::new(["query", "nearest in f32", "f32", "int8", "nearest in int8"]);
    let mut same = 0;
    for (i, query) in queries.iter().enumerate() {
        let [float, int8] = [float, int8].map(|vectors| {
            let vector = |i: usize| &vectors[i * WIDTH..(i + 1) * WIDTH];
            let near =
                |other| vector(SEARCHED + i).iter().zip(vector(other)).map(|(a, b)| a * b).sum::<f32>();
            let all: Vec<f32> = (0..SEARCHED).map(near).collect();
            (argmax(all.iter().copied()).unwrap_or(0), all)
        });
        same += usize::from(float.0 == int8.0);
        let other = if float.0 == int8.0 { "the same".to_owned() } else { shortened(searched[int8.0]) };
        let cells = [float.1[float.0], int8.1[float.0]].map(|near| format!("{near:.3}"));
        let [in_float, in_int8] = cells;
        table.row([shortened(query), shortened(searched[float.0]), in_float, in_int8, other]);
    }
    (table, same)
}

/// The first words of a sentence.
fn shortened(sentence: &str) -> String {
    const MOST: usize = 44;
    match sentence.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &sentence[..end]),
        None => sentence.to_owned(),
    }
}

/// The times of all linear layers, one after the other, for as many tokens as the shortest sentence
/// has, and as 24 sentences have.
fn times(float: &SentenceEncoder, int8: &SentenceEncoder, test: &[Vec<usize>]) -> Result<Table> {
    let mut table = Table::new(["", "tokens", "f32, ms", "int8, ms", "times as fast"]);
    let short = test.iter().map(Vec::len).min().unwrap_or(1);
    let batch = test[..SEARCHED].iter().map(Vec::len).sum();
    for (name, tokens) in [("one short sentence", short), ("24 sentences", batch)] {
        let mut layers = [Timed::new(float, tokens), Timed::new(int8, tokens)];
        let [first, second] = &mut layers;
        let pace = pace::compare(|| first.run(float), || second.run(int8), || ())?;
        table.row([
            name.into(),
            tokens.to_string(),
            format!("{:.3}", pace.first * 1e3),
            format!("{:.3}", pace.second * 1e3),
            format!("{:.2}", pace.ratio),
        ]);
    }
    Ok(table)
}

/// The inputs and outputs of all linear layers for so many tokens.
struct Timed {
    tokens: usize,
    values: Vec<(Vec<f32>, Vec<f32>)>,
    workspace: LinearWorkspace,
}

impl Timed {
    fn new(model: &SentenceEncoder, tokens: usize) -> Self {
        let mut values = Vec::new();
        model.visit(&mut |layer| {
            let x = (0..tokens * layer.k()).map(|i| (i % 251) as f32 * 0.01 - 1.0).collect();
            values.push((x, vec![0.0; tokens * layer.n()]));
        });
        Self { tokens, values, workspace: LinearWorkspace::new() }
    }

    /// Runs every layer once.
    fn run(&mut self, model: &SentenceEncoder) -> Result<()> {
        let Self { tokens, values, workspace } = self;
        let (mut values, mut done) = (values.iter_mut(), Ok(()));
        model.visit(&mut |layer| {
            if let (Ok(()), Some((x, y))) = (&done, values.next()) {
                done = forward(layer, x, y, *tokens, workspace);
            }
        });
        done
    }
}

fn forward(
    layer: &Linear,
    x: &[f32],
    y: &mut [f32],
    m: usize,
    workspace: &mut LinearWorkspace,
) -> Result<()> {
    let (x, out) = (MatRef::new(x, m, layer.k())?, MatMut::new(y, m, layer.n())?);
    Ok(layer.forward(x, out, Threads::Serial, workspace)?)
}
