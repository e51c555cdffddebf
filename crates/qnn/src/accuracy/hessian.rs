//! Sums of products of a layer's inputs: what says which errors of weights cancel.

use core::ops::Range;

use qkernels::Threads;

use super::error::AccuracyError;
use super::lanes::{LANES, Lanes, add_scaled};
use super::parts::{map_parts, thread_count};

/// The sums `x^T x` of all rows x of inputs, in f64: the Hessian of the squared error of a layer's
/// outputs, but for its factor 2 and the number of rows. A common factor changes no code, because
/// damping is a share of the mean of the diagonal, so there is none.
///
/// Products are added row by row, in order, so that all entries have the same bits whatever the
/// threads and however the rows were cut into calls.
pub(crate) struct Hessian {
    k: usize,
    rows: usize,
    /// The lower triangle: entry (i, j), j <= i, stands at `i * (i + 1) / 2 + j`.
    sums: Vec<f64>,
}

/// How many rows are added while a part of the sums is in registers.
const ROWS: usize = 16;
/// How many chunks of these rows are widened together. They are 8 KiB, which stay in L1 while all
/// sums that need them are made.
const CHUNKS: usize = 8;
const COLUMNS: usize = LANES * CHUNKS;

/// Rows of the triangle, and where they are.
struct Part<'h> {
    rows: Range<usize>,
    sums: &'h mut [f64],
}

impl Hessian {
    /// The sums for rows of `k` inputs, none of which has been seen.
    ///
    /// # Errors
    /// If there are no inputs, or there is no memory for them.
    pub(crate) fn new(k: usize) -> Result<Self, AccuracyError> {
        Ok(Self { k, rows: 0, sums: triangle(k)? })
    }

    /// Inputs.
    pub(crate) fn k(&self) -> usize {
        self.k
    }

    /// Rows that were added.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The sum of the products of inputs `i` and `j`, both below k.
    pub(crate) fn entry(&self, i: usize, j: usize) -> f64 {
        let (row, col) = (i.max(j), i.min(j));
        self.sums[row_start(row) + col]
    }

    /// The sums of squares of all inputs.
    pub(crate) fn diagonal(&self) -> impl Iterator<Item = f64> {
        (0..self.k).map(|i| self.sums[row_start(i) + i])
    }

    /// The first entry that is not finite.
    pub(crate) fn first_non_finite(&self) -> Option<(usize, usize)> {
        let row = |i: usize| &self.sums[row_start(i)..=row_start(i) + i];
        (0..self.k).find_map(|i| Some((i, row(i).iter().position(|sum| !sum.is_finite())?)))
    }

    /// Adds the products of `rows`, row-major. Values that are not finite are added as they are,
    /// and found where the sums are used.
    ///
    /// # Errors
    /// If the last row is not complete.
    pub(crate) fn add(&mut self, rows: &[f32], threads: Threads<'_>) -> Result<(), AccuracyError> {
        let k = self.k;
        if !rows.len().is_multiple_of(k) {
            return Err(AccuracyError::Rows { k, len: rows.len() });
        }
        let mut parts = Vec::new();
        let (mut start, mut rest) = (0, &mut self.sums[..]);
        // Several for each thread, so that none waits for long; a single thread needs no parts.
        let count = match thread_count(threads) {
            1 => 1,
            threads => 4 * threads,
        };
        for end in equal_parts(k, count) {
            let (sums, others) = rest.split_at_mut(row_start(end) - row_start(start));
            parts.push(Part { rows: start..end, sums });
            (start, rest) = (end, others);
        }
        map_parts(threads, parts, &|part: Part<'_>| {
            part.add(rows, k);
            Ok::<(), AccuracyError>(())
        })?;
        self.rows = self.rows.saturating_add(rows.len() / k);
        Ok(())
    }
}

impl Part<'_> {
    /// Adds the products that belong to these sums.
    fn add(self, rows: &[f32], k: usize) {
        let first = row_start(self.rows.start);
        for block in rows.chunks(ROWS * k) {
            let count = block.len() / k;
            for start in (0..self.rows.end).step_by(COLUMNS) {
                let mut tile = [[[0.0; LANES]; ROWS]; CHUNKS];
                for (r, row) in block.chunks_exact(k).enumerate() {
                    for (j, &x) in row[start..].iter().take(COLUMNS).enumerate() {
                        tile[j / LANES][r][j % LANES] = f64::from(x);
                    }
                }
                for i in self.rows.start.max(start)..self.rows.end {
                    let mut factors = [0.0; ROWS];
                    for (factor, row) in factors.iter_mut().zip(block.chunks_exact(k)) {
                        *factor = f64::from(row[i]);
                    }
                    let row = row_start(i) - first;
                    let sums = &mut self.sums[row + start..=row + i];
                    let width = sums.len().min(COLUMNS);
                    add_rows(&mut sums[..width], &factors[..count], &tile);
                }
            }
        }
    }
}

