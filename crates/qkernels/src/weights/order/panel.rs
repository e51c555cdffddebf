//! From panels of pairs of k to panels with an order of k of their own, and back, in place.

use std::collections::TryReserveError;

use super::k_orders::KOrders;
use super::{WindowOrder, fits, search, time};
use crate::kernel::panel_order::{FLIP, ORDERED_COLUMNS, PanelOrder, WINDOW, Window, WindowKind};

/// The weights of a window: for each k or place, those of all columns. Columns that a panel lacks
/// are zeros.
pub(super) type WindowWeights = [[i8; ORDERED_COLUMNS]; WINDOW];

/// Where the orders of windows come from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'t> {
    /// From a search of so many tests for each, see [`search`].
    Search(usize),
    /// From those who found them before.
    Given(&'t KOrders),
}

impl Source<'_> {
    /// The order of window `w` of panel `p`, whose weights are `[k][column]`.
    #[inline(always)]
    fn order(self, p: usize, w: usize, weights: &WindowWeights, largest: u8) -> WindowOrder {
        match self {
            Source::Search(tests) => search(weights, largest, tests),
            Source::Given(orders) => {
                let order = orders.window(p, w).and_then(|(ks, flips)| given(ks, flips, weights, largest));
                order.unwrap_or(WindowOrder::unchanged(WindowKind::Words))
            }
        }
    }
}

/// The fastest kind of window that an order suits, if any.
#[inline(always)]
fn given(ks: [u8; WINDOW], flips: u16, weights: &WindowWeights, largest: u8) -> Option<WindowOrder> {
    let mut places = WindowWeights::default();
    let mut exact = flips == 0 || largest == u8::MAX;
    for (to, k) in places.iter_mut().zip(ks) {
        let weights = &weights[usize::from(k) % WINDOW];
        *to = *weights;
        if flips >> k & 1 == 1 {
            exact &= !weights.contains(&i8::MIN);
            *to = to.map(i8::wrapping_neg);
        }
    }
    let fast = WindowKind::ALL.into_iter().filter(|kind| exact && *kind != WindowKind::Words);
    let mut fast = fast.map(|kind| WindowOrder { kind, ks, flips });
    fast.find(|order| fits(&places, order.kind, largest))
}

/// Memory that all panels use in turn.
#[derive(Debug)]
pub(crate) struct Scratch {
    found: Vec<WindowOrder>,
    pairs: Vec<i8>,
}

impl Scratch {
    /// Memory for panels of `padded_k`.
    pub(crate) fn new(padded_k: usize) -> Result<Self, TryReserveError> {
        let (mut found, mut pairs) = (Vec::new(), Vec::new());
        found.try_reserve_exact(padded_k / WINDOW)?;
        pairs.try_reserve_exact(padded_k.saturating_mul(ORDERED_COLUMNS))?;
        Ok(Self { found, pairs })
    }
}

