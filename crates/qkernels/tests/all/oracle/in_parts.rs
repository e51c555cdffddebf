//! Layers whose weights have minimums, or groups in parts, and the results that their products must
//! have.

use qcore::{GgmlQ8_0, Range, group_term, group_term_with_minimum, sum_group_terms};
use qkernels::{Dynamic, Kernel, MatRef, PackedNibbles, ScaledWeights, WeightScales};

use super::{Noise, codes_of, pack, perhaps_f16};

#[derive(Clone)]
pub(crate) struct Layer {
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) group_len: Option<usize>,
    pub(crate) bits: u32,
    pub(crate) codes: Vec<i8>,
    pub(crate) scales: Vec<f32>,
    pub(crate) zero_points: Option<Vec<i8>>,
    pub(crate) minimums: Option<Vec<f32>>,
    pub(crate) parts: Option<(usize, Vec<i8>)>,
    pub(crate) part_minimums: Option<Vec<i8>>,
    pub(crate) bias: Vec<f32>,
}

impl Layer {
    /// A layer in groups, perhaps in parts, of any of the forms that there are.
    pub(crate) fn new(noise: &mut Noise, n: usize, k: usize) -> Self {
        let part_len = noise.choose(&[None, Some(16), Some(32), Some(64)]);
        let group_len = match noise.below(8) {
            // In parts, longer ones may leave int32.
            0 if part_len.is_none() || k <= 256 => None,
            0 => Some(256),
            times => Some(times.min(256 / part_len.unwrap_or(64)) * part_len.unwrap_or(32)),
        };
        let bits = noise.choose(&[8, 4]);
        let layer = Self::of_format(noise, (n, k), bits, group_len, part_len);
        match noise.below(4) {
            // Parts without minimums, as Q6_K has them.
            0 => Self { minimums: None, part_minimums: None, ..layer },
            1 => Self { part_minimums: None, ..layer },
            _ => layer,
        }
    }

    /// With minimums, zero points or not, and parts of `part_len` k with minimums, if it is there.
    pub(crate) fn of_format(
        noise: &mut Noise,
        (n, k): (usize, usize),
        bits: u32,
        group_len: Option<usize>,
        part_len: Option<usize>,
    ) -> Self {
        let count = n * group_len.map_or(1, |len| k.div_ceil(len));
        let parts = part_len.map(|len| (len, noise.codes::<i8>(n * k.div_ceil(len))));
        let part_minimums = parts.as_ref().map(|(_, parts)| codes_of(noise, 8, parts.len()));
        let part_minimums = part_minimums.map(|of| of.into_iter().map(|minimum| minimum & 127).collect());
        let signs = |noise: &mut Noise, mut values: Vec<f32>| {
            values.iter_mut().for_each(|value| match noise.below(8) {
                0..3 => *value = -*value,
                3 if noise.below(4) == 0 => *value = 0.0,
                _ => {}
            });
            values
        };
        let (scales, minimums) = (noise.floats(count, 0.01), noise.floats(count, 0.05));
        let (scales, minimums) = (signs(noise, scales), signs(noise, minimums));
        let (scales, minimums) = (perhaps_f16(noise, scales), perhaps_f16(noise, minimums));
        let zero_points = match noise.below(3) {
            0 => None,
            1 => Some(vec![8; count]),
            _ => Some(codes_of(noise, bits, count)),
        };
        let (codes, bias) = (codes_of(noise, bits, n * k), noise.floats(n, 0.5));
        let minimums = Some(minimums);
        Self { n, k, group_len, bits, codes, scales, zero_points, minimums, parts, part_minimums, bias }
    }

