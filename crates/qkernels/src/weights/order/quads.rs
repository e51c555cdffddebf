//! The search for words of four k.
//!
//! Depth first, as for any puzzle of this kind: next comes the k that has the fewest places left
//! (of these the largest), and goes to the place where the sums grow least. For each word a mask
//! says which k still fit it, so that a k or a word that nothing fits is seen at once. The search
//! ends with an answer, with the knowledge that there is none, or with the budget.

use super::magnitudes::Magnitudes;
use super::window::{Place, STEP, Window};
use crate::kernel::panel_order::WINDOW;

/// The k of a word.
const SIZE: u8 = 4;

/// What is placed so far, and what may come next.
#[derive(Clone, Copy)]
struct Node<const WORDS: usize> {
    /// The k that fit beside those of each word, with their signs.
    fitting: [u32; WORDS],
    /// How many more k each word takes.
    room: [u8; WORDS],
    /// The k without a place.
    rest: u16,
    /// The k that is placed next, and where it may go: bit `word + 4 * flipped`.
    next: u8,
    options: u8,
}

/// Whether a set has `count` k or more. (Without an instruction that counts bits, which AVX2 does
/// not imply, counting takes several times as long.)
#[inline(always)]
fn holds(ks: u16, count: u8) -> bool {
    let but_one = ks & ks.wrapping_sub(1);
    let but_two = but_one & but_one.wrapping_sub(1);
    let but_three = but_two & but_two.wrapping_sub(1);
    let enough = [true, ks != 0, but_one != 0, but_two != 0, but_three != 0];
    enough.into_iter().rev().fold(0, |bits, enough| bits << 1 | u8::from(enough)) >> count & 1 == 1
}

impl<const WORDS: usize> Node<WORDS> {
    /// Chooses the k that is placed next. `false` if some k has no place, or some word too few k.
    #[inline(always)]
    fn choose(&mut self) -> bool {
        // The k with at least one, two and three places. Of empty words, which are alike, only the
        // first is one.
        let (mut one, mut two, mut three) = (0, 0, 0);
        let mut too_few = false;
        let mut usable = u16::MAX;
        for word in 0..WORDS {
            let kept = self.fitting[word] as u16 & self.rest;
            let flipped = (self.fitting[word] >> WINDOW) as u16 & self.rest;
            too_few |= !holds(kept | flipped, self.room[word]);
            for ks in [kept & usable, flipped & usable] {
                three |= two & ks;
                two |= one & ks;
                one |= ks;
            }
            usable = if self.room[word] == SIZE { 0 } else { usable };
        }
        if too_few || self.rest & !one != 0 {
            return false;
        }
        let fewest =
            [self.rest & !two, self.rest & !three].into_iter().find(|&ks| ks != 0).unwrap_or(self.rest);
        self.next = fewest.trailing_zeros() as u8;
        self.options = 0;
        let mut usable = 0x1_0001;
        for word in 0..WORDS {
            let signs = self.fitting[word] >> self.next & usable;
            self.options |= ((signs | signs >> (WINDOW - 4)) as u8 & 0x11) << word;
            usable = if self.room[word] == SIZE { 0 } else { usable };
        }
        true
    }
}

/// Finds places in `WORDS` words for the k of `rest`, four for each word.
#[inline(always)]
pub(super) fn place<const WORDS: usize>(
    window: &mut Window,
    rest: u16,
    tests: &mut usize,
    places: &mut [Place; WINDOW],
) -> bool {
    let mut first =
        Node { fitting: [u16::MAX.into(); WORDS], room: [SIZE; WORDS], rest, next: 0, options: 0 };
    if !first.choose() {
        return false;
    }
    // The sums of a word by the room that it has left. An empty word's stay 0.
    let mut sums = [[Magnitudes::ZERO; SIZE as usize + 1]; WORDS];
    let mut nodes = [first; WINDOW];
    let mut depth = 0;
    loop {
        let node = &mut nodes[depth];
        if node.options == 0 {
            if depth == 0 {
                return false;
            }
            depth -= 1;
            continue;
        }
        let k = usize::from(node.next) % WINDOW;
        let mut option = node.options.trailing_zeros();
        if node.options & (node.options - 1) != 0 {
            let mut least = u32::MAX;
            let mut options = node.options;
            while options != 0 {
                let at = options.trailing_zeros();
                options &= options - 1;
                let (word, flipped) = (at as usize % 4 % WORDS, at as usize / 4 % 2);
                let room = node.room[word];
                // What fills a word up leaves nothing behind that others must fit.
                let growth = sums[word][usize::from(room)].overlap(&window.magnitudes[WINDOW * flipped + k]);
                least = least.min((growth * u32::from(room - 1)) << 3 | at);
            }
            option = least % 8;
        }
        node.options &= !(1 << option);
        let (word, flipped) = (option as usize % 4 % WORDS, option as usize / 4 % 2);
        places[k] = Place { word: word as u8, flipped: flipped == 1 };

        *tests = tests.saturating_sub(STEP);
        let mut node = *node;
        node.rest &= !(1 << k);
        if node.rest == 0 {
            return true;
        }
        let room = usize::from(node.room[word]) % (SIZE as usize + 1);
        node.room[word] -= 1;
        node.fitting[word] = if node.room[word] == 0 {
            0
        } else {
            let sum = sums[word][room].plus(&window.magnitudes[WINDOW * flipped + k]);
            sums[word][room - 1] = sum;
            if node.room[word] == SIZE - 1 {
                window.partners(k, tests)
            } else {
                let rest = u32::from(node.rest);
                if *tests == 0 {
                    return false;
                }
                window.fitting(&sum, node.fitting[word] & (rest | rest << WINDOW), tests)
            }
        };
        if node.choose() {
            depth += 1;
            nodes[depth % WINDOW] = node;
        }
    }
}
