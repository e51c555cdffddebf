//! The triangular factor of a layer's sums of products.

use qkernels::Threads;

use super::error::AccuracyError;
use super::hessian::{Hessian, row_start, triangle};
use super::lanes::{LANES, add_products};
use super::parts::map_parts;

/// `H = R R^T` with R upper triangular, for H = the damped sums of products, with its inputs sorted
/// if that was asked for. It is the lower Cholesky factor of the matrix with rows and columns
/// reversed, itself reversed. The inverse of R is what GPTQ calls the Cholesky factor of the
/// inverse of H, but for a transposition, so nothing has to be inverted.
pub(crate) struct Factor {
    damping: f64,
    /// Column m of R is `R[0][m]` to `R[m][m]`, at `m * (m + 1) / 2`.
    columns: Vec<f64>,
}

impl Factor {
    /// The share of the diagonal's mean that was added to it.
    pub(crate) fn damping(&self) -> f64 {
        self.damping
    }

    /// Column m of R up to its diagonal, which is greater than 0.
    pub(crate) fn column(&self, m: usize) -> &[f64] {
        &self.columns[row_start(m)..=row_start(m) + m]
    }
}

/// The least share that is tried after one that failed.
const LEAST_DAMPING: f64 = 1e-9;
/// The largest share that is tried, unless the caller asks for a larger one.
const MOST_DAMPING: f64 = 1e6;

/// The factor of the sums with `damping` times the mean of the diagonal added to the diagonal.
///
/// Where there is no factor, which is where inputs depend on each other, ten times the damping is
/// tried, and so on. Inputs that were 0 in all rows get 1 on the diagonal instead; all else in
/// their rows and columns is 0, so they depend on no other input, and none depends on them.
///
/// Row and column p of the factor are those of input `order[p]`, for a permutation of 0 to k - 1.
///
/// # Errors
/// If the sums or the damping are not finite, the damping is negative, no damping helps, or there
/// is no memory for the factor.
pub(crate) fn damped(
    hessian: &Hessian,
    order: Option<&[u32]>,
    damping: f64,
    threads: Threads<'_>,
) -> Result<Factor, AccuracyError> {
    if !(damping >= 0.0 && damping.is_finite()) {
        return Err(AccuracyError::Damping { damping });
    }
    if let Some((row, col)) = hessian.first_non_finite() {
        return Err(AccuracyError::NotFinite { row, col });
    }
    let k = hessian.k();
    let mean = hessian.diagonal().sum::<f64>() / k as f64;
    let input = |p: usize| order.map_or(p, |order| order[p] as usize);
    let mut columns = triangle(k)?;
    let mut damping = damping;
    loop {
        for i in 0..k {
            let row = input(k - 1 - i);
            let (of_others, diagonal) = columns[row_start(i)..=row_start(i) + i].split_at_mut(i);
            for (j, entry) in of_others.iter_mut().enumerate() {
                *entry = hessian.entry(row, input(k - 1 - j));
            }
            let square = hessian.entry(row, row);
            diagonal[0] = if square == 0.0 { 1.0 } else { square + damping * mean };
        }
        if factorize(&mut columns, k, threads).is_ok() {
            reverse(&mut columns, k);
            return Ok(Factor { damping, columns });
        }
        let more = (damping * 10.0).max(LEAST_DAMPING);
        if more > MOST_DAMPING {
            return Err(AccuracyError::NotPositive { damping });
        }
        damping = more;
    }
}

/// A pivot that is not greater than 0, or not finite.
#[derive(Debug)]
struct NotPositive;

/// The rows that are made while those above them are read once.
const BLOCK: usize = 64;
/// The rows of a block that a thread takes at a time. Each row above is read from L2 or L3 for the
/// first of them, and from L1 for the others.
const PART: usize = 8;

/// Replaces a lower triangle, row by row, by its factor L, where the matrix is `L L^T`.
///
/// Every entry is one dot product of the beginnings of two rows, in one order of additions, so
/// blocks and threads change no bits.
fn factorize(rows: &mut [f64], k: usize, threads: Threads<'_>) -> Result<(), NotPositive> {
    for start in (0..k).step_by(BLOCK) {
        let end = k.min(start + BLOCK);
        let (above, block) = rows[..row_start(end)].split_at_mut(row_start(start));
        let mut parts: Vec<Vec<&mut [f64]>> = Vec::new();
        let mut rest = &mut block[..];
        for i in start..end {
            let (row, others) = rest.split_at_mut(i + 1);
            rest = others;
            match parts.last_mut().filter(|part| part.len() < PART) {
                Some(part) => part.push(row),
                None => parts.push(vec![row]),
            }
        }
        // A pool has nothing to do before there are rows above.
        let used = if start == 0 { Threads::Serial } else { threads };
        map_parts(used, parts, &|mut part: Vec<&mut [f64]>| {
            for j in 0..start {
                let (of_others, pivot) = above[row_start(j)..=row_start(j) + j].split_at(j);
                for row in &mut part {
                    row[j] = (row[j] - dot(&row[..j], of_others)) / pivot[0];
                }
            }
            Ok(())
        })?;
        for i in start..end {
            let (before, row) = rows[..=row_start(i) + i].split_at_mut(row_start(i));
            for j in start..i {
                let (of_others, pivot) = before[row_start(j)..=row_start(j) + j].split_at(j);
                row[j] = (row[j] - dot(&row[..j], of_others)) / pivot[0];
            }
            let square = row[i] - dot(&row[..i], &row[..i]);
            if !(square > 0.0 && square.is_finite()) {
                return Err(NotPositive);
            }
            row[i] = square.sqrt();
        }
    }
    Ok(())
}

