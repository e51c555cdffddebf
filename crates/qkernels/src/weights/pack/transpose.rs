//! Transposing blocks of bytes by what vector registers do best: interleaving two of them. And what
//! else packing does with vectors.
//!
//! Number the elements of `V` vectors by the vector and the place in it. Interleaving the first
//! half of all elements with the second moves the first bit of each number to its end. Once that is
//! done `log2(V)` times, the number of the vector stands behind the place: columns have become
//! rows.
//!
//! ```text
//! a0 a1 .. a15      a0 b0 a1 b1 .. a7 b7
//! b0 b1 .. b15      a8 b8 a9 b9 .. a15 b15
//! ```

/// Bytes of a vector, of the size that all CPUs with vectors have.
pub(crate) const BYTES: usize = 16;

/// A vector.
pub(crate) type Bytes = [i8; BYTES];

/// Transposes `V` vectors (a power of two) of elements of `SIZE` bytes. Element e of vector v
/// becomes element `e V + v` of all.
#[inline(always)]
pub(crate) fn transposed<const V: usize, const SIZE: usize>(mut vectors: [Bytes; V]) -> [Bytes; V] {
    for _ in 0..V.ilog2() {
        let mut next = [[0; BYTES]; V];
        for i in 0..V / 2 {
            [next[2 * i], next[2 * i + 1]] = interleaved::<SIZE>(vectors[i], vectors[i + V / 2]);
        }
        vectors = next;
    }
    vectors
}

/// The elements of both vectors by turns.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn interleaved<const SIZE: usize>(a: Bytes, b: Bytes) -> [Bytes; 2] {
    use core::arch::x86_64::*;

    use bytemuck::must_cast as cast;

    /// The compiler makes moves of single bytes of a loop over elements, so these are intrinsics.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn unpacked<const SIZE: usize>(a: __m128i, b: __m128i) -> [__m128i; 2] {
        match SIZE {
            1 => [_mm_unpacklo_epi8(a, b), _mm_unpackhi_epi8(a, b)],
            2 => [_mm_unpacklo_epi16(a, b), _mm_unpackhi_epi16(a, b)],
            4 => [_mm_unpacklo_epi32(a, b), _mm_unpackhi_epi32(a, b)],
            8 => [_mm_unpacklo_epi64(a, b), _mm_unpackhi_epi64(a, b)],
            _ => [a, b],
        }
    }
    // SAFETY: every x86-64 CPU has SSE2.
    let [low, high] = unsafe { unpacked::<SIZE>(cast(a), cast(b)) };
    [cast(low), cast(high)]
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn interleaved<const SIZE: usize>(a: Bytes, b: Bytes) -> [Bytes; 2] {
    let mut both = [[0; BYTES]; 2];
    for at in 0..2 * BYTES {
        let (element, byte) = (at / SIZE, at % SIZE);
        let from = if element % 2 == 0 { &a } else { &b };
        both[at / BYTES][at % BYTES] = from[element / 2 * SIZE + byte];
    }
    both
}

/// The bits of a vector that `mask` has.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn masked(vector: Bytes, mask: Bytes) -> Bytes {
    use core::arch::x86_64::*;

    use bytemuck::must_cast as cast;

    #[inline]
    #[target_feature(enable = "sse2")]
    fn and(a: __m128i, b: __m128i) -> __m128i {
        _mm_and_si128(a, b)
    }
    // SAFETY: every x86-64 CPU has SSE2.
    cast(unsafe { and(cast(vector), cast(mask)) })
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(crate) fn masked(mut vector: Bytes, mask: Bytes) -> Bytes {
    for (byte, mask) in vector.iter_mut().zip(mask) {
        *byte &= mask;
    }
    vector
}

/// The first `N` elements of each of `R` rows that begin `stride` elements apart, the first at the
/// start of `values`. They may reach past the end of a row, into whatever lies behind it; `None` if
/// they reach past that of `values`. All rows are checked at once, since few elements of each are
/// read.
#[inline(always)]
pub(crate) fn row_starts<T, const R: usize, const N: usize>(
    values: &[T],
    stride: usize,
) -> Option<[&[T; N]; R]> {
    let mut starts = [values.first_chunk()?; R];
    if stride.checked_mul(R - 1)?.checked_add(N)? > values.len() {
        return None;
    }
    for (r, row) in starts.iter_mut().enumerate() {
        // SAFETY: r < R, so the slice ends N elements or more behind this start.
        let start = unsafe { values.as_ptr().add(r * stride) };
        // SAFETY: as above, and the result borrows `values`.
        *row = unsafe { &*start.cast() };
    }
    Some(starts)
}

/// Requests the cache line that is `ahead` bytes behind the start of `values`. It need not belong
/// to them.
#[inline(always)]
pub(crate) fn request<T>(values: &[T], ahead: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

        let line = values.as_ptr().cast::<i8>().wrapping_add(ahead);
        // SAFETY: this is a hint. It reads nothing that the program could see and never faults,
        // whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (values, ahead);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares with the definition.
    fn check<const V: usize, const SIZE: usize>() {
        let mut vectors = [[0; BYTES]; V];
        for (number, byte) in vectors.as_flattened_mut().iter_mut().enumerate() {
            *byte = number as u8 as i8;
        }
        let got = transposed::<V, SIZE>(vectors);
        for (v, vector) in vectors.iter().enumerate() {
            for (e, element) in vector.chunks(SIZE).enumerate() {
                let at = (e * V + v) * SIZE;
                assert_eq!(&got.as_flattened()[at..at + SIZE], element, "{V} of {SIZE}, {v}, {e}");
            }
        }
    }

    #[test]
    fn elements_of_each_size_change_places_with_vectors() {
        check::<1, 16>();
        check::<2, 8>();
        check::<4, 4>();
        check::<8, 2>();
        check::<2, 1>();
        check::<4, 1>();
        check::<8, 1>();
        check::<16, 1>();
    }
}
