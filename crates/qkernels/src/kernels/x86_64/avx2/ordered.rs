//! AVX2 for panels whose k have an order of their own: `vpmaddubsw` on words that packing proves,
//! window by window, and `vpmaddwd` on the windows that have none.
//!
//! Rows are ordered inside the loop, some windows ahead of the products: what a shuffle stores is
//! read back in pieces, which must wait until the store has left its queue.

use core::arch::x86_64::*;

use bytemuck::must_cast_mut;

use super::super::avx2_madd::{self, broadcast};
use super::super::simd::{
    add_two_groups, load_i8x16_as_i16, load_i8x32, load_u8x16, maddubs_madd_add, prefetch, prefetch_vector,
    shuffle_four_rows, store_u8x16, store_u8x32,
};
use super::super::tile::{self, Blocks, Lines};
use super::super::{store, vec256};
use super::maddubs::{peak_loop, widen_add};
use crate::kernel::desc::{ActivationForm, KernelDesc, PanelKind};
use crate::kernel::panel_order::{FLIP, WINDOW, Window, WindowKind};
use crate::kernel::strip::Strip;
use crate::matrix::view::MatMut;
use crate::output::store::Store;
use crate::output::target::Target;

/// Columns of a vector.
const LANES: usize = vec256::LANES;

/// The weights of a window.
type Weights<const V: usize> = [[[i8; 4 * LANES]; V]; WINDOW / 4];

pub(super) const KERNEL: KernelDesc = KernelDesc {
    name: "avx2_ordered_4x16",
    family: "avx2_ordered",
    mr: 4,
    kr: WINDOW,
    kind: PanelKind::Ordered,
    narrow_groups: 1,
    proven: &[],
    ordered: None,
    form: ActivationForm::U8,
    signed_rows: true,
    run,
    float: None,
    scaled: None,
    nibbles: None,
    peak: peak_loop::<2>(),
    ..avx2_madd::KERNEL
};

#[target_feature(enable = "avx2")]
fn run(strip: &mut Strip<'_, '_>) {
    loop {
        match (strip.next_rows(), strip.columns / LANES) {
            (0, _) => break,
            (1, 1) => row::<1>(strip),
            (2, 1) => body::<2, 1>(strip),
            (3, 1) => body::<3, 1>(strip),
            (_, 1) => body::<4, 1>(strip),
            (1, _) => row::<2>(strip),
            (2, _) => body::<2, 2>(strip),
            (3, _) => body::<3, 2>(strip),
            (_, _) => body::<4, 2>(strip),
        }
    }
}

/// Windows whose rows are in order, in a ring.
const RING: usize = 8;

/// Sets of sums. The eight of a tile of four rows are enough to hide the latency of the products.
const SETS: usize = 1;

/// How many windows ahead of their products rows are ordered.
const AHEAD: usize = 5;

/// The codes of a window, of M rows: bytes, row after row without gaps, or words for windows of
/// that kind.
type Ordered<const M: usize> = [[u8; 2 * WINDOW]; M];

