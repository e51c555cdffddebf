//! From panels of pairs of k to panels with an order of k of their own, and back, in place.

use std::collections::TryReserveError;

use super::k_orders::KOrders;
use super::window::with_lowest;
use super::{TILE_TIME, WindowOrder, fits, search, time};
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
                let unchanged = WindowOrder::unchanged(WindowKind::Words);
                let Some((ks, flips)) = orders.window(p, w) else { return unchanged };
                given(ks, flips, weights, largest).unwrap_or(unchanged)
            }
        }
    }
}

/// The fastest kind of window that an order suits, if any.
#[inline(always)]
fn given(ks: [u8; WINDOW], flips: u16, weights: &WindowWeights, largest: u8) -> Option<WindowOrder> {
    let mut order = WindowOrder { ks, flips, ..WindowOrder::unchanged(WindowKind::Words) };
    let exact = flips == 0 || (largest == u8::MAX && flips & with_lowest(weights) == 0);
    let places = in_places(weights, &order.control());
    // (A closure would not be compiled for the vectors that the caller has.)
    for kind in WindowKind::ALL {
        if exact && kind != WindowKind::Words && fits(&places, kind, largest) {
            order.kind = kind;
            return Some(order);
        }
    }
    None
}

/// The weights of a window in the order of `control`.
#[inline(always)]
fn in_places(weights: &WindowWeights, control: &[u8; WINDOW]) -> WindowWeights {
    let mut places = WindowWeights::default();
    for (to, control) in places.iter_mut().zip(control) {
        let weights = &weights[usize::from(control & !FLIP) % WINDOW];
        let flip = if control & FLIP == 0 { 0 } else { -1 };
        for (to, &w) in to.iter_mut().zip(weights) {
            *to = (w ^ flip).wrapping_sub(flip);
        }
    }
    places
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
/// less than `most_time` on average, with the time of a tile. Activations are at most `largest`.
/// Writes the windows to `windows`, as many as the panel has.
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
        *found = source.order(p, w, &read::<2>(pairs, columns), largest);
    }
    let time: f32 = found.iter().map(|window| time(window.kind)).sum();
    if time + TILE_TIME >= most_time * windows.len() as f32 {
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
            let weights = read::<2>(pairs, columns);
            write(to, columns, &in_places(&weights, &window.control));
            add_flips(&mut order.offsets, &weights, &window.control);
            proven &= fits(&read::<4>(to, columns), kind, largest);
        }
    }
    // No search has ever found what the proof refuses. But it is the proof that counts.
    if !proven {
        panel.copy_from_slice(pairs);
    }
    proven.then_some(order)
}

/// Adds to `offsets` what the flips of `control` add to sums.
#[inline(always)]
fn add_flips(offsets: &mut [i32; ORDERED_COLUMNS], weights: &WindowWeights, control: &[u8; WINDOW]) {
    for control in control.iter().filter(|control| *control & FLIP != 0) {
        let weights = &weights[usize::from(control & !FLIP) % WINDOW];
        for (offset, &w) in offsets.iter_mut().zip(weights) {
            *offset = offset.wrapping_add(255 * i32::from(w));
        }
    }
}

/// The weights of a window whose `KR` consecutive k, or places, of each column lie side by side.
#[inline(always)]
fn read<const KR: usize>(window: &[i8], columns: usize) -> WindowWeights {
    let mut weights = WindowWeights::default();
    let of_groups = weights.as_chunks_mut::<KR>().0.iter_mut();
    for (group, of_columns) in of_groups.zip(window.chunks_exact(KR * columns)) {
        // Vectors are for all columns. Few panels have fewer.
        if let Some(all) = of_columns.as_chunks::<KR>().0.first_chunk::<ORDERED_COLUMNS>() {
            for (i, of_k) in group.iter_mut().enumerate() {
                for (w, of_column) in of_k.iter_mut().zip(all) {
                    *w = of_column[i];
                }
            }
            continue;
        }
        for (j, of_column) in of_columns.as_chunks::<KR>().0.iter().enumerate() {
            for (of_k, &w) in group.iter_mut().zip(of_column) {
                of_k[j] = w;
            }
        }
    }
    weights
}

/// Writes the weights of the places of a window in groups of four.
#[inline(always)]
fn write(window: &mut [i8], columns: usize, places: &WindowWeights) {
    for (group, of_columns) in places.as_chunks::<4>().0.iter().zip(window.chunks_exact_mut(4 * columns)) {
        let quads = of_columns.as_chunks_mut().0;
        if let Some(all) = quads.first_chunk_mut::<ORDERED_COLUMNS>() {
            for (j, to) in all.iter_mut().enumerate() {
                *to = [group[0][j], group[1][j], group[2][j], group[3][j]];
            }
            continue;
        }
        for (j, to) in quads.iter_mut().enumerate().take(ORDERED_COLUMNS) {
            *to = [group[0][j], group[1][j], group[2][j], group[3][j]];
        }
    }
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
