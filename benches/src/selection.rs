//! The options that benches share: what of a bench is run.

use std::time::Duration;

use clap::Args;
use qkernels::Kernel;

use crate::{BEYOND_CACHES, Shape, Turns, read_rate};

/// Largest number of operations that a kernel far below the others' speed is given.
const SLOW_KERNEL_LIMIT: f64 = 1e9;

/// Which shapes and kernels are measured, and whether at all.
#[derive(Clone, Debug, Default, Args)]
pub struct Selection {
    /// Only shapes whose group or size contains this, for example `bert`, `1x4096` or
    /// `bert 128x768x768`.
    pub filter: Option<String>,
    /// Only kernels whose name contains this, for example `avx2`.
    #[arg(long, value_name = "NAME")]
    pub kernel: Option<String>,
    /// Run each contender once on small shapes: whether it works, not how fast it is.
    #[arg(long)]
    pub test: bool,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Selection {
    /// Those of the shapes that are asked for. If there are none, the terminal says so: not an
    /// error, as `cargo bench -- FILTER` hands the filter of one bench to all others, too.
    pub fn shapes(&self, all: Vec<Shape>) -> Vec<Shape> {
        let filter = self.filter.as_deref().unwrap_or_default();
        let chosen: Vec<_> = all.into_iter().filter(|shape| shape.to_string().contains(filter)).collect();
        if chosen.is_empty() {
            eprintln!("no shape of this bench contains {filter:?}");
        }
        chosen
    }

    /// The kernels of this CPU that are asked for.
    pub fn kernels(&self) -> impl Iterator<Item = Kernel> {
        let name = self.kernel.as_deref().unwrap_or_default();
        Kernel::available().filter(move |kernel| kernel.name().contains(name))
    }

    /// The shapes that are asked for, each with the kernels to measure on it, of which there is at
    /// least one. Two small shapes stand in for all in tests, the second with several groups of k,
    /// the last of them short, and with ragged columns.
    pub fn cases(&self, all: Vec<Shape>) -> Vec<(Shape, Vec<Kernel>)> {
        let small = [(1, 100, 64), (5, 50, 544)].map(|(m, n, k)| Shape { group: "test", m, n, k });
        let shapes = self.shapes(if self.test { small.to_vec() } else { all });
        let kernels = |shape: &Shape| self.kernels().filter(|kernel| is_in_time(*kernel, shape)).collect();
        let cases = shapes.into_iter().map(|shape| (shape, kernels(&shape)));
        cases.filter(|(_, kernels): &(_, Vec<_>)| !kernels.is_empty()).collect()
    }

    /// The rounds of contenders that take turns.
    pub fn turns(&self) -> Turns {
        Turns::new(self.test)
    }

    /// GB/s at which memory is read.
    pub fn read_rate(&self) -> f64 {
        let (bytes, budget) =
            if self.test { (1 << 16, Duration::ZERO) } else { (BEYOND_CACHES, Duration::from_millis(600)) };
        read_rate(bytes, budget)
    }
}

/// Whether a kernel gets through a shape in seconds.
pub fn is_in_time(kernel: Kernel, shape: &Shape) -> bool {
    !kernel.desc().features.is_empty() || shape.operations() <= SLOW_KERNEL_LIMIT
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{grouped_shapes, shapes};

    #[test]
    fn a_filter_is_a_part_of_a_shape() {
        let count = |filter: &str, all| {
            let selection = Selection { filter: Some(filter.into()), ..Selection::default() };
            selection.shapes(all).len()
        };
        assert_eq!(count("bert 128x768x768", grouped_shapes()), 1);
        assert_eq!(count("mlp", grouped_shapes()), 0);
        assert_eq!(count("mlp", shapes()), 9);
    }

    #[test]
    fn the_slow_kernel_has_the_small_shapes() {
        let selection = Selection { kernel: Some("portable".into()), ..Selection::default() };
        let cases = selection.cases(grouped_shapes());
        assert_eq!(cases.len(), 5);
        assert!(cases.iter().all(|(shape, kernels)| shape.operations() <= 1e9 && kernels.len() == 1));
    }
}