/// Tiles of M rows and V vectors of columns.
#[inline(never)] // as in `tile_body`
#[target_feature(enable = "avx2")]
fn body<const M: usize, const V: usize>(strip: &mut Strip<'_, '_>) {
    let sign = sign_of(strip.a.signed);
    let Lines(ring) = &mut Lines([[[0u8; 2 * WINDOW]; M]; RING]);
    // Where the ring has the tile's first window, and how many of its windows are there already.
    let (mut start, mut there) = (0, 0);
    loop {
        let another = strip.next_rows() == M && strip.rows - strip.done >= 2 * M;
        let Some(mut tile) = strip.next_tile_of(M) else { break };
        let Some((order, windows)) = tile.orders.of(0, tile.groups) else {
            unreachable!("a panel without its order")
        };
        let (b, _) = tile.b.as_chunks::<{ 4 * LANES }>().0.as_chunks::<V>().0.as_chunks::<{ WINDOW / 4 }>();
        let b = &b[..windows.len()];
        let mut partial = tile::first_sums!(vec256, tile, M, V, SETS);
        let offsets = vec256::load_i32s::<V>(&order.offsets);
        for row in &mut partial[0] {
            for v in 0..V {
                row[v] = vec256::add(row[v], offsets[v]);
            }
        }
        if let Some(store) = &mut tile.store {
            let (row, column) = (store.place.origin.0 + tile.first, store.place.origin.1);
            match store.target {
                Target::I32(out) => request_results::<_, M, V>(out, row, column),
                Target::F32(out) => request_results::<_, M, V>(out, row, column),
                _ => {}
            }
        }
        let [quads, mixed, pairs, _] = order.counts;
        let bytes = quads + mixed + pairs;
        let depth = WINDOW * windows.len();
        let rows = Blocks::new(tile.a, tile.a_stride, depth);
        for w in there..AHEAD.min(windows.len()) {
            put_in_order(&mut ring[(start + w) % RING], &rows, sign, &windows[w], w < bytes);
        }
        // The panel's next tile has the same windows, whose first are ordered beside the last of
        // this one: a short tile is over before anything could hide what that takes.
        let next = tile.a.get(M * tile.a_stride..).filter(|_| another && windows.len() >= AHEAD);
        let next = next.map(|a| Blocks::new(a, tile.a_stride, depth));
        let mut w = 0;
        macro_rules! windows {
            ($count:expr, $x:ident, $b:ident, $products:block) => {
                let end = w + $count;
                // While it is sure that there is a window ahead, and of bytes, nothing is asked.
                let sure = end.min(bytes.saturating_sub(AHEAD)).max(w);
                for ($b, ahead) in b[w..sure].iter().zip(&windows[(w + AHEAD).min(windows.len())..]) {
                    put_bytes_in_order(&mut ring[(start + w + AHEAD) % RING], &rows, sign, ahead);
                    let $x = &ring[(start + w) % RING];
                    prefetch_weights::<M, V>($b);
                    $products
                    w += 1;
                }
                while w < end {
                    let (to, ahead) = (&mut ring[(start + w + AHEAD) % RING], w + AHEAD);
                    if let Some(window) = windows.get(ahead) {
                        put_in_order(to, &rows, sign, window, ahead < bytes);
                    } else if let Some(next) = &next {
                        let ahead = ahead - windows.len();
                        put_in_order(to, next, sign, &windows[ahead], ahead < bytes);
                    }
                    let ($x, $b) = (&ring[(start + w) % RING], &b[w]);
                    prefetch_weights::<M, V>($b);
                    $products
                    w += 1;
                }
            };
        }
        windows!(quads, x, b, {
            add_quads::<M, V, 0>(&mut partial[0], x, b);
            add_quads::<M, V, 2>(&mut partial[0], x, b);
        });
        windows!(mixed, x, b, {
            add_quads::<M, V, 0>(&mut partial[0], x, b);
            add_pairs::<M, V>(&mut partial[0], x, b, 2);
            add_pairs::<M, V>(&mut partial[0], x, b, 3);
        });
        windows!(pairs, x, b, {
            for g in 0..WINDOW / 4 {
                add_pairs::<M, V>(&mut partial[0], x, b, g);
            }
        });
        windows!(windows.len() - bytes, x, b, {
            add_words::<M, V>(&mut partial[0], x, b);
        });
        (start, there) = ((start + windows.len()) % RING, if next.is_some() { AHEAD } else { 0 });
        tile::last_sums!(vec256, tile, partial, M, V);
    }
}

/// Requests the lines that a tile's results go to, which lie across two where the caller's matrix
/// begins anywhere. A store that waits for its line holds up those of the ring behind it: results
/// of four bytes beyond L2 took a fifth more time (1024, 1024, 768; AMD Zen 4).
#[inline(always)]
fn request_results<T, const M: usize, const V: usize>(out: &mut MatMut<'_, T>, row: usize, column: usize) {
    for i in 0..M {
        if let Some(results) = out.row_mut(row + i).and_then(|row| row.get(column..)) {
            prefetch(results, 0);
            prefetch(results, V * LANES * size_of::<T>() - 1);
        }
    }
}

