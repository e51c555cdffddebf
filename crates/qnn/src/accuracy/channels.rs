//! What is known of each input channel of a layer.

/// Figures of each input channel, over all rows that were finite.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChannelStats {
    /// Rows.
    pub(crate) rows: u64,
    /// The largest magnitude.
    pub(crate) largest: Vec<f32>,
    /// The sum.
    pub(crate) sums: Vec<f64>,
    /// The sum of the squares.
    pub(crate) squares: Vec<f64>,
}

impl ChannelStats {
    /// Takes in a row of as many values as all others. Rows that are not finite do not count.
    pub(crate) fn add(&mut self, row: &[f32]) {
        if row.iter().any(|v| !v.is_finite()) {
            return;
        }
        if self.rows == 0 {
            self.largest = vec![0.0; row.len()];
            (self.sums, self.squares) = (vec![0.0; row.len()], vec![0.0; row.len()]);
        }
        self.rows += 1;
        let channels = self.largest.iter_mut().zip(&mut self.sums).zip(&mut self.squares);
        for (((largest, sum), square), &v) in channels.zip(row) {
            *largest = largest.max(v.abs());
            *sum += f64::from(v);
            *square += f64::from(v) * f64::from(v);
        }
    }
}
