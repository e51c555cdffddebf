//! Where our best kernel stands on each shape, beside the best peer and beside f32.

use crate::{Kind, Record};

/// The best of each kind on one shape.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'r> {
    /// Our fastest kernel.
    pub ours: &'r Record,
    /// The fastest int8 product of another library whose result is exact, if there was one.
    pub peer: Option<&'r Record>,
    /// The f32 product.
    pub float: Option<&'r Record>,
}

impl Standing<'_> {
    /// How many times faster ours is than the best exact peer.
    pub fn over_peer(&self) -> Option<f64> {
        self.peer.map(|peer| self.ours.gops / peer.gops)
    }

    /// How many times faster ours is than the f32 product.
    pub fn over_float(&self) -> Option<f64> {
        self.float.map(|float| self.ours.gops / float.gops)
    }
}

/// The standing of each shape that a kernel of ours was measured on, in the order of the records.
pub fn standings(records: &[Record]) -> Vec<Standing<'_>> {
    let mut shapes: Vec<String> = Vec::new();
    for record in records.iter().filter(|record| record.kind == Kind::Kernel) {
        if !shapes.contains(&record.shape()) {
            shapes.push(record.shape());
        }
    }
    let best = |shape: &str, kind: Kind| {
        let candidates = records.iter().filter(|record| record.kind == kind && record.shape() == shape);
        candidates
            .filter(|record| kind == Kind::Float || record.is_exact())
            .max_by(|x, y| x.gops.total_cmp(&y.gops))
    };
    let standing = |shape: &String| {
        let ours = best(shape, Kind::Kernel)?;
        Some(Standing { ours, peer: best(shape, Kind::Peer), float: best(shape, Kind::Float) })
    };
    shapes.iter().filter_map(standing).collect()
}

/// The geometric mean of what there is; none of nothing.
pub fn geometric_mean(ratios: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (sum, count) = ratios.into_iter().fold((0.0, 0u32), |(sum, count), x| (sum + x.ln(), count + 1));
    (count > 0).then(|| (sum / f64::from(count)).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inexact_peers_do_not_count() {
        let line = |kind, name, gops, verdict| {
            format!("{kind},{name},u8 x i8,odd,7,13,17,{gops},,1,,{verdict}").parse::<Record>().unwrap()
        };
        let records = [
            line("kernel", "slow", 10.0, "exact"),
            line("kernel", "fast", 30.0, "exact"),
            line("peer", "cheating", 90.0, "saturates"),
            line("peer", "honest", 15.0, "exact"),
            line("f32", "gemm", 5.0, ""),
            Record::memory(12.0),
        ];
        let standings = standings(&records);
        assert_eq!(standings.len(), 1);
        assert_eq!(standings[0].ours.contender, "fast");
        assert_eq!(standings[0].over_peer(), Some(2.0));
        assert_eq!(standings[0].over_float(), Some(6.0));
    }

    #[test]
    fn means() {
        assert_eq!(geometric_mean([]), None);
        assert!((geometric_mean([2.0, 8.0]).unwrap() - 4.0).abs() < 1e-12);
    }
}
