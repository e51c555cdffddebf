//! Signal and noise power, summed over batches.

/// The sums behind [`qcore::sqnr_db`], which takes all values at once; this takes them batch by batch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Noise {
    signal: f64,
    noise: f64,
}

impl Noise {
    /// Takes in pairs of a reference and what stands for it.
    pub(crate) fn add(&mut self, reference: &[f32], other: &[f32]) {
        for (&reference, &other) in reference.iter().zip(other) {
            let (signal, noise) = (f64::from(reference), f64::from(reference) - f64::from(other));
            self.signal += signal * signal;
            self.noise += noise * noise;
        }
    }

    /// `10 * log10(signal / noise)`; +inf without noise.
    pub(crate) fn sqnr_db(&self) -> f64 {
        if self.noise == 0.0 { f64::INFINITY } else { 10.0 * (self.signal / self.noise).log10() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_equal_the_whole() {
        let reference: Vec<f32> = (0..100).map(|i| (i as f32 * 0.7).sin()).collect();
        let other: Vec<f32> = reference.iter().map(|v| (v * 50.0).round() / 50.0).collect();
        let mut noise = Noise::default();
        assert_eq!(noise.sqnr_db(), f64::INFINITY);
        reference.chunks(7).zip(other.chunks(7)).for_each(|(r, o)| noise.add(r, o));
        assert!((noise.sqnr_db() - qcore::sqnr_db(&reference, &other).unwrap()).abs() < 1e-9);
    }
}