/// The sum of the products, as eight sums of every eighth product each.
fn dot(x: &[f64], y: &[f64]) -> f64 {
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (at, x) in x.iter().enumerate() {
        add_products(&mut sums, x, &y[at]);
    }
    for (lane, x) in x_rest.iter().enumerate() {
        sums[lane] += x * y_rest[lane];
    }
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

/// Makes the rows of L, the factor of the reversed matrix, the columns of R, in place:
/// `R[i][m] = L[k - 1 - i][k - 1 - m]`, so entries change places in pairs.
fn reverse(rows: &mut [f64], k: usize) {
    for m in 0..k {
        for i in 0..=m {
            let (from, to) = (row_start(m) + i, row_start(k - 1 - i) + (k - 1 - m));
            if from < to {
                rows.swap(from, to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;

    fn hessian(rows: &[f32], k: usize) -> Hessian {
        let mut hessian = Hessian::new(k).unwrap();
        hessian.add(rows, Threads::Serial).unwrap();
        hessian
    }

    #[test]
    fn the_factor_times_itself_is_the_damped_matrix() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let mut random = Random::new(2);
        for (rows, k) in [(3, 1), (9, 2), (30, 17), (80, 64), (100, 65), (30, 150), (300, 200)] {
            let mut x = random.correlated_rows(rows, k);
            // The first input is dead.
            x.iter_mut().step_by(k).for_each(|x| *x = 0.0);
            let hessian = hessian(&x, k);
            let mut order: Vec<u32> = (0..k as u32).collect();
            for i in 0..k {
                order.swap(i, random.below(k));
            }
            let mean = hessian.diagonal().sum::<f64>() / k as f64;
            for order in [None, Some(&order[..])] {
                let factor = damped(&hessian, order, 0.01, Threads::Serial).unwrap();
                assert_eq!(factor.damping(), 0.01);
                let threaded = damped(&hessian, order, 0.01, Threads::Pool(&pool)).unwrap();
                assert_eq!(factor.columns, threaded.columns);
                let of = |row: usize, col: usize| factor.column(col).get(row).copied().unwrap_or(0.0);
                let input = |p: usize| order.map_or(p, |order| order[p] as usize);
                for i in 0..k {
                    assert!(of(i, i) > 0.0);
                    for j in 0..k {
                        let product: f64 = (0..k).map(|p| of(i, p) * of(j, p)).sum();
                        let (row, col) = (input(i), input(j));
                        let expected = match (row == col, row) {
                            (true, 0) => 1.0,
                            (true, _) => hessian.entry(row, row) + 0.01 * mean,
                            (false, _) => hessian.entry(row, col),
                        };
                        assert!((product - expected).abs() <= 1e-12 * (rows as f64) * mean.max(1.0));
                    }
                }
            }
        }
    }

    #[test]
    fn damping_is_raised_until_there_is_a_factor() {
        // Equal inputs whose square has an exact root leave a pivot of 0.
        let twins = hessian(&[2.0, 2.0], 2);
        let factor = damped(&twins, None, 0.0, Threads::Serial).unwrap();
        assert_eq!(factor.damping(), LEAST_DAMPING);
        // 1e-20 is lost beside 1, and 1e-9 is not.
        assert_eq!(damped(&twins, None, 1e-20, Threads::Serial).unwrap().damping(), LEAST_DAMPING);
        assert_eq!(damped(&twins, None, 0.25, Threads::Serial).unwrap().damping(), 0.25);
        assert_eq!(damped(&twins, None, 1e9, Threads::Serial).unwrap().damping(), 1e9);
        // Fewer rows than inputs.
        let mut random = Random::new(3);
        let flat = hessian(&random.values(5 * 30), 30);
        let factor = damped(&flat, None, 0.0, Threads::Serial).unwrap();
        assert!((0.0..1e-6).contains(&factor.damping()));
        // No input was ever seen.
        let unseen = damped(&Hessian::new(3).unwrap(), None, 0.0, Threads::Serial).unwrap();
        assert_eq!((unseen.damping(), unseen.column(2)), (0.0, &[0.0, 0.0, 1.0][..]));
    }

    #[test]
    fn what_has_no_factor_is_refused() {
        for damping in [-1.0, f64::NAN, f64::INFINITY] {
            let error = damped(&hessian(&[1.0], 1), None, damping, Threads::Serial).err();
            assert!(matches!(error, Some(AccuracyError::Damping { .. })), "{error:?}");
        }
        let infinite = hessian(&[1.0, f32::INFINITY, 1.0], 3);
        let error = damped(&infinite, None, 0.01, Threads::Serial).err();
        assert_eq!(error, Some(AccuracyError::NotFinite { row: 1, col: 0 }));
        for (k, mut rows) in [
            (2, vec![1.0, 2.0, 1.0]),
            (2, vec![1.0, 0.0, -1.0]),
            (1, vec![0.0]),
            (1, vec![f64::NAN]),
            (1, vec![f64::INFINITY]),
        ] {
            assert!(factorize(&mut rows, k, Threads::Serial).is_err());
        }
    }
}
