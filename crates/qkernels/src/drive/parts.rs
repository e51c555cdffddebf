//! Parts of a product for threads: it is cut by rows and panels, and each part runs the serial loop
//! nest.
//!
//! Every output element is computed by one part, from the same products in the same order, so the
//! result does not depend on the cut.

use core::ops::Range;

use crate::cpu::threads::{Threads, join};
use crate::drive::blocking::Extent;
use crate::kernel::desc::KernelDesc;
use crate::matrix::view::MatMut;
use crate::matrix::workspace::Arena;
use crate::output::target::Target;

/// The rows and panels of a product that one thread computes.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) rows: Range<usize>,
    pub(crate) panels: Range<usize>,
}

impl Part {
    /// Its size in the units of `desc`, of a product of this depth.
    #[inline]
    pub(crate) fn extent(&self, desc: &KernelDesc, k: usize) -> Extent {
        Extent {
            rows: self.rows.len(),
            panels: self.panels.len(),
            groups: desc.groups(k),
            group_bytes: desc.group_bytes(),
            panel_group_bytes: desc.nr * desc.kr,
            mr: desc.mr,
            rows_far: false,
        }
    }
}

/// A product that can be computed in parts. Their results go to parts of an `O`.
pub(crate) trait Divisible<O>: Sync {
    /// Rows and columns of a whole tile.
    fn tile(&self) -> (usize, usize);

    /// Computes `part` into `out`, which holds just its rows and columns.
    fn run(&self, part: &Part, out: &mut O, arena: &mut Arena);
}

/// An output that can be cut.
pub(crate) trait Cut: Sized + Send {
    /// How many columns it has.
    fn columns(&self) -> usize;

    /// The rows before `row`, and the rows from it on; `None` if there are fewer.
    fn split_at_row(self, row: usize) -> Option<(Self, Self)>;

    /// The columns before `column`, and the columns from it on; `None` if there are fewer.
    fn split_at_col(self, column: usize) -> Option<(Self, Self)>;
}

impl<Y: Send> Cut for MatMut<'_, Y> {
    fn columns(&self) -> usize {
        self.cols()
    }

    fn split_at_row(self, row: usize) -> Option<(Self, Self)> {
        self.split_at_row(row)
    }

    fn split_at_col(self, column: usize) -> Option<(Self, Self)> {
        self.split_at_col(column)
    }
}

impl Cut for Target<'_> {
    fn columns(&self) -> usize {
        self.columns()
    }

    fn split_at_row(self, row: usize) -> Option<(Self, Self)> {
        self.split_at_row(row)
    }

    fn split_at_col(self, column: usize) -> Option<(Self, Self)> {
        self.split_at_col(column)
    }
}

/// Computes a whole product of the shape (m, n, k), in as many parts as it is worth.
pub(crate) fn run_whole<O: Cut>(
    product: &impl Divisible<O>,
    (m, n, k): (usize, usize, usize),
    out: O,
    threads: Threads<'_>,
    arenas: &mut Vec<Arena>,
) {
    let parts = threads.parts(m.saturating_mul(n).saturating_mul(k));
    if arenas.len() < parts {
        arenas.resize_with(parts, Arena::default);
    }
    let arenas = &mut arenas[..parts];
    let whole = Part { rows: 0..m, panels: 0..n.div_ceil(product.tile().1) };
    if parts == 1 {
        run(product, whole, out, arenas);
    } else {
        threads.enter(|| run(product, whole, out, arenas));
    }
}

