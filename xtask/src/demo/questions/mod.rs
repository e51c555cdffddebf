//! `cargo xtask demo questions`: answers the five questions that a course asks about quantization,
//! on this machine.

mod calibration;
mod error;
mod lanes;
mod loading;
mod memory;

use anyhow::Result;

use crate::outcome::Outcome;

/// A function that adds the answer to a question to the outcome.
type Answer = fn(&mut Outcome) -> Result<()>;

const ANSWERS: [Answer; 5] =
    [memory::answer, error::answer, calibration::answer, loading::answer, lanes::answer];

/// The number of questions, for progress bars.
pub(crate) const STEPS: u64 = ANSWERS.len() as u64;

pub(crate) fn outcome(tick: &dyn Fn()) -> Result<Outcome> {
    let mut outcome = Outcome::new("demo questions", "Five questions, answered by this machine");
    for answer in ANSWERS {
        answer(&mut outcome)?;
        tick();
    }
    Ok(outcome)
}
