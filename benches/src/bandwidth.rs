//! How fast one core reads memory: the ceiling of products that are bound by their weights.

use std::hint::black_box;
use std::time::Duration;

use crate::fastest;

/// Bytes that [`read_rate`] walks over: beyond the L3 of any current CPU.
pub const BEYOND_CACHES: usize = 256 << 20;

/// What one step reads of a stream: four cache lines, enough for eight accumulators of 256 bits.
type Block = [u64; 32];

/// GB/s of reading `bytes` of memory on one core: the best over several numbers of parallel
/// streams, as the one stream that a plain loop makes keeps too few lines in flight on most CPUs.
pub fn read_rate(bytes: usize, budget: Duration) -> f64 {
    // Not zeros, which an operating system may map to one page.
    let memory = vec![1u64; bytes / size_of::<u64>()];
    let blocks = memory.as_chunks().0;
    let rates = [
        rate::<1>(blocks, budget / 5),
        rate::<2>(blocks, budget / 5),
        rate::<4>(blocks, budget / 5),
        rate::<8>(blocks, budget / 5),
        rate::<16>(blocks, budget / 5),
    ];
    rates.into_iter().fold(0.0, f64::max)
}

/// GB/s with `STREAMS` streams.
fn rate<const STREAMS: usize>(blocks: &[Block], budget: Duration) -> f64 {
    let each = blocks.len() / STREAMS;
    let streams = std::array::from_fn(|s| &blocks[s * each..(s + 1) * each]);
    let arch = pulp::Arch::new();
    let seconds = fastest(budget, || {
        black_box(arch.dispatch(Read::<STREAMS> { streams: black_box(streams), each }));
    });
    (STREAMS * each * size_of::<Block>()) as f64 / seconds / 1e9
}

/// Reads every block of every stream, in turns.
struct Read<'m, const STREAMS: usize> {
    streams: [&'m [Block]; STREAMS],
    each: usize,
}

impl<const STREAMS: usize> pulp::NullaryFnOnce for Read<'_, STREAMS> {
    type Output = u64;

    // Inlined into pulp's functions with target features, where the compiler vectorizes it with the
    // widest loads.
    #[inline(always)]
    fn call(self) -> u64 {
        let mut acc = [0u64; 32];
        for i in 0..self.each {
            for stream in self.streams {
                for (acc, word) in acc.iter_mut().zip(&stream[i]) {
                    *acc ^= word;
                }
            }
        }
        acc.iter().fold(0, |all, acc| all ^ acc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_of_every_stream_is_read() {
        let mut memory = vec![[0u64; 32]; 12];
        for (i, word) in memory.as_flattened_mut().iter_mut().enumerate() {
            *word = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        let want = memory.as_flattened().iter().fold(0, |all, word| all ^ word);
        let streams = [&memory[..4], &memory[4..8], &memory[8..]];
        assert_eq!(pulp::Arch::new().dispatch(Read { streams, each: 4 }), want);
    }

    #[test]
    fn a_rate_is_a_positive_number() {
        let rate = read_rate(1 << 16, Duration::ZERO);
        assert!(rate.is_finite() && rate > 0.0);
    }
}