/// Computes `part`, cut into as many parts as there are `arenas`.
pub(crate) fn run<O: Cut>(product: &impl Divisible<O>, part: Part, mut out: O, arenas: &mut [Arena]) {
    match arenas {
        [] => {}
        [arena] => product.run(&part, &mut out, arena),
        _ => {
            let (first_arenas, second_arenas) = arenas.split_at_mut(arenas.len() / 2);
            let (threads, (mr, nr)) = ((first_arenas.len(), second_arenas.len()), product.tile());
            let (first, second, out) = match middle(part.rows.len(), out.columns(), (mr, nr), threads) {
                Middle::Row(row) => {
                    let (first, second) = split(&part.rows, row);
                    (
                        Part { rows: first, ..part.clone() },
                        Part { rows: second, ..part },
                        out.split_at_row(row),
                    )
                }
                Middle::Panel(panel) => {
                    let (first, second) = split(&part.panels, panel);
                    (
                        Part { panels: first, ..part.clone() },
                        Part { panels: second, ..part },
                        out.split_at_col(panel * nr),
                    )
                }
            };
            let Some((first_out, second_out)) = out else { return };
            join(
                || run(product, first, first_out, first_arenas),
                || run(product, second, second_out, second_arenas),
            );
        }
    }
}

/// Where a part is cut in two, counted from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Middle {
    Row(usize),
    Panel(usize),
}

/// How much more work a thread may get from cutting the longer side than from cutting the shorter
/// one. When the longer side is cut, the threads divide its data, and only the shorter side is read
/// by all of them. (At 512^3, 11 panels of 48 columns: two threads are 1.7 times as fast as one by
/// panels, 1.9 by rows. AMD Zen 4.)
const MOST_IMBALANCE: f64 = 1.0 / 32.0;

/// Where to cut `rows` x `columns` for the given threads on each side. It cuts across the longer
/// side, unless the parts are more even across the other one. It cuts between whole tiles and
/// panels, so only the last part of all has a ragged edge.
fn middle(rows: usize, columns: usize, (mr, nr): (usize, usize), threads: (usize, usize)) -> Middle {
    let share = |steps: usize| steps * threads.0 / (threads.0 + threads.1);
    let (tile, panel) = (share(rows.div_ceil(mr)), share(columns.div_ceil(nr)));
    // The work of the busiest thread, as a fraction of all work.
    let most = |first: usize, total: usize| {
        (first as f64 / threads.0 as f64).max((total - first) as f64 / threads.1 as f64) / total as f64
    };
    let (by_rows, by_panels) = (most(tile * mr, rows), most(panel * nr, columns));
    let across_rows = if rows >= columns {
        by_rows <= by_panels * (1.0 + MOST_IMBALANCE)
    } else {
        by_rows * (1.0 + MOST_IMBALANCE) < by_panels
    };
    if across_rows { Middle::Row(tile * mr) } else { Middle::Panel(panel) }
}

/// Splits `range` at `at` elements after its start.
fn split(range: &Range<usize>, at: usize) -> (Range<usize>, Range<usize>) {
    let middle = range.start + at;
    (range.start..middle, middle..range.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_are_even() {
        let middle_of = |rows, columns, threads| middle(rows, columns, (8, 48), threads);
        // This cuts the longer side, between whole tiles and panels.
        assert_eq!(middle_of(528, 512, (1, 1)), Middle::Row(264));
        assert_eq!(middle_of(528, 512, (1, 2)), Middle::Row(176));
        assert_eq!(middle_of(528, 960, (1, 1)), Middle::Panel(10));
        assert_eq!(middle_of(1, 4096, (1, 1)), Middle::Panel(43));
        assert_eq!(middle_of(4096, 10, (1, 1)), Middle::Row(2048));
        // This is a little uneven, which is better than reading all weights twice.
        assert_eq!(middle_of(1024, 4080, (1, 1)), Middle::Panel(42));
        // This cuts the shorter side, because the longer one has few panels or tiles, or a last
        // panel of few columns.
        assert_eq!(middle_of(448, 512, (1, 1)), Middle::Row(224));
        assert_eq!(middle_of(440, 450, (1, 1)), Middle::Row(216));
        assert_eq!(middle_of(128, 144, (1, 1)), Middle::Row(64));
        assert_eq!(middle_of(24, 30, (1, 1)), Middle::Row(8));
        assert_eq!(middle_of(20, 24, (1, 2)), Middle::Row(8));
        assert_eq!(middle_of(200, 192, (1, 1)), Middle::Panel(2));
        assert_eq!(middle_of(7, 144, (1, 1)), Middle::Panel(1));
    }
}