/// Puts each window of panel `p` in the fastest order that `source` has for it, if they then take
/// less than `most_time` on average. Activations are at most `largest`. Writes the windows to
/// `windows`, as many as the panel has.
#[inline(always)]
pub(crate) fn in_order(
    panel: &mut [i8],
    (p, columns): (usize, usize),
    (source, largest): (Source<'_>, u8),
    most_time: f32,
    windows: &mut [Window],
    Scratch { found, pairs }: &mut Scratch,
) -> Option<PanelOrder> {
    let len = WINDOW * columns;
    found.clear();
    found.extend((0..windows.len()).map(|_| WindowOrder::unchanged(WindowKind::Words)));
    for (w, (found, pairs)) in found.iter_mut().zip(panel.chunks_exact(len)).enumerate() {
        *found = source.order(p, w, &of_pairs(pairs, columns), largest);
    }
    let time: f32 = found.iter().map(|window| time(window.kind)).sum();
    if time >= most_time * windows.len() as f32 {
        return None;
    }
    pairs.clear();
    pairs.extend_from_slice(panel);
    let mut order = PanelOrder::default();
    let mut proven = true;
    let mut to = panel.chunks_exact_mut(len).zip(windows);
    for kind in WindowKind::ALL {
        for (w, found) in found.iter().enumerate().filter(|(_, found)| found.kind == kind) {
            let Some((to, window)) = to.next() else { break };
            let pairs = &pairs[w * len..][..len];
            *window = Window::new(found.control(), w * WINDOW);
            order.counts[kind as usize] += 1;
            if kind == WindowKind::Words {
                to.copy_from_slice(pairs);
                continue;
            }
            write(to, columns, &window.control, &of_pairs(pairs, columns), &mut order.offsets);
            proven &= fits(&of_places(to, columns), kind, largest);
        }
    }
    // No search has ever found what the proof refuses. But it is the proof that counts.
    if !proven {
        panel.copy_from_slice(pairs);
    }
    proven.then_some(order)
}

/// Writes the weights of a window in the order of `control`. Adds to `offsets` what its flips add
/// to sums.
#[inline(always)]
fn write(
    to: &mut [i8],
    columns: usize,
    control: &[u8; WINDOW],
    weights: &WindowWeights,
    offsets: &mut [i32; ORDERED_COLUMNS],
) {
    for (place, &control) in control.iter().enumerate() {
        let weights = &weights[usize::from(control & !FLIP) % WINDOW];
        let quads = to[place / 4 * 4 * columns..].as_chunks_mut::<4>().0;
        if control & FLIP == 0 {
            quads.iter_mut().zip(weights).take(columns).for_each(|(quad, &w)| quad[place % 4] = w);
            continue;
        }
        for ((quad, &w), offset) in quads.iter_mut().zip(weights).zip(offsets.iter_mut()).take(columns) {
            quad[place % 4] = w.wrapping_neg();
            *offset = offset.wrapping_add(255 * i32::from(w));
        }
    }
}

/// The weights of a window of pairs of k.
#[inline(always)]
fn of_pairs(window: &[i8], columns: usize) -> WindowWeights {
    let mut weights = WindowWeights::default();
    for (pair, of_columns) in window.chunks_exact(2 * columns).enumerate().take(WINDOW / 2) {
        for (j, &[first, second]) in of_columns.as_chunks().0.iter().enumerate().take(ORDERED_COLUMNS) {
            (weights[2 * pair][j], weights[2 * pair + 1][j]) = (first, second);
        }
    }
    weights
}

/// The weights of the places of a window in groups of four.
#[inline(always)]
fn of_places(window: &[i8], columns: usize) -> WindowWeights {
    let mut weights = WindowWeights::default();
    for (group, of_columns) in window.chunks_exact(4 * columns).enumerate().take(WINDOW / 4) {
        for (j, quad) in of_columns.as_chunks::<4>().0.iter().enumerate().take(ORDERED_COLUMNS) {
            for (i, &w) in quad.iter().enumerate() {
                weights[4 * group + i][j] = w;
            }
        }
    }
    weights
}

/// The reverse of [`in_order`].
pub(crate) fn restore(panel: &mut [i8], columns: usize, order: &PanelOrder, windows: &[Window]) {
    let (len, ordered) = (WINDOW * columns, panel.to_vec());
    for (w, (window, from)) in windows.iter().zip(ordered.chunks_exact(len)).enumerate() {
        let to = &mut panel[window.first() * columns..][..len];
        if w >= order.words() {
            to.copy_from_slice(from);
            continue;
        }
        for (k, pairs) in to.chunks_exact_mut(2 * columns).enumerate() {
            for (j, pair) in pairs.as_chunks_mut().0.iter_mut().enumerate() {
                *pair = [2 * k, 2 * k + 1].map(|k| in_place(from, columns, &window.control, j, k));
            }
        }
    }
}

/// The weight of a column for `k`.
pub(crate) fn weight(
    panel: &[i8],
    columns: usize,
    (order, windows): (&PanelOrder, &[Window]),
    column: usize,
    k: usize,
) -> i8 {
    let at = windows.iter().position(|window| window.first() / WINDOW == k / WINDOW);
    let (w, k) = (at.unwrap_or_default(), k % WINDOW);
    let window = &panel[w * WINDOW * columns..][..WINDOW * columns];
    if w >= order.words() {
        return window[(k / 2 * columns + column) * 2 + k % 2];
    }
    in_place(window, columns, &windows[w].control, column, k)
}

/// The weight of a column for the k of a window in groups of four.
fn in_place(window: &[i8], columns: usize, control: &[u8; WINDOW], column: usize, k: usize) -> i8 {
    let place = control.iter().position(|&control| usize::from(control & !FLIP) == k).unwrap_or_default();
    let weight = window[(place / 4 * columns + column) * 4 + place % 4];
    if control[place] & FLIP == 0 { weight } else { weight.wrapping_neg() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A panel of pairs, from a formula.
    fn panel(columns: usize, count: usize, w: impl Fn(usize) -> i8) -> Vec<i8> {
        (0..count * WINDOW * columns).map(w).collect()
    }

    fn ordered(panel: &mut [i8], columns: usize, largest: u8) -> Option<(PanelOrder, Vec<Window>)> {
        let count = panel.len() / (WINDOW * columns);
        let mut windows = vec![Window::new([0; WINDOW], 0); count];
        let source = (Source::Search(super::super::TESTS), largest);
        let scratch = &mut Scratch::new(count * WINDOW).unwrap();
        let order = in_order(panel, (0, columns), source, f32::INFINITY, &mut windows, scratch)?;
        Some((order, windows))
    }

    #[test]
    fn a_panel_comes_back_as_it_was_and_each_weight_is_found() {
        for (columns, count) in [(16, 1), (16, 5), (8, 3)] {
            // Small weights, some of both ends, and windows that no order suits.
            let pairs = panel(columns, count, |at| match at % 97 {
                0 => -128,
                1 => 127,
                2 => -127,
                _ if at / (WINDOW * columns) == 2 => [-128, 127, 126, -127][at % 4],
                _ => (at * 7 % 41) as i8 - 20,
            });
            for largest in [255, 254, 127] {
                let mut places = pairs.clone();
                let (order, windows) = ordered(&mut places, columns, largest).unwrap();
                assert_eq!(order.counts.iter().sum::<usize>(), count);
                for (at, &w) in pairs.iter().enumerate() {
                    let (k, j) = (at / (2 * columns) * 2 + at % 2, at / 2 % columns);
                    assert_eq!(weight(&places, columns, (&order, &windows), j, k), w, "{j}, {k}");
                }
                restore(&mut places, columns, &order, &windows);
                assert!(places == pairs, "{columns}, {count}");
            }
        }
    }

    #[test]
    fn a_panel_for_which_it_is_not_worth_while_stays_as_it_is() {
        let pairs = panel(16, 3, |at| (at * 7 % 41) as i8 - 20);
        let mut panel = pairs.clone();
        let mut windows = [Window::new([0; WINDOW], 0); 3];
        let source = (Source::Search(super::super::TESTS), 255);
        let scratch = &mut Scratch::new(3 * WINDOW).unwrap();
        assert!(in_order(&mut panel, (0, 16), source, 0.0, &mut windows, scratch).is_none());
        assert!(panel == pairs);
    }
}
