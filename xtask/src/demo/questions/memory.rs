//! How much memory does int8 save?

use anyhow::Result;
use qcore::WeightStorage;

use crate::float_model::{self, MLP_256};
use crate::outcome::Outcome;
use crate::table::Table;

/// Codes alone, one byte for each parameter, as courses count.
const CODES: WeightStorage =
    WeightStorage { bits: 8, group: None, scale_bytes: 0, zero_point_bytes: 0, bias_bytes: 1 };

pub(crate) fn answer(outcome: &mut Outcome) -> Result<()> {
    let model = float_model::load(MLP_256)?;
    let storages = [WeightStorage::F32, CODES, WeightStorage::default()];
    let mut table = Table::new(["layer", "parameters", "f32 bytes", "int8 codes alone", "int8 with scales"]);
    let (mut parameters, mut totals) = (0, [0; 3]);
    for layer in model.layers() {
        let (k, n) = (layer.k() as u64, layer.n() as u64);
        let bytes = storages.map(|storage| storage.linear_bytes(k, n));
        parameters += k * n + n;
        totals = [totals[0] + bytes[0], totals[1] + bytes[1], totals[2] + bytes[2]];
        let [float, codes, scales] = bytes.map(|bytes| bytes.to_string());
        table.row([layer.name().into(), (k * n + n).to_string(), float, codes, scales]);
    }
    let [float, codes, scales] = totals.map(|bytes| bytes.to_string());
    table.row(["all".into(), parameters.to_string(), float, codes, scales]);
    outcome.text(format!("* Question 1: how much memory does int8 save? ({})", float_model::layout(&model)));
    outcome.table(table);
    let mebibytes = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
    outcome.text(format!(
        "    {:.2} MiB become {:.2} MiB: {:.1} % less; with a scale and a bias of four bytes for each output, {:.2} times \
         smaller.",
        mebibytes(totals[0]),
        mebibytes(totals[1]),
        100.0 * (1.0 - totals[1] as f64 / totals[0] as f64),
        totals[0] as f64 / totals[2] as f64
    ));
    Ok(())
}