/// Tiles of one row and V vectors of columns. The row's codes stay in registers: there is no second
/// row whose products could hide what a ring costs.
#[inline(never)] // as in `tile_body`
#[target_feature(enable = "avx2")]
fn row<const V: usize>(strip: &mut Strip<'_, '_>) {
    const M: usize = 1;
    let sign = load_i8x32(sign_of(strip.a.signed));
    while let Some(mut tile) = strip.next_tile_of(1) {
        let Some((order, windows)) = tile.orders.of(0, tile.groups) else {
            unreachable!("a panel without its order")
        };
        let (b, _) = tile.b.as_chunks::<{ 4 * LANES }>().0.as_chunks::<V>().0.as_chunks::<{ WINDOW / 4 }>();
        let mut partial = tile::first_sums!(vec256, tile, M, V, SETS);
        let offsets = vec256::load_i32s::<V>(&order.offsets);
        for v in 0..V {
            partial[0][0][v] = vec256::add(partial[0][0][v], offsets[v]);
        }
        let mut rest = (windows, b);
        macro_rules! windows {
            ($kind:ident, $window:ident, $b:ident, $products:block) => {
                let (of_kind, others) = rest.0.split_at(order.counts[WindowKind::$kind as usize]);
                let (b, other_b) = rest.1.split_at(of_kind.len());
                rest = (others, other_b);
                for ($window, $b) in of_kind.iter().zip(b) $products
            };
        }
        let acc = &mut partial[0][0];
        let ahead = size_of_val(windows);
        windows!(Quads, window, b, {
            let x = groups(ordered(tile.a, window, ahead, sign));
            add_quads_of_row(acc, &x, b, 0);
            add_quads_of_row(acc, &x, b, 2);
        });
        windows!(QuadsAndPairs, window, b, {
            let x = groups(ordered(tile.a, window, ahead, sign));
            add_quads_of_row(acc, &x, b, 0);
            add_pairs_of_row(acc, &x, b, 2);
            add_pairs_of_row(acc, &x, b, 3);
        });
        windows!(Pairs, window, b, {
            let x = groups(ordered(tile.a, window, ahead, sign));
            for g in 0..WINDOW / 4 {
                add_pairs_of_row(acc, &x, b, g);
            }
        });
        for (window, b) in rest.0.iter().zip(rest.1) {
            add_words_of_row(acc, tile.a, window, sign, b);
        }
        tile::last_sums!(vec256, tile, partial, M, V);
    }
}

/// What makes codes u8: 128 if they are i8.
fn sign_of(signed: bool) -> &'static [i8; 4 * LANES] {
    if signed { &[i8::MIN; 4 * LANES] } else { &[0; 4 * LANES] }
}

/// The codes of a row's window, twice: as u8, in their order.
#[inline]
#[target_feature(enable = "avx2")]
fn ordered(a: &[u8], window: &Window, ahead: usize, sign: __m256i) -> __m256i {
    prefetch(core::slice::from_ref(window), ahead);
    let Some(codes) = a.get(window.first()..).and_then(|a| a.first_chunk()) else { return sign };
    let codes = _mm256_broadcastsi128_si256(load_u8x16(codes));
    let control = _mm256_broadcastsi128_si256(load_u8x16(&window.control));
    let flips = _mm256_cmpgt_epi8(_mm256_setzero_si256(), _mm256_slli_epi16::<1>(control));
    _mm256_xor_si256(_mm256_shuffle_epi8(codes, control), _mm256_xor_si256(flips, sign))
}

/// The four groups of a window, each in all lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn groups(x: __m256i) -> [__m256i; WINDOW / 4] {
    [
        _mm256_shuffle_epi32::<0x00>(x),
        _mm256_shuffle_epi32::<0x55>(x),
        _mm256_shuffle_epi32::<0xaa>(x),
        _mm256_shuffle_epi32::<0xff>(x),
    ]
}

