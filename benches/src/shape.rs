//! The shapes that are measured.

/// One row of `shapes.txt`: the product of (m, k) activations and (n, k) weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// What such products occur in.
    pub group: &'static str,
    /// Rows of activations.
    pub m: usize,
    /// Output channels.
    pub n: usize,
    /// Depth.
    pub k: usize,
}

impl Shape {
    /// Multiplications and additions, of the shape as it is, without padding.
    pub fn operations(&self) -> f64 {
        2.0 * self.m as f64 * self.n as f64 * self.k as f64
    }

    /// Bytes of the 8-bit operands and of the int32 result, each once: what must be moved at least.
    pub fn bytes(&self) -> f64 {
        (self.m * self.k + self.n * self.k + 4 * self.m * self.n) as f64
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{} {}x{}x{}", self.group, self.m, self.n, self.k))
    }
}

/// The table of shapes.
pub fn shapes() -> Vec<Shape> {
    let rows = include_str!("../shapes.txt").lines().filter(|line| !line.starts_with('#'));
    rows.filter_map(|line| {
        let mut fields = line.split_whitespace();
        let group = fields.next()?;
        let mut number = || fields.next()?.parse().ok();
        Some(Shape { group, m: number()?, n: number()?, k: number()? })
    })
    .collect()
}

/// The shapes of the table that products in groups are measured on.
pub fn grouped_shapes() -> Vec<Shape> {
    shapes_of(&[
        (1, 4096, 4096),
        (1, 11008, 4096),
        (4, 4096, 4096),
        (8, 4096, 4096),
        (32, 4096, 4096),
        (128, 4096, 4096),
        (512, 4096, 4096),
        (128, 768, 768),
    ])
}

/// The shapes of the table that weight-only products are measured on.
pub fn weight_only_shapes() -> Vec<Shape> {
    shapes_of(&[(1, 4096, 4096), (1, 11008, 4096), (4, 4096, 4096), (16, 4096, 4096), (128, 768, 768)])
}

/// The shapes of the table with these m, n and k.
fn shapes_of(sizes: &[(usize, usize, usize)]) -> Vec<Shape> {
    shapes().into_iter().filter(|shape| sizes.contains(&(shape.m, shape.n, shape.k))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_is_a_shape() {
        let rows = include_str!("../shapes.txt").lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(shapes().len(), rows);
        assert!(shapes().contains(&Shape { group: "odd", m: 7, n: 13, k: 17 }));
    }

    #[test]
    fn what_other_benches_measure_is_in_the_table() {
        assert_eq!(grouped_shapes().len(), 8);
        assert_eq!(weight_only_shapes().len(), 5);
    }
}
