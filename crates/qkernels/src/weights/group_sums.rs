//! The sums of each group's weights less their zero points, which a product needs where rows have
//! more than the values that they stand for: a zero point, or what the kernel's form adds.

use crate::cpu::vectorize::Task;
use crate::kernel::nibble_tile::{NIBBLE_COLUMNS, NIBBLE_STEP, NibbleLine};
use crate::weights::scaled::ScaledWeights;

impl ScaledWeights {
    /// The same weights with the sums of their groups, four bytes for each. Without them, products
    /// whose rows have zero points, or whose codes a kernel reads in a shifted form, sum the
    /// weights on each call, which takes longer than a product of a few rows. The results are the
    /// same. [`for_activations`](Self::for_activations) does this where it is of use.
    ///
    /// ```
    /// use qkernels::{Kernel, MatRef, PackedNibbles, ScaledWeights, WeightScales};
    /// let w = PackedNibbles::from_nk(MatRef::new(&[15u8, 0], 1, 2)?, Kernel::select()?)?;
    /// let w = ScaledWeights::of_nibbles(w, WeightScales::per_channel(&[0.5]))?;
    /// let bytes = w.bytes();
    /// assert!(w.with_sums().bytes() > bytes);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_sums(mut self) -> Self {
        if self.sums.is_empty() {
            let nr = self.panel_columns();
            let mut sums = vec![0; self.entries().packed_groups()];
            for (p, sums) in sums.chunks_mut((self.groups() * nr).max(1)).enumerate() {
                self.sum_groups(p, sums);
            }
            self.sums = sums;
        }
        self
    }

    /// The sums of panel `p`: those of a whole panel's columns for every group. Where they were not
    /// kept, they are computed in `buffer`.
    pub(crate) fn column_terms<'p>(&'p self, p: usize, buffer: &'p mut Vec<i32>) -> &'p [i32] {
        let entries = self.groups() * self.panel_columns();
        match self.sums.get(p * entries..(p + 1) * entries) {
            Some(sums) if entries > 0 => sums,
            _ => {
                buffer.clear();
                buffer.resize(entries, 0);
                self.sum_groups(p, buffer);
                buffer
            }
        }
    }

    /// Writes the sums of panel `p` where there are zeros.
    fn sum_groups(&self, p: usize, sums: &mut [i32]) {
        let (k, nr, all) = (self.k(), self.panel_columns(), self.entries());
        let entries = all.panel(p);
        // Zero points first.
        let with_zero_points = if all.has_zero_points() { all.parts } else { 0 };
        for (part, group) in (0..with_zero_points).map(|part| (part, all.group_of(part) * nr)) {
            let len = all.part_len.min(k - part * all.part_len) as i32;
            let part_scales = entries.part_scales.get(part * nr..(part + 1) * nr);
            for j in 0..nr {
                let zero_point = entries.zero_points.get(group + j).copied().or(all.common_zero_point);
                let zero_point = zero_point.unwrap_or(0);
                let times = part_scales.map_or(1, |of_columns| i32::from(of_columns[j]));
                let sum = &mut sums[group + j];
                *sum = sum.wrapping_sub(len.wrapping_mul(zero_point.into()).wrapping_mul(times));
            }
        }
        let (part_len, part_scales) = (all.part_len, entries.part_scales);
        let group_of = |part: usize| all.group_of(part);
        match self.codes() {
            Ok(codes) => {
                let desc = codes.kernel().desc();
                let (kr, columns) = (desc.kr, self.columns(p).0);
                let panel = codes.panel(p, 0..desc.groups(k) * kr);
                let task = SumBytes { panel, columns, kr, part_len, part_scales, group_of, nr, sums };
                codes.kernel().vectorize(task);
            }
            Err(codes) => {
                let (lines, sums) = (codes.panel(p), sums.as_chunks_mut().0);
                let part_scales = part_scales.as_chunks().0;
                codes.kernel().vectorize(SumNibbles { lines, part_len, part_scales, group_of, sums });
            }
        }
    }
}

/// Adds the codes of a panel of bytes to the sums of their groups, each part's times its scale.
struct SumBytes<'t, G> {
    panel: &'t [i8],
    columns: usize,
    kr: usize,
    part_len: usize,
    /// Empty if there are none.
    part_scales: &'t [i8],
    /// The group of a part.
    group_of: G,
    nr: usize,
    sums: &'t mut [i32],
}

impl<G: Fn(usize) -> usize> Task for SumBytes<'_, G> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        // The length of all parts but the last is a multiple of kr.
        let part_bytes = self.part_len.div_ceil(self.kr).saturating_mul(self.columns * self.kr);
        for (p, part) in self.panel.chunks(part_bytes.max(1)).enumerate() {
            let sums = &mut self.sums[(self.group_of)(p) * self.nr..][..self.nr];
            let sum_of = |codes: &[i8]| codes.iter().map(|&code| i32::from(code)).sum::<i32>();
            let steps = part.chunks_exact(self.columns * self.kr);
            match self.part_scales.get(p * self.nr..(p + 1) * self.nr) {
                None => steps.for_each(|step| {
                    for (sum, codes) in sums.iter_mut().zip(step.chunks_exact(self.kr)) {
                        *sum = sum.wrapping_add(sum_of(codes));
                    }
                }),
                Some(scales) => steps.for_each(|step| {
                    for ((sum, codes), &scale) in sums.iter_mut().zip(step.chunks_exact(self.kr)).zip(scales)
                    {
                        *sum = sum.wrapping_add(sum_of(codes).wrapping_mul(scale.into()));
                    }
                }),
            }
        }
    }
}

/// Adds the codes of a panel of 4 bits to the sums of their groups, each part's times its scale.
struct SumNibbles<'t, G> {
    lines: &'t [NibbleLine],
    part_len: usize,
    /// Empty if there are none.
    part_scales: &'t [[i8; NIBBLE_COLUMNS]],
    /// The group of a part.
    group_of: G,
    sums: &'t mut [[i32; NIBBLE_COLUMNS]],
}

impl<G: Fn(usize) -> usize> Task for SumNibbles<'_, G> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (p, lines) in self.lines.chunks(self.part_len.div_ceil(NIBBLE_STEP).max(1)).enumerate() {
            let mut of_part = [0i32; NIBBLE_COLUMNS];
            for line in lines {
                for (sum, quad) in of_part.iter_mut().zip(line.as_chunks::<4>().0) {
                    *sum += quad.iter().map(|pair| i32::from(pair & 15) + i32::from(pair >> 4)).sum::<i32>();
                }
            }
            let scales = self.part_scales.get(p).map_or([1; NIBBLE_COLUMNS], |of| of.map(i32::from));
            let sums = &mut self.sums[(self.group_of)(p)];
            for ((sum, of_part), scale) in sums.iter_mut().zip(of_part).zip(scales) {
                *sum = sum.wrapping_add(of_part.wrapping_mul(scale));
            }
        }
    }
}