/// Adds the products of groups `g` and `g + 1` of one row, which words of 16 bits hold.
#[inline]
#[target_feature(enable = "avx2")]
fn add_quads_of_row<const V: usize>(acc: &mut [__m256i; V], x: &[__m256i; 4], b: &Weights<V>, g: usize) {
    for v in 0..V {
        let first = _mm256_maddubs_epi16(x[g], load_i8x32(&b[g][v]));
        let second = _mm256_maddubs_epi16(x[g + 1], load_i8x32(&b[g + 1][v]));
        acc[v] = widen_add(acc[v], _mm256_add_epi16(first, second));
    }
}

/// Adds the products of group `g` of one row, two of which words of 16 bits hold.
#[inline]
#[target_feature(enable = "avx2")]
fn add_pairs_of_row<const V: usize>(acc: &mut [__m256i; V], x: &[__m256i; 4], b: &Weights<V>, g: usize) {
    for v in 0..V {
        acc[v] = maddubs_madd_add(acc[v], x[g], &b[g][v], _mm256_set1_epi16(1));
    }
}

/// Adds the products of one row's window as words, as it lies.
#[inline]
#[target_feature(enable = "avx2")]
fn add_words_of_row<const V: usize>(
    acc: &mut [__m256i; V],
    a: &[u8],
    window: &Window,
    sign: __m256i,
    b: &Weights<V>,
) {
    let Some(codes) = a.get(window.first()..).and_then(|a| a.first_chunk()) else { return };
    let codes = _mm256_xor_si256(_mm256_broadcastsi128_si256(load_u8x16(codes)), sign);
    let zero = _mm256_setzero_si256();
    let words = [groups(_mm256_unpacklo_epi8(codes, zero)), groups(_mm256_unpackhi_epi8(codes, zero))];
    for (pair, &x) in words.as_flattened().iter().enumerate() {
        add_pair_of_words(acc, x, b, pair);
    }
}

/// Adds the products of one row's pair `pair` of words.
#[inline]
#[target_feature(enable = "avx2")]
fn add_pair_of_words<const V: usize>(acc: &mut [__m256i; V], x: __m256i, b: &Weights<V>, pair: usize) {
    let weights = b.as_flattened().as_flattened().as_chunks::<{ 2 * LANES }>().0.as_chunks::<V>().0;
    for v in 0..V {
        let products = _mm256_madd_epi16(x, load_i8x16_as_i16(&weights[pair][v]));
        acc[v] = _mm256_add_epi32(acc[v], products);
    }
}

/// Requests the weights of a window some way ahead, if they may come from memory.
#[inline(always)]
fn prefetch_weights<const M: usize, const V: usize>(b: &Weights<V>) {
    if M >= 3 {
        for (at, vector) in b.as_flattened().iter().enumerate() {
            prefetch_vector(vector, at);
        }
    }
}

/// Writes the codes of a window of each row: as bytes in their order, or as words as they lie.
#[inline]
#[target_feature(enable = "avx2")]
fn put_in_order<const M: usize>(
    to: &mut Ordered<M>,
    rows: &Blocks<'_, M, WINDOW>,
    sign: &[i8; 4 * LANES],
    window: &Window,
    bytes: bool,
) {
    if bytes {
        return put_bytes_in_order(to, rows, sign, window);
    }
    let sign = _mm256_castsi256_si128(load_i8x32(sign));
    for (to, codes) in to.iter_mut().zip(rows.at(window.first())) {
        store_u8x32(to, _mm256_cvtepu8_epi16(_mm_xor_si128(load_u8x16(codes), sign)));
    }
}