    pub(crate) fn weight_scales(&self) -> WeightScales<'_> {
        let mut scales = match self.group_len {
            None => WeightScales::per_channel(&self.scales),
            Some(len) => WeightScales::per_group(&self.scales, len),
        };
        if let Some(zero_points) = &self.zero_points {
            scales = scales.with_zero_points(zero_points);
        }
        if let Some(minimums) = &self.minimums {
            scales = scales.with_minimums(minimums);
        }
        if let Some((len, parts)) = &self.parts {
            scales = scales.with_parts(*len, parts);
        }
        if let Some(minimums) = &self.part_minimums {
            scales = scales.with_part_minimums(minimums);
        }
        scales
    }

    pub(crate) fn packed(&self, kernel: Kernel) -> ScaledWeights {
        let (n, k) = (self.n, self.k);
        if self.bits == 8 {
            let w = pack(kernel, MatRef::new(&self.codes, n, k).unwrap());
            return ScaledWeights::new(w, self.weight_scales()).unwrap();
        }
        let codes: Vec<u8> = self.codes.iter().map(|code| code.cast_unsigned()).collect();
        let w = PackedNibbles::from_nk(MatRef::new(&codes, n, k).unwrap(), kernel).unwrap();
        ScaledWeights::of_nibbles(w, self.weight_scales()).unwrap()
    }

    /// Its form, for messages.
    pub(crate) fn form(&self) -> String {
        format!(
            "{} x {}, {} bits, groups {:?}, parts {:?}, zero points {}, minimums {}, of parts {}",
            self.n,
            self.k,
            self.bits,
            self.group_len,
            self.parts.as_ref().map(|parts| parts.0),
            self.zero_points.is_some(),
            self.minimums.is_some(),
            self.part_minimums.is_some()
        )
    }

    fn groups(&self) -> usize {
        self.group_len.map_or(1, |len| self.k.div_ceil(len))
    }

    /// Where the entries of a weight's group and of its part are.
    fn entries_of(&self, channel: usize, k: usize) -> (usize, usize) {
        let group = channel * self.groups() + self.group_len.map_or(0, |len| k / len);
        let part = self.parts.as_ref().map_or(0, |(len, _)| channel * self.k.div_ceil(*len) + k / len);
        (group, part)
    }

    /// The integers of a weight: less its zero point, the scale and the minimum of its part.
    fn integers(&self, channel: usize, k: usize) -> (i64, i64, i64) {
        let (group, part) = self.entries_of(channel, k);
        let zero_point = self.zero_points.as_ref().map_or(0, |of| i64::from(of[group]));
        (
            i64::from(self.codes[channel * self.k + k]) - zero_point,
            self.parts.as_ref().map_or(1, |(_, of)| of[part].into()),
            self.part_minimums.as_ref().map_or(1, |of| of[part].into()),
        )
    }

    /// The integer product by its definition, with the bias.
    pub(crate) fn expected(&self, x: &[f32], how: Dynamic) -> Vec<u32> {
        let (len, groups) = (self.group_len.unwrap_or(self.k.max(1)), self.groups());
        let mut y = Vec::new();
        for row in x.chunks(self.k) {
            let (a, row_scales) = quantized(row, x, how);
            for j in 0..self.n {
                let term = |g: usize| {
                    let (mut sum, mut of_minimums) = (0, 0);
                    for (k, a) in a.iter().enumerate().skip(g * len).take(len) {
                        let (w, part_scale, part_minimum) = self.integers(j, k);
                        sum += part_scale * (a * w);
                        of_minimums += part_minimum * a;
                    }
                    let sum = i32::try_from(sum).unwrap();
                    let (scale, at) = (row_scales[g.min(row_scales.len() - 1)], j * groups + g);
                    match &self.minimums {
                        None => group_term(scale, self.scales[at], sum),
                        Some(minimums) => {
                            let of_minimums = i32::try_from(of_minimums).unwrap();
                            group_term_with_minimum(scale, self.scales[at], sum, minimums[at], of_minimums)
                        }
                    }
                };
                y.push((sum_group_terms((0..groups).map(term)) + self.bias[j]).to_bits());
            }
        }
        y
    }

    /// The product of floats in f64, with the bias, and the error allowed for each element.
    pub(crate) fn exact(&self, a: &[f32]) -> Vec<(f64, f64)> {
        let mut y = Vec::new();
        for row in a.chunks(self.k.max(1)) {
            for j in 0..self.n {
                let (mut sum, mut magnitude) = (f64::from(self.bias[j]), f64::from(self.bias[j].abs()));
                for (k, &a) in row.iter().enumerate() {
                    let ((w, part_scale, part_minimum), (group, _)) =
                        (self.integers(j, k), self.entries_of(j, k));
                    let product = f64::from(a) * (w * part_scale) as f64 * f64::from(self.scales[group]);
                    let minimum = self.minimums.as_ref().map_or(0.0, |of| f64::from(of[group]));
                    let added = f64::from(a) * minimum * part_minimum as f64;
                    sum += product + added;
                    magnitude += product.abs() + added.abs();
                }
                y.push((sum, (self.k + 8) as f64 * 2f64.powi(-24) * magnitude));
            }
        }
        y
    }

    /// The real value of a weight in f32.
    pub(crate) fn value(&self, channel: usize, k: usize) -> f32 {
        let ((w, part_scale, part_minimum), (group, _)) =
            (self.integers(channel, k), self.entries_of(channel, k));
        let value = w as f32 * (self.scales[group] * part_scale as f32);
        self.minimums.as_ref().map_or(value, |of| value + of[group] * part_minimum as f32)
    }
}

/// The codes of a row less their zero points, and the scales of its groups, or the one that it has.
/// `all` are the values of all rows.
fn quantized(row: &[f32], all: &[f32], how: Dynamic) -> (Vec<i64>, Vec<f32>) {
    let mut codes = Vec::new();
    let mut scales = Vec::new();
    for group in row.chunks(how.group_len().unwrap_or(row.len())) {
        match how {
            Dynamic::GgmlQ8_0 => {
                let block = GgmlQ8_0::of(group);
                scales.push(block.scale());
                codes.extend(group.iter().map(|&x| i64::from(block.quantize(x))));
            }
            Dynamic::PerTensor(scheme) | Dynamic::PerToken(scheme) | Dynamic::PerGroup { scheme, .. } => {
                let of = if matches!(how, Dynamic::PerTensor(_)) { all } else { group };
                let params = scheme.choose(Range::of_finite(of).unwrap_or_default()).unwrap();
                scales.push(params.scale());
                let distance = |&x: &f32| i64::from(params.quantize(x) - params.zero_point());
                codes.extend(group.iter().map(distance));
            }
            _ => unreachable!("all there are"),
        }
    }
    (codes, scales)
}