/// Adds to the sums, chunk by chunk, each row's factor times its values, row after row.
fn add_rows(sums: &mut [f64], factors: &[f64], tile: &[[Lanes; ROWS]; CHUNKS]) {
    let added = |mut sums: Lanes, rows: &[Lanes; ROWS]| {
        for (row, &factor) in factors.iter().enumerate() {
            add_scaled(&mut sums, factor, &rows[row]);
        }
        sums
    };
    let (whole, rest) = sums.as_chunks_mut::<LANES>();
    let last = whole.len();
    for (chunk, sums) in whole.iter_mut().enumerate() {
        *sums = added(*sums, &tile[chunk]);
    }
    if !rest.is_empty() {
        let mut sums = [0.0; LANES];
        sums[..rest.len()].copy_from_slice(rest);
        rest.copy_from_slice(&added(sums, &tile[last])[..rest.len()]);
    }
}

/// Where row `i` of a triangle begins.
pub(super) fn row_start(i: usize) -> usize {
    i * (i + 1) / 2
}

/// A lower triangle of zeros.
pub(super) fn triangle(k: usize) -> Result<Vec<f64>, AccuracyError> {
    if k == 0 {
        return Err(AccuracyError::Empty { n: 1, k });
    }
    let len = k.checked_add(1).and_then(|next| k.checked_mul(next)).ok_or(AccuracyError::Memory { k })? / 2;
    let mut sums = Vec::new();
    sums.try_reserve_exact(len).map_err(|_| AccuracyError::Memory { k })?;
    sums.resize(len, 0.0);
    Ok(sums)
}

/// The ends of at most `count` parts of a triangle's rows that have about as many entries.
fn equal_parts(k: usize, count: usize) -> Vec<usize> {
    let end = |part: usize| (k as f64 * (part as f64 / count as f64).sqrt()).round() as usize;
    let mut ends: Vec<usize> = (1..count).map(end).filter(|&end| 0 < end && end < k).collect();
    ends.dedup();
    ends.push(k);
    ends
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;

    #[test]
    fn sums_are_those_of_the_definition_whatever_threads_and_calls() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let mut random = Random::new(1);
        for (rows, k) in [(1, 1), (16, 8), (17, 9), (5, 64), (33, 65), (40, 150), (0, 3)] {
            let x = random.values(rows * k);
            let mut serial = Hessian::new(k).unwrap();
            serial.add(&x, Threads::Serial).unwrap();
            assert_eq!((serial.k(), serial.rows()), (k, rows));
            let mut in_calls = Hessian::new(k).unwrap();
            for some in x.chunks(3 * k) {
                in_calls.add(some, Threads::Pool(&pool)).unwrap();
            }
            for i in 0..k {
                for j in 0..k {
                    let products = x.chunks_exact(k).map(|row| f64::from(row[i]) * f64::from(row[j]));
                    // Written as a loop: `sum` begins with -0.
                    let sum = products.fold(0.0, |sum, product| sum + product);
                    assert_eq!(serial.entry(i, j), sum);
                    assert_eq!(in_calls.entry(j, i).to_bits(), sum.to_bits());
                }
            }
            assert!(serial.diagonal().eq((0..k).map(|i| serial.entry(i, i))));
        }
    }

    #[test]
    fn what_is_no_row_or_has_no_memory_is_an_error() {
        let mut hessian = Hessian::new(2).unwrap();
        let rows = AccuracyError::Rows { k: 2, len: 3 };
        assert_eq!(hessian.add(&[1.0, 2.0, 3.0], Threads::Serial), Err(rows));
        assert_eq!((hessian.rows(), hessian.first_non_finite()), (0, None));
        hessian.add(&[1.0, f32::INFINITY], Threads::Serial).unwrap();
        assert_eq!(hessian.first_non_finite(), Some((1, 0)));
        assert_eq!(Hessian::new(0).err(), Some(AccuracyError::Empty { n: 1, k: 0 }));
        for k in [usize::MAX, 1 << 40] {
            assert_eq!(Hessian::new(k).err(), Some(AccuracyError::Memory { k }));
        }
    }

    #[test]
    fn parts_cover_every_row_once() {
        for k in [1, 2, 5, 100, 1536] {
            for count in [1, 2, 8, 64] {
                let ends = equal_parts(k, count);
                assert!(ends.is_sorted_by(|a, b| a < b) && ends[0] > 0 && ends.last() == Some(&k));
            }
        }
    }
}
