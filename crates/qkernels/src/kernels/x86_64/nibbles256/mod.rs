//! 4-bit weights on AVX2. `vpmaddubsw` multiplies codes of 0 to 15 by activations of i8: two
//! products are at most 2 * 15 * 128 = 3,840 in magnitude, which cannot saturate, and eight such
//! pairs, 30,720, fit 16 bits. So 32 k are summed in words before one `vpmaddwd` widens them.
//!
//! The tile is 6 rows by 2 vectors: 12 accumulators, 2 vectors of codes, the broadcast of `a` and
//! one product fill the 16 registers. The sums of longer groups wait in L1, as do the results.

mod one_row;
pub(super) mod part_sums;
mod parts;
mod plain;
mod words;

use super::float256;
use crate::kernel::desc::NibbleBody;

pub(super) const BODY: NibbleBody =
    NibbleBody { rows: 6, run: plain::run, parts: Some(parts::BODY), float: Some(float256::QUADS) };
