//! Measures how much of a tensor lies beyond the range of its codes.

use crate::params::QParams;
use crate::tensor::{ChannelAxis, ChannelError};

/// The share of values that clamping changed, that is, whose rounded code is outside the code
/// range. Infinities count, NaN does not. An empty slice gives 0.
///
/// ```
/// use qcore::{CodeRange, QParams, clipped_fraction};
///
/// let p = QParams::new(1.0, 0, CodeRange::I8)?;
/// assert_eq!(clipped_fraction(&[0.0, 127.4, 127.6, -1e9], &p), 0.5);
/// # Ok::<(), qcore::ParamError>(())
/// ```
#[must_use]
pub fn clipped_fraction(x: &[f32], p: &QParams) -> f64 {
    let clipped = x.iter().filter(|&&v| p.clips(v)).count();
    clipped as f64 / x.len().max(1) as f64
}

/// [`clipped_fraction`] of each channel.
///
/// # Errors
/// When a length is not what the axis says.
///
/// ```
/// use qcore::{ChannelAxis, CodeRange, QParams, clipped_fraction_per_channel};
///
/// let p = QParams::new(1.0, 0, CodeRange::I8)?;
/// let rows = ChannelAxis::new(&[2, 2], 0)?;
/// assert_eq!(clipped_fraction_per_channel(&[0.0, 300.0, 1.0, 2.0], rows, &[p, p])?, [0.5, 0.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn clipped_fraction_per_channel(
    x: &[f32],
    axis: ChannelAxis,
    params: &[QParams],
) -> Result<Vec<f64>, ChannelError> {
    axis.check_data(x.len())?;
    axis.check_params(params.len())?;
    let of_channel = |(channel, p): (usize, &QParams)| {
        let clipped = axis.channel_runs(x, channel).flatten().filter(|&&v| p.clips(v)).count();
        clipped as f64 / (axis.outer() * axis.inner()).max(1) as f64
    };
    Ok(params.iter().enumerate().map(of_channel).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::CodeRange;
    use crate::params::ZeroPointOrder;

    #[test]
    fn the_edge_is_where_rounding_leaves_the_codes() {
        let p = QParams::new(2.0, 100, CodeRange::U8).unwrap();
        for order in [ZeroPointOrder::RoundThenAdd, ZeroPointOrder::AddThenRound] {
            let p = p.with_order(order);
            let clips = |v: f32| clipped_fraction(&[v], &p) == 1.0;
            assert!(!clips(310.0) && !clips(310.99) && clips(311.01) && clips(f32::INFINITY));
            assert!(!clips(-200.0) && clips(-201.01) && !clips(f32::NAN));
        }
        assert_eq!(clipped_fraction(&[], &p), 0.0);
    }
}
