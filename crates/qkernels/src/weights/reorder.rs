//! From panels of pairs of k to panels with an order of k of their own, and back, in place.

use crate::kernel::panel_order::{FLIP, ORDERED_COLUMNS, PanelOrder, WINDOW, Window, WindowKind};
use crate::weights::order::{self, WindowOrder};

/// The weights of a window: for each k, those of all columns. Columns that a panel lacks are zeros.
pub(crate) type WindowWeights = [[i8; ORDERED_COLUMNS]; WINDOW];

/// The weights of window `w` of a panel of pairs.
#[inline(always)]
fn window_of_pairs(panel: &[i8], columns: usize, w: usize) -> WindowWeights {
    let mut weights = WindowWeights::default();
    let pairs = panel[w * WINDOW * columns..][..WINDOW * columns].chunks_exact(2 * columns);
    for (pair, of_columns) in pairs.enumerate() {
        for (j, &[first, second]) in of_columns.as_chunks().0.iter().enumerate() {
            (weights[2 * pair][j], weights[2 * pair + 1][j]) = (first, second);
        }
    }
    weights
}

/// The panel with each window in an order of its own, if that is faster than it is as it lies, in
/// pairs of k. Activations are at most `largest`. `tests` is how long the search for one window may
/// take.
#[inline(always)]
pub(crate) fn in_order(panel: &mut [i8], columns: usize, largest: u8, tests: usize) -> Option<PanelOrder> {
    let count = panel.len() / (WINDOW * columns);
    let mut found: Vec<WindowOrder> = Vec::with_capacity(count);
    for w in 0..count {
        found.push(order::search(&window_of_pairs(panel, columns, w), largest, tests));
    }
    let time: f32 = found.iter().map(|window| order::time(window.kind)).sum();
    if time >= order::time(WindowKind::Words) * order::WORTHWHILE * count as f32 {
        return None;
    }
    let pairs = panel.to_vec();
    let mut order = PanelOrder::default();
    let mut to = panel.chunks_exact_mut(WINDOW * columns);
    for (kind, counted) in WindowKind::ALL.into_iter().zip(0..) {
        for (w, window) in found.iter().enumerate().filter(|(_, window)| window.kind == kind) {
            let Some(to) = to.next() else { break };
            order.counts[counted] += 1;
            let mut control = window.ks;
            for (place, k) in control.iter_mut().zip(window.ks) {
                *place |= if window.flips >> k & 1 == 1 { FLIP } else { 0 };
            }
            order.windows.push(Window { control, first: (w * WINDOW) as u32 });
            if kind == WindowKind::Words {
                to.copy_from_slice(&pairs[w * WINDOW * columns..][..WINDOW * columns]);
                continue;
            }
            let weights = window_of_pairs(&pairs, columns, w);
            for (place, &k) in window.ks.iter().enumerate() {
                let flipped = window.flips >> k & 1 == 1;
                for (j, &weight) in weights[usize::from(k)][..columns].iter().enumerate() {
                    if flipped {
                        order.offsets[j] = order.offsets[j].wrapping_add(255 * i32::from(weight));
                    }
                    to[(place / 4 * columns + j) * 4 + place % 4] =
                        if flipped { weight.wrapping_neg() } else { weight };
                }
            }
        }
    }
    Some(order)
}

/// The reverse of [`in_order`].
pub(crate) fn restore(panel: &mut [i8], columns: usize, order: &PanelOrder) {
    let ordered = panel.to_vec();
    let words = order.windows.len() - order.counts[WindowKind::Words as usize];
    for (w, (window, from)) in order.windows.iter().zip(ordered.chunks_exact(WINDOW * columns)).enumerate() {
        let to = &mut panel[window.first as usize * columns..][..WINDOW * columns];
        if w >= words {
            to.copy_from_slice(from);
            continue;
        }
        for (place, &control) in window.control.iter().enumerate() {
            let k = usize::from(control & !FLIP);
            for j in 0..columns {
                let weight = from[(place / 4 * columns + j) * 4 + place % 4];
                to[(k / 2 * columns + j) * 2 + k % 2] =
                    if control & FLIP != 0 { weight.wrapping_neg() } else { weight };
            }
        }
    }
}

/// The weight of a column for `k`.
pub(crate) fn weight(panel: &[i8], columns: usize, order: &PanelOrder, column: usize, k: usize) -> i8 {
    let words = order.windows.len() - order.counts[WindowKind::Words as usize];
    for (w, (window, from)) in order.windows.iter().zip(panel.chunks_exact(WINDOW * columns)).enumerate() {
        let Some(k) = k.checked_sub(window.first as usize).filter(|&k| k < WINDOW) else { continue };
        if w >= words {
            return from[(k / 2 * columns + column) * 2 + k % 2];
        }
        let Some(place) = window.control.iter().position(|&of_place| usize::from(of_place & !FLIP) == k)
        else {
            break;
        };
        let weight = from[(place / 4 * columns + column) * 4 + place % 4];
        return if window.control[place] & FLIP != 0 { weight.wrapping_neg() } else { weight };
    }
    0
}
