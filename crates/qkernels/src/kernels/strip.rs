//! From a strip to its tiles, and from a tile to the body that is compiled for it, for all architectures.

/// `fn run`: a strip, tile after tile, each by `run_tile`, compiled for `$features`.
macro_rules! strip_body {
    ($features:literal) => {
        #[target_feature(enable = $features)]
        fn run(strip: &mut Strip<'_>) {
            while let Some(mut tile) = strip.next_tile() {
                run_tile(&mut tile);
            }
        }
    };
}
pub(super) use strip_body;

/// Calls the body for the tile's rows and `$V` vectors of columns. `$U` groups of k go to sums of their own, so that small
/// tiles, too, have enough independent sums to hide the latency of the products.
macro_rules! bodies {
    ($tile:ident, $V:literal, $($M:literal: $U:literal),*) => {
        match $tile.rows {
            $($M => body::<$M, $V, $U>($tile),)*
            rows => unreachable!("{rows} rows in a tile of at most {}", KERNEL.mr),
        }
    };
}
pub(super) use bodies;
