//! Contenders that take turns: what disturbs the machine disturbs all of them, so their ratios hold
//! where their times do not.

use std::error::Error;
use std::time::{Duration, Instant};

/// Bytes of all copies of weights that are to come from memory: more than twice the L3 of the
/// machine that the documents' figures are from.
const COLD_BYTES: usize = 80 << 20;

/// A product with the copy of its weights that has some number.
pub type Run<'c> = Box<dyn FnMut(usize) -> Result<(), Box<dyn Error>> + 'c>;

/// One of several products of the same shape.
pub struct Contender<'c> {
    /// What it is called in the table.
    pub name: String,
    /// Bytes of its weights.
    pub bytes: usize,
    /// The product itself.
    pub run: Run<'c>,
}

/// How often contenders take turns, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Turns {
    rounds: usize,
    slice: Duration,
    test: bool,
}

impl Turns {
    /// A single call of each in tests.
    pub fn new(test: bool) -> Self {
        let (rounds, slice) = if test { (1, Duration::ZERO) } else { (15, Duration::from_millis(12)) };
        Self { rounds, slice, test }
    }

    /// How many copies of weights of so many bytes keep any from staying in a cache, if they are to
    /// come from memory.
    pub fn copies(&self, bytes: usize, from_memory: bool) -> usize {
        if from_memory && !self.test { COLD_BYTES.div_ceil(bytes.max(1)) } else { 1 }
    }

    /// Times all contenders, round after round.
    ///
    /// # Errors
    /// What a contender fails with.
    pub fn run(&self, contenders: &mut [Contender<'_>]) -> Result<Vec<Timing>, Box<dyn Error>> {
        let mut seconds = vec![Vec::new(); contenders.len()];
        let mut copy = 0;
        for round in 0..=self.rounds {
            for (contender, seconds) in contenders.iter_mut().zip(&mut seconds) {
                let (started, mut calls) = (Instant::now(), 0u32);
                while calls == 0 || started.elapsed() < self.slice {
                    (contender.run)(copy)?;
                    copy += 1;
                    calls += 1;
                }
                // The first round warms up.
                if round > 0 {
                    seconds.push(started.elapsed().as_secs_f64() / f64::from(calls));
                }
            }
        }
        let timing = |times: &Vec<f64>| Timing {
            seconds: times.iter().copied().fold(f64::INFINITY, f64::min),
            over_first: median(seconds[0].iter().zip(times).map(|(first, time)| first / time)),
        };
        Ok(seconds.iter().map(timing).collect())
    }
}

/// What was measured of one contender.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Of one call, in the fastest round.
    pub seconds: f64,
    /// How many times as fast as the first contender: the median of the rounds' ratios.
    pub over_first: f64,
}

/// Prints a table of contenders, each of which does so many operations.
pub fn print_table(title: &str, operations: f64, contenders: &[Contender<'_>], timings: &[Timing]) {
    println!("{title}");
    let over = contenders.first().map_or_else(String::new, |first| format!("over {}", first.name));
    println!("{:32} {:>10} {:>10} {:>10} {over:>22}", "", "µs", "Gop/s", "GB/s");
    for (Contender { name, bytes, .. }, Timing { seconds, over_first }) in contenders.iter().zip(timings) {
        println!(
            "{name:32} {:10.1} {:10.2} {:10.2} {over_first:22.3}",
            seconds * 1e6,
            operations / seconds / 1e9,
            *bytes as f64 / seconds / 1e9,
        );
    }
}

/// The median of at least one value.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
