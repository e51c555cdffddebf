//! Words of four k for windows of small weights, without a search.

use super::magnitudes::Magnitudes;
use super::window::{Place, Window};
use crate::kernel::panel_order::WINDOW;

const WORDS: usize = 4;

/// The k of a word.
const SIZE: u32 = 4;

/// Puts each k, the largest first, where the sums grow least. `false` if one fits nowhere.
#[inline(always)]
pub(super) fn place(window: &Window, tests: &mut usize, places: &mut [Place; WINDOW]) -> bool {
    let mut sums = [Magnitudes::ZERO; WORDS];
    let mut room = [SIZE; WORDS];
    for (k, to) in places.iter_mut().enumerate() {
        // The largest four begin a word each.
        let mut option = k;
        if k >= WORDS {
            let mut least = u32::MAX;
            for option in 0..2 * WORDS {
                let (word, flipped) = (option % WORDS, option / WORDS);
                let more = &window.magnitudes[WINDOW * flipped + k];
                let fits = room[word] != 0
                    && window.signs >> (WINDOW * flipped + k) & 1 == 1
                    && window.fits(&sums[word].plus(more));
                let growth = sums[word].overlap(more) << 3 | option as u32;
                // (Without a branch, which nobody could predict.)
                least = least.min(if fits { growth } else { u32::MAX });
            }
            *tests = tests.saturating_sub(2 * WORDS);
            if least == u32::MAX {
                return false;
            }
            option = least as usize % (2 * WORDS);
        }
        let (word, flipped) = (option % WORDS, option / WORDS);
        sums[word] = sums[word].plus(&window.magnitudes[WINDOW * flipped + k]);
        room[word] -= 1;
        *to = Place { word: word as u8, flipped: flipped == 1 };
    }
    true
}
