//! How close a model's outputs are to those of the f32 model, and how close they must be.

use core::fmt;

use qcore::{ErrorMetrics, SqnrAboutMean, agreement};

/// The model's output for the evaluation set: rows of `cols` values, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelOutput {
    /// (rows, cols), row-major.
    pub values: Vec<f32>,
    /// Values of a row.
    pub cols: usize,
}

/// How close a model's output is to that of the f32 model.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Quality {
    /// Signal to quantization noise in dB.
    pub sqnr_db: f64,
    /// The same about the mean of each output ([`qcore::SqnrAboutMean`]); `None` with a single row.
    pub sqnr_about_mean_db: Option<f64>,
    /// The cosine between a row and the same row in f32, the mean over all rows.
    pub cosine: f64,
    /// Share, 0 to 1, of rows whose largest output is the same one as in f32. A row without a
    /// number agrees with nothing ([`agreement`]).
    pub agreement: f64,
}

/// What a mix must keep.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Target {
    /// At least this signal to quantization noise of the model's output, in dB.
    SqnrDb(f64),
    /// At least this [`SqnrAboutMean`] of the model's output, in dB.
    SqnrAboutMeanDb(f64),
    /// At least this share, 0 to 1, of rows whose largest output is the same one as in f32. A row
    /// without a number agrees with nothing ([`agreement`]).
    Agreement(f64),
}

impl Quality {
    /// That of `output`; `None` if it has another shape.
    pub(super) fn of(reference: &ModelOutput, output: &ModelOutput) -> Option<Quality> {
        let cols = reference.cols;
        let agreement = agreement(&reference.values, &output.values, cols).ok()?;
        let mut sqnr = SqnrAboutMean::new(cols);
        sqnr.add(&reference.values, &output.values).ok()?;
        let rows = reference.values.chunks_exact(cols).zip(output.values.chunks_exact(cols));
        let count = rows.len();
        let cosines =
            rows.map(|(reference, row)| Some(ErrorMetrics::of(reference, row).ok()?.cosine_similarity));
        Some(Quality {
            sqnr_db: sqnr.sqnr_db(),
            sqnr_about_mean_db: sqnr.db(),
            cosine: cosines.sum::<Option<f64>>()? / count as f64,
            agreement,
        })
    }

    /// The SQNR in dB. Outputs that are no numbers have the lowest there is.
    pub(super) fn rank(&self) -> f64 {
        if self.sqnr_db.is_nan() { f64::NEG_INFINITY } else { self.sqnr_db }
    }
}

impl Target {
    /// What the target is about, of a model of this quality.
    pub(super) fn measured(self, quality: &Quality) -> f64 {
        match self {
            Target::SqnrDb(_) => quality.sqnr_db,
            Target::SqnrAboutMeanDb(_) => quality.sqnr_about_mean_db.unwrap_or(f64::NAN),
            Target::Agreement(_) => quality.agreement,
        }
    }

    /// Whether a model of this quality keeps the target.
    pub fn is_kept(self, quality: &Quality) -> bool {
        let (Target::SqnrDb(least) | Target::SqnrAboutMeanDb(least) | Target::Agreement(least)) = self;
        self.measured(quality) >= least
    }

    /// Why no model could be measured by this, if so: for outputs of so many rows.
    pub(super) fn objection(self, rows: usize) -> Option<&'static str> {
        match self {
            Target::SqnrDb(db) | Target::SqnrAboutMeanDb(db) if db.is_nan() => Some("it must be a number"),
            Target::Agreement(share) if !(0.0..=1.0).contains(&share) => Some("a share is from 0 to 1"),
            Target::SqnrAboutMeanDb(_) if rows < 2 => Some("a mean takes at least two rows of output"),
            _ => None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::SqnrDb(db) => write!(f, "an SQNR of {db} dB"),
            Target::SqnrAboutMeanDb(db) => write!(f, "an SQNR about the mean of {db} dB"),
            Target::Agreement(share) => write!(f, "the same class in {} % of the rows", 100.0 * share),
        }
    }
}
