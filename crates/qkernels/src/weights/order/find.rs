//! The search for the orders of all windows of a matrix, on any CPU.

use super::k_orders::{BYTES, KOrders};
use super::panel::WindowWeights;
use super::{WindowOrder, products, search};
use crate::cpu::threads::join;
use crate::cpu::vectorize::Task;
use crate::kernel::panel_order::{ORDERED_COLUMNS, WINDOW, WindowKind};
use crate::kernel::token::Kernel;
use crate::matrix::view::MatRef;
use crate::weights::operand::{PackError, Weight, Weights};

impl KOrders {
    /// Searches for the orders of weights (n, k), on the threads and with the effort that they
    /// have. (With [`PackEffort::Fast`](crate::PackEffort::Fast) there is no search. All k stay
    /// where they are then.) What is found depends on the activations that the weights are for
    /// ([`Weights::for_activations`]), but neither on `kernel`, which only makes the search fast,
    /// nor on the threads, nor on zero points, which are not looked at.
    ///
    /// # Errors
    /// [`PackError`] if there is no memory for them.
    pub fn find<'a, W: Weight>(w: impl Into<Weights<'a, W>>, kernel: Kernel) -> Result<Self, PackError> {
        let w = w.into();
        let (n, k) = (w.view.rows(), w.view.cols());
        let mut orders = Self::zeroed(n, k).ok_or(PackError::OutOfMemory { n, k })?;
        let all = Search {
            w: w.view,
            largest: w.largest_byte,
            tests: w.effort.tests(),
            first: 0,
            to: orders.windows_mut(),
        };
        let parts = w.threads.parts(products(n, k));
        w.threads.enter(|| all.find(parts, kernel));
        Ok(orders)
    }
}

/// Consecutive panels of weights, and where their orders go.
struct Search<'t, 'w, W> {
    w: MatRef<'w, W>,
    largest: u8,
    tests: Option<usize>,
    first: usize,
    to: &'t mut [[u8; BYTES]],
}

impl<W: Weight> Search<'_, '_, W> {
    /// Finds the orders on about `parts` threads.
    fn find(self, parts: usize, kernel: Kernel) {
        let windows = self.w.cols().div_ceil(WINDOW).max(1);
        let middle = self.to.len() / windows / 2;
        if parts < 2 || middle == 0 {
            return kernel.vectorize(self);
        }
        let (to, rest) = self.to.split_at_mut(middle * windows);
        let first = Search { to, ..self };
        let second = Search { to: rest, first: self.first + middle, ..self };
        join(|| first.find(parts / 2, kernel), || second.find(parts - parts / 2, kernel));
    }
}

impl<W: Weight> Task for Search<'_, '_, W> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let windows = self.w.cols().div_ceil(WINDOW).max(1);
        for (at, to) in self.to.iter_mut().enumerate() {
            let (panel, window) = (self.first + at / windows, at % windows);
            let WindowOrder { ks, flips, .. } = match self.tests {
                None => WindowOrder::unchanged(WindowKind::Words),
                Some(tests) => search(&weights_of(&self.w, panel, window), self.largest, tests),
            };
            let pairs = ks.as_chunks::<2>().0;
            to.iter_mut().zip(pairs).for_each(|(to, [first, second])| *to = first | second << 4);
            [to[WINDOW / 2], to[WINDOW / 2 + 1]] = flips.to_le_bytes();
        }
    }
}

/// The weights of a window of a panel; zeros where the matrix ends.
#[inline(always)]
fn weights_of<W: Weight>(w: &MatRef<'_, W>, panel: usize, window: usize) -> WindowWeights {
    let mut weights = WindowWeights::default();
    let (first, start) = (panel * ORDERED_COLUMNS, window * WINDOW);
    for j in 0..ORDERED_COLUMNS.min(w.rows().saturating_sub(first)) {
        for (weights, w) in weights.iter_mut().zip(w.row_elements_from(first + j, start)) {
            weights[j] = w.signed();
        }
    }
    weights
}
