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
            let mut sums = vec![0; self.n().next_multiple_of(nr) * self.groups()];
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
        let (k, group_len, nr) = (self.k(), self.group_len(), self.panel_columns());
        let zero_points = self.entries(p).1;
        match self.codes() {
            Ok(codes) => {
                let desc = codes.kernel().desc();
                let (kr, columns) = (desc.kr, self.columns(p).0);
                let panel = codes.panel(p, 0..desc.groups(k) * kr);
                codes.kernel().vectorize(SumBytes { panel, columns, kr, group_len, nr, sums });
            }
            Err(codes) => {
                let (lines, sums) = (codes.panel(p), sums.as_chunks_mut().0);
                codes.kernel().vectorize(SumNibbles { lines, group_len, sums });
            }
        }
        for (g, sums) in sums.chunks_exact_mut(nr).enumerate() {
            let len = group_len.min(k - g * group_len) as i32;
            if let Some(zero_points) = zero_points.get(g * nr..(g + 1) * nr) {
                for (sum, &zero_point) in sums.iter_mut().zip(zero_points) {
                    *sum = sum.wrapping_sub(len.wrapping_mul(zero_point.into()));
                }
            }
        }
    }
}

/// Sums the codes of a panel of bytes, group by group.
struct SumBytes<'t> {
    panel: &'t [i8],
    columns: usize,
    kr: usize,
    group_len: usize,
    nr: usize,
    sums: &'t mut [i32],
}

impl Task for SumBytes<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        // The length of all groups but the last is a multiple of kr.
        let group_bytes = self.group_len.div_ceil(self.kr).saturating_mul(self.columns * self.kr);
        let groups = self.panel.chunks(group_bytes.max(1));
        for (group, sums) in groups.zip(self.sums.chunks_exact_mut(self.nr)) {
            for step in group.chunks_exact(self.columns * self.kr) {
                for (sum, codes) in sums.iter_mut().zip(step.chunks_exact(self.kr)) {
                    *sum += codes.iter().map(|&code| i32::from(code)).sum::<i32>();
                }
            }
        }
    }
}

/// Sums the codes of a panel of 4 bits, group by group.
struct SumNibbles<'t> {
    lines: &'t [NibbleLine],
    group_len: usize,
    sums: &'t mut [[i32; NIBBLE_COLUMNS]],
}

impl Task for SumNibbles<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let groups = self.lines.chunks(self.group_len.div_ceil(NIBBLE_STEP).max(1));
        for (lines, sums) in groups.zip(self.sums) {
            for line in lines {
                for (sum, quad) in sums.iter_mut().zip(line.as_chunks::<4>().0) {
                    *sum += quad.iter().map(|pair| i32::from(pair & 15) + i32::from(pair >> 4)).sum::<i32>();
                }
            }
        }
    }
}
