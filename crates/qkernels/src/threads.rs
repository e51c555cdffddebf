//! Threads by argument: a product is cut into parts of rows and panels, and each part runs the serial loop nest.
//!
//! Every output element is computed by one part from the same products in the same order, so the result does not depend on
//! the cut.

use crate::kernel::KernelDesc;
use crate::nest::Part;
use crate::workspace::Arena;

/// Who computes.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub enum Threads<'p> {
    /// The calling thread.
    #[default]
    Serial,
    /// The threads of a rayon pool of the caller's, as far as the work is worth it.
    #[cfg(feature = "rayon")]
    Pool(&'p rayon::ThreadPool),
    /// Never made; it uses the lifetime where there is no pool to borrow.
    #[doc(hidden)]
    #[cfg(not(feature = "rayon"))]
    Never(core::convert::Infallible, core::marker::PhantomData<&'p ()>),
}

/// Products (m * n * k) that a thread must have to itself before another one is woken for the rest. Waking and waiting
/// cost 13 to 16 µs (AMD Zen 4, two cores): two threads took 1.7 times as long as one for 2 million products together, and
/// were 1.2 times as fast for 8 million.
#[cfg(feature = "rayon")]
const PRODUCTS_PER_THREAD: usize = 4 << 20;

impl Threads<'_> {
    /// Number of parts to cut a product of `products` = m * n * k into.
    #[cfg_attr(not(feature = "rayon"), expect(unused_variables, reason = "one thread whatever the work"))]
    pub(crate) fn parts(self, products: usize) -> usize {
        match self {
            Threads::Serial => 1,
            #[cfg(feature = "rayon")]
            Threads::Pool(pool) => (products / PRODUCTS_PER_THREAD).clamp(1, pool.current_num_threads()),
            #[cfg(not(feature = "rayon"))]
            Threads::Never(never, _) => match never {},
        }
    }

    /// Runs `work` where its parts find the threads.
    pub(crate) fn enter<R: Send>(self, work: impl FnOnce() -> R + Send) -> R {
        match self {
            Threads::Serial => work(),
            #[cfg(feature = "rayon")]
            Threads::Pool(pool) => pool.install(work),
            #[cfg(not(feature = "rayon"))]
            Threads::Never(never, _) => match never {},
        }
    }
}

/// A product that can be computed in parts, whose results go to parts of an `O`.
pub(crate) trait Divisible<O>: Sync {
    /// The kernel that it runs on.
    fn desc(&self) -> &'static KernelDesc;

    /// Computes `part` into `out`, which holds just its rows and columns.
    fn run(&self, part: &Part, out: &mut O, arena: &mut Arena);
}

/// An output that can be cut.
pub(crate) trait Cut: Sized + Send {
    /// The rows before `row` and those from it on; `None` if there are fewer.
    fn split_at_row(self, row: usize) -> Option<(Self, Self)>;

    /// The columns before `column` and those from it on; `None` if there are fewer.
    fn split_at_col(self, column: usize) -> Option<(Self, Self)>;
}

/// Computes `part`, cut into as many parts as there are `arenas`.
pub(crate) fn run<O: Cut>(product: &impl Divisible<O>, part: Part, mut out: O, arenas: &mut [Arena]) {
    let desc = product.desc();
    match arenas {
        [] => {}
        [arena] => product.run(&part, &mut out, arena),
        _ => {
            let (first_arenas, second_arenas) = arenas.split_at_mut(arenas.len() / 2);
            let share =
                |total: usize| total * first_arenas.len() / (first_arenas.len() + second_arenas.len());
            let (first, second, out) = if part.rows.len() >= part.panels.len() * desc.nr {
                // Whole tiles, so that only the last part of all has a ragged edge.
                let rows = share(part.rows.len().div_ceil(desc.mr)) * desc.mr;
                let (first, second) = split(&part.rows, rows);
                (Part { rows: first, ..part.clone() }, Part { rows: second, ..part }, out.split_at_row(rows))
            } else {
                let panels = share(part.panels.len());
                let (first, second) = split(&part.panels, panels);
                let column = panels * desc.nr;
                (
                    Part { panels: first, ..part.clone() },
                    Part { panels: second, ..part },
                    out.split_at_col(column),
                )
            };
            let Some((first_out, second_out)) = out else { return };
            join(
                || run(product, first, first_out, first_arenas),
                || run(product, second, second_out, second_arenas),
            );
        }
    }
}

/// `range` before and from `at` elements after its start.
fn split(range: &core::ops::Range<usize>, at: usize) -> (core::ops::Range<usize>, core::ops::Range<usize>) {
    let middle = range.start + at;
    (range.start..middle, middle..range.end)
}

#[cfg(feature = "rayon")]
fn join(first: impl FnOnce() + Send, second: impl FnOnce() + Send) {
    rayon::join(first, second);
}

#[cfg(not(feature = "rayon"))]
fn join(first: impl FnOnce() + Send, second: impl FnOnce() + Send) {
    first();
    second();
}
