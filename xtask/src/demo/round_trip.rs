//! A tensor is quantized by a scheme and restored, and the errors are measured. The common part of
//! the tutorial's demos.

use anyhow::Result;
use qcore::{ErrorMetrics, QParams, Range, Scheme};

use super::expect_equal;
use crate::tensor_file::TensorFile;

/// The bit widths that are compared.
pub(crate) const WIDTHS: [u32; 7] = [2, 3, 4, 5, 6, 7, 8];

/// A tensor, its codes, and the values restored from them.
pub(crate) struct Trip {
    pub(crate) params: QParams,
    pub(crate) codes: Vec<i32>,
    pub(crate) restored: Vec<f32>,
    pub(crate) error: ErrorMetrics,
}

impl Trip {
    pub(crate) fn of(x: &[f32], scheme: &Scheme) -> Result<Self> {
        let params = scheme.choose(Range::of(x)?)?;
        let codes: Vec<i32> = x.iter().map(|&x| params.quantize(x)).collect();
        let restored: Vec<f32> = codes.iter().map(|&q| params.dequantize(q)).collect();
        let error = ErrorMetrics::of(x, &restored)?;
        Ok(Self { params, codes, restored, error })
    }

    /// Fails if the codes or the restored values differ from a case of the reference numbers.
    pub(crate) fn expect(&self, file: &TensorFile, case: &str) -> Result<()> {
        let codes: Vec<i64> = self.codes.iter().map(|&q| q.into()).collect();
        expect_equal("codes", &codes, &file.integer(&format!("{case}/q"))?.values)?;
        expect_equal("restored values", &self.restored, &file.real(&format!("{case}/dequantized"))?.values)
    }

    /// Scale, zero point and errors, as indented lines.
    pub(crate) fn lines(&self) -> String {
        let Self { params, error, .. } = self;
        format!(
            "        scale: {}\n        zero point: {}\n        largest error: {:.6} (half a step: {:.6})\n        \
             mean error: {:.6}\n        mean relative error: {:.2} %\n        SQNR: {:.2} dB",
            params.scale(),
            params.zero_point(),
            error.max_abs_error,
            params.scale() / 2.0,
            error.mean_abs_error,
            error.mean_relative_error_pct,
            error.sqnr_db
        )
    }
}
