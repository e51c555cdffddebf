//! Rates: those that bound the others, and how they stand in tables.

use qbenches::{Kind, Record};

/// The best rate at which memory was read, in GB/s.
pub(crate) fn memory_rate(records: &[Record]) -> f64 {
    let memory = records.iter().filter(|record| record.kind == Kind::Memory);
    memory.map(|record| record.gigabytes).fold(0.0, f64::max)
}

/// Each kernel and the best peak measured for it.
pub(crate) fn peaks(records: &[Record]) -> Vec<(&str, f64)> {
    let mut peaks: Vec<(&str, f64)> = Vec::new();
    for record in records {
        let Some(peak) = record.peak else { continue };
        match peaks.iter_mut().find(|(kernel, _)| *kernel == record.contender) {
            Some((_, best)) => *best = best.max(peak),
            None => peaks.push((&record.contender, peak)),
        }
    }
    peaks
}

/// Gop/s with as many digits as mean something.
pub(crate) fn gops(gops: f64) -> String {
    let digits = match gops {
        ..1.0 => 3,
        ..10.0 => 2,
        _ => 0,
    };
    format!("{gops:.digits$}")
}

/// The share of the peak, in brackets.
pub(crate) fn share(gops: f64, peak: f64) -> String {
    format!("({:.0} %)", 100.0 * gops / peak)
}