/// Writes the codes of a window of each row as bytes in their order.
#[inline]
#[target_feature(enable = "avx2")]
fn put_bytes_in_order<const M: usize>(
    to: &mut Ordered<M>,
    rows: &Blocks<'_, M, WINDOW>,
    sign: &[i8; 4 * LANES],
    window: &Window,
) {
    let rows = rows.at(window.first());
    let to: &mut [[u8; WINDOW]] = to.as_flattened_mut().as_chunks_mut().0;
    if let (4, Some(to), Some(rows)) = (M, to.first_chunk_mut(), rows.first_chunk()) {
        return shuffle_four_rows(to, *rows, &window.control, sign);
    }
    let control = _mm256_broadcastsi128_si256(load_u8x16(&window.control));
    let flips = _mm256_cmpgt_epi8(_mm256_setzero_si256(), _mm256_slli_epi16::<1>(control));
    let flips = _mm256_xor_si256(flips, load_i8x32(sign));
    let (pairs, rest) = to[..M].as_chunks_mut::<2>();
    for (i, to) in pairs.iter_mut().enumerate() {
        let codes = _mm256_castsi128_si256(load_u8x16(rows[2 * i]));
        let codes = _mm256_inserti128_si256::<1>(codes, load_u8x16(rows[2 * i + 1]));
        let codes = _mm256_xor_si256(_mm256_shuffle_epi8(codes, control), flips);
        store_u8x32(must_cast_mut(to), codes);
    }
    if let [to] = rest {
        let codes = _mm256_castsi128_si256(load_u8x16(rows[M - 1]));
        let codes = _mm256_xor_si256(_mm256_shuffle_epi8(codes, control), flips);
        store_u8x16(to, _mm256_castsi256_si128(codes));
    }
}

const _: () = assert!(FLIP << 1 == 0x80);

/// The groups of four k of row `i`.
#[inline(always)]
fn groups_of_row<const M: usize>(x: &Ordered<M>, i: usize) -> &[[u8; 4]; WINDOW / 4] {
    &x.as_flattened().as_chunks().0.as_chunks().0[i]
}

/// The same, each in all lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn lanes_of_row<const M: usize>(x: &Ordered<M>, i: usize) -> [__m256i; WINDOW / 4] {
    let [x0, x1, x2, x3] = *groups_of_row(x, i);
    [broadcast(x0), broadcast(x1), broadcast(x2), broadcast(x3)]
}

/// Adds the products of groups `G` and `G + 1`, which words of 16 bits hold, of each row.
#[inline]
#[target_feature(enable = "avx2")]
fn add_quads<const M: usize, const V: usize, const G: usize>(
    acc: &mut [[__m256i; V]; M],
    x: &Ordered<M>,
    b: &Weights<V>,
) {
    let ones = _mm256_set1_epi16(1);
    let two: Option<&mut [[__m256i; 2]; 4]> = acc.as_flattened_mut().as_chunks_mut().0.first_chunk_mut();
    let weights: Option<&[[[i8; 4 * LANES]; 2]; 2]> = b[G..].as_flattened().as_chunks().0.first_chunk();
    let rows: Option<&[[u8; WINDOW]; 4]> = x.as_flattened().as_chunks().0.first_chunk();
    if let (2, Some(acc), Some(weights), Some(rows)) = (V, two, weights, rows) {
        return add_two_groups::<G>(acc, rows, weights, ones);
    }
    for (i, acc) in acc.iter_mut().enumerate() {
        add_quads_of_row(acc, &lanes_of_row(x, i), b, G);
    }
}

/// [`add_pairs_of_row`] for each row.
#[inline]
#[target_feature(enable = "avx2")]
fn add_pairs<const M: usize, const V: usize>(
    acc: &mut [[__m256i; V]; M],
    x: &Ordered<M>,
    b: &Weights<V>,
    g: usize,
) {
    for (i, acc) in acc.iter_mut().enumerate() {
        add_pairs_of_row(acc, &lanes_of_row(x, i), b, g);
    }
}

/// [`add_pair_of_words`] for each pair and row.
#[inline]
#[target_feature(enable = "avx2")]
fn add_words<const M: usize, const V: usize>(acc: &mut [[__m256i; V]; M], x: &Ordered<M>, b: &Weights<V>) {
    for pair in 0..WINDOW / 2 {
        for (acc, x) in acc.iter_mut().zip(x) {
            add_pair_of_words(acc, broadcast(x.as_chunks().0[pair]), b, pair);
        }
    }
}
