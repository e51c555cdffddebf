//! From a strip to the bodies compiled for its tiles, for all architectures.

/// `fn run`, compiled for `$features`: runs a strip, its whole tiles by one call of `run_tiles` and
/// the last rows by another.
macro_rules! strip_body {
    ($features:literal) => {
        #[target_feature(enable = $features)]
        fn run(strip: &mut Strip<'_, '_>) {
            while strip.next_rows() > 0 {
                run_tiles(strip);
            }
        }
    };
}
pub(super) use strip_body;

/// Calls the body for the rows of the strip's next tile and `$V` vectors of columns. `$U` groups of
/// k go to separate sums, so small tiles, too, have enough independent sums to hide the latency of
/// the products. `$D` is a constant that some bodies have besides.
macro_rules! bodies {
    ($strip:ident, $V:literal, $($M:literal: $U:literal),*) => {
        match $strip.next_rows() {
            $($M => body::<$M, $V, $U>($strip),)*
            rows => unreachable!("no tile has {rows} rows"),
        }
    };
    ($strip:ident, $V:literal, $D:ident, $($M:literal: $U:literal),*) => {
        match $strip.next_rows() {
            $($M => body::<$M, $V, $U, $D>($strip),)*
            rows => unreachable!("no tile has {rows} rows"),
        }
    };
}
pub(super) use bodies;
