//! The clock of the demos. Two ways to do the same thing are timed in alternation, so that any
//! disturbance affects both.

use std::time::{Duration, Instant};

use anyhow::Result;

/// The number of pairs of slices that are timed.
pub(crate) const ROUNDS: usize = 11;

/// The minimum duration of a slice.
const SLICE: Duration = Duration::from_millis(15);

/// The result of [`compare`].
pub(crate) struct Pace {
    /// The seconds of one first call, in its fastest slice.
    pub(crate) first: f64,
    /// The seconds of one second call, in its fastest slice.
    pub(crate) second: f64,
    /// The median over the rounds of first / second.
    pub(crate) ratio: f64,
}

/// Times `first` and `second` in alternating slices; `tick` is called after each round.
pub(crate) fn compare(
    mut first: impl FnMut() -> Result<()>,
    mut second: impl FnMut() -> Result<()>,
    mut tick: impl FnMut(),
) -> Result<Pace> {
    let first_calls = calls_per_slice(&mut first)?;
    let second_calls = calls_per_slice(&mut second)?;
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        times.push((slice(&mut first, first_calls)?, slice(&mut second, second_calls)?));
        tick();
    }
    let fastest = |time: fn(&(f64, f64)) -> f64| times.iter().map(time).fold(f64::INFINITY, f64::min);
    let mut ratios: Vec<f64> = times.iter().map(|(first, second)| first / second).collect();
    ratios.sort_by(f64::total_cmp);
    Ok(Pace { first: fastest(|t| t.0), second: fastest(|t| t.1), ratio: ratios[ROUNDS / 2] })
}

/// How many calls fill a slice. This also warms up.
fn calls_per_slice(call: &mut impl FnMut() -> Result<()>) -> Result<u32> {
    let mut calls = 1;
    loop {
        let started = Instant::now();
        for _ in 0..calls {
            call()?;
        }
        if started.elapsed() >= SLICE || calls >= 1 << 24 {
            return Ok(calls);
        }
        calls *= 2;
    }
}

/// The seconds of one call.
fn slice(call: &mut impl FnMut() -> Result<()>, calls: u32) -> Result<f64> {
    let started = Instant::now();
    for _ in 0..calls {
        call()?;
    }
    Ok(started.elapsed().as_secs_f64() / f64::from(calls))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_ticks_and_errors_surface() {
        let mut ticks = 0;
        let pace = compare(|| Ok(()), || Ok(()), || ticks += 1).unwrap();
        assert_eq!(ticks, ROUNDS);
        assert!(pace.first >= 0.0 && pace.ratio.is_finite());
        assert!(compare(|| Ok(()), || anyhow::bail!("no"), || ()).is_err());
    }
}
