//! Products by their definition, element by element: qcore's quantizer, integer sums, and qcore's
//! formula for the term of a group.

use qbenches::spread;
use qcore::{Range, group_term, group_term_with_minimum, sum_group_terms};

use crate::format::Format;
use crate::operands::Operands;
use crate::{Result, SCHEME};

/// Whether `y` is the product of `a` (m, k) with weights of a format, bit for bit, in 64 rows and
/// columns spread over it (all of it where it is smaller).
pub(crate) fn is_product(a: &[f32], w: &Operands, format: &Format, y: &[f32]) -> Result<bool> {
    for i in spread(y.len() / w.n) {
        let row = &a[i * w.k..(i + 1) * w.k];
        let params = SCHEME.choose(Range::of_finite(row).unwrap_or_default())?;
        let row: Vec<i64> =
            row.iter().map(|&x| i64::from(params.quantize(x) - params.zero_point())).collect();
        for j in spread(w.n) {
            if element(&row, params.scale(), w, format, j)?.to_bits() != y[i * w.n + j].to_bits() {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// The product of a row, its codes less their zero point, with the weights of channel `j`.
fn element(row: &[i64], scale: f32, w: &Operands, format: &Format, j: usize) -> Result<f32> {
    let k = w.k;
    let groups = k.div_ceil(format.group_len);
    let mut terms = Vec::with_capacity(groups);
    for g in 0..groups {
        let (from, to) = (g * format.group_len, k.min((g + 1).saturating_mul(format.group_len)));
        let (mut sum, mut of_minimum) = (0, 0);
        for part in (from..to).step_by(format.part_len) {
            let part_to = to.min(part.saturating_add(format.part_len));
            let (products, activations) = sums(&row[part..part_to], &w.codes[j * k..][part..part_to], format);
            let factor = match format.has_parts() {
                true => w.part_scales[j * k.div_ceil(format.part_len) + part / format.part_len].into(),
                false => 1,
            };
            sum += factor * products;
            of_minimum += factor * activations;
        }
        // The minimum of a group is the same number as its scale.
        let (sum, of_weights) = (i32::try_from(sum)?, w.scales[j * groups + g]);
        terms.push(match format.minimums {
            false => group_term(scale, of_weights, sum),
            true => group_term_with_minimum(scale, of_weights, sum, of_weights, i32::try_from(of_minimum)?),
        });
    }
    Ok(sum_group_terms(terms))
}

/// The sum of products with the codes less their zero point, and that of the activations alone.
fn sums(a: &[i64], codes: &[i8], format: &Format) -> (i64, i64) {
    let zero_point = i64::from(format.zero_point().unwrap_or(0));
    let integer = |code: i8| match format.bits {
        8 => i64::from(code) - zero_point,
        _ => i64::from(Operands::nibble(code)) - zero_point,
    };
    (a.iter().zip(codes).map(|(a, &code)| a * integer(code)).sum(), a.iter().sum())
}
