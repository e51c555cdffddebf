//! stand-in
use crate::kernel::panel_order::{WINDOW, WindowKind};
use crate::weights::reorder::WindowWeights;
pub(crate) const WORTHWHILE: f32 = 0.97;
pub(crate) fn time(kind: WindowKind) -> f32 {
    match kind {
        WindowKind::Quads => 2.45,
        WindowKind::QuadsAndPairs => 2.9,
        WindowKind::Pairs => 3.0,
        WindowKind::Words => 3.3,
    }
}
pub(crate) struct WindowOrder {
    pub(crate) kind: WindowKind,
    pub(crate) ks: [u8; WINDOW],
    pub(crate) flips: u16,
}
/// depth first
#[inline(always)]
pub(crate) fn search(weights: &WindowWeights, largest: u8, tests: usize) -> WindowOrder {
    let cap = 32767 / u32::from(largest.max(1));
    let mut by: [usize; 16] = core::array::from_fn(|i| i);
    let size = |k: usize| weights[k].iter().map(|w| u32::from(w.unsigned_abs()).pow(2)).sum::<u32>();
    by.sort_by_key(|&k| core::cmp::Reverse(size(k)));
    let mut parts = [[[0u8; 16]; 2]; 16];
    for k in 0..16 {
        for j in 0..16 {
            let w = weights[k][j];
            parts[k][0][j] = w.max(0) as u8;
            parts[k][1][j] = w.min(0).unsigned_abs();
        }
    }
    let flippable: [bool; 16] = core::array::from_fn(|k| largest == 255 && !weights[k].contains(&-128));
    for (kind, caps) in [
        (WindowKind::Quads, &[4usize, 4, 4, 4][..]),
        (WindowKind::QuadsAndPairs, &[4, 4, 2, 2, 2, 2]),
        (WindowKind::Pairs, &[2; 8]),
    ] {
        let mut words = [[[0u8; 16]; 2]; 8];
        let mut counts = [0usize; 8];
        let mut put = [(0usize, false); 16];
        let mut budget = tests;
        if go(
            0,
            &by,
            &parts,
            &flippable,
            caps,
            &mut words,
            &mut counts,
            &mut put,
            cap.min(255) as u8,
            &mut budget,
        ) {
            let mut ks = [0u8; 16];
            let mut flips = 0u16;
            let mut at = [0usize; 8];
            for (pos, &k) in by.iter().enumerate() {
                let (word, flip) = put[pos];
                if flip {
                    flips |= 1 << k;
                }
                let n = at[word];
                at[word] += 1;
                let slot = match kind {
                    WindowKind::Quads => [0, 2, 8, 10][word] + n % 2 + n / 2 * 4,
                    WindowKind::QuadsAndPairs => {
                        if word < 2 {
                            [0, 2][word] + n % 2 + n / 2 * 4
                        } else {
                            8 + (word - 2) * 2 + n
                        }
                    }
                    _ => word * 2 + n,
                };
                ks[slot] = k as u8;
            }
            return WindowOrder { kind, ks, flips };
        }
    }
    WindowOrder { kind: WindowKind::Words, ks: core::array::from_fn(|i| i as u8), flips: 0 }
}
#[allow(clippy::too_many_arguments)]
fn go(
    pos: usize,
    by: &[usize; 16],
    parts: &[[[u8; 16]; 2]; 16],
    flippable: &[bool; 16],
    caps: &[usize],
    words: &mut [[[u8; 16]; 2]; 8],
    counts: &mut [usize; 8],
    put: &mut [(usize, bool); 16],
    cap: u8,
    budget: &mut usize,
) -> bool {
    if pos == 16 {
        return true;
    }
    let k = by[pos];
    let mut options = [(u32::MAX, 0usize, false, [[0u8; 16]; 2]); 16];
    let mut n = 0;
    for word in 0..caps.len() {
        if counts[word] == caps[word] {
            continue;
        }
        if counts[word] == 0 && (0..word).any(|o| counts[o] == 0 && caps[o] == caps[word]) {
            continue;
        }
        for flip in [false, true] {
            if flip && (!flippable[k] || pos == 0) {
                continue;
            }
            if *budget == 0 {
                return false;
            }
            *budget -= 1;
            let mut s = words[word];
            let mut most = 0u8;
            let mut e = 0u32;
            for sign in 0..2 {
                for j in 0..16 {
                    s[sign][j] = s[sign][j].saturating_add(parts[k][sign ^ usize::from(flip)][j]);
                    most = most.max(s[sign][j]);
                    e += u32::from(s[sign][j]).pow(2);
                }
            }
            if most <= cap {
                options[n] = (e, word, flip, s);
                n += 1;
            }
        }
    }
    options[..n].sort_by_key(|o| o.0);
    for o in 0..n {
        let (_, word, flip, s) = options[o];
        let old = words[word];
        words[word] = s;
        counts[word] += 1;
        put[pos] = (word, flip);
        if go(pos + 1, by, parts, flippable, caps, words, counts, put, cap, budget) {
            return true;
        }
        words[word] = old;
        counts[word] -= 1;
    }
    false
}
