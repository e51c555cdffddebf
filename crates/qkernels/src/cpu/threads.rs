//! Threads by argument.

/// The threads that compute a product.
///
/// A product, packing included, takes less than 64 KiB of the stack of the thread that runs it, and
/// so do its parts on the threads of a pool. In a build without optimization, allow 512 KiB (AVX2
/// takes less than 160). There the output stages and the loops over vectors are one function each,
/// with a stack slot for every value between two steps. (A program's own debug build can have this
/// crate optimized: `[profile.dev.package.qkernels]`, `opt-level = 2`.)
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub enum Threads<'p> {
    /// The calling thread.
    #[default]
    Serial,
    /// The threads of the caller's rayon pool, as many as the work is worth.
    #[cfg(feature = "rayon")]
    Pool(&'p rayon::ThreadPool),
    /// Never constructed. It uses the lifetime where there is no pool to borrow.
    #[doc(hidden)]
    #[cfg(not(feature = "rayon"))]
    Never(core::convert::Infallible, core::marker::PhantomData<&'p ()>),
}

/// The products (m * n * k) that a thread must have to itself before another thread is woken for
/// the rest. Waking and waiting cost 6 to 16 µs (AMD Zen 4, two cores). Two threads took 1.7 times
/// as long as one for 2 million products together, and were 1.2 times as fast for 8 million.
#[cfg(feature = "rayon")]
const PRODUCTS_PER_THREAD: usize = 4 << 20;

impl Threads<'_> {
    /// How many parts to cut a product of `products` = m * n * k into.
    #[cfg_attr(not(feature = "rayon"), expect(unused_variables, reason = "one thread whatever the work"))]
    pub(crate) fn parts(self, products: usize) -> usize {
        match self {
            Threads::Serial => 1,
            #[cfg(feature = "rayon")]
            Threads::Pool(pool) => (products / PRODUCTS_PER_THREAD).clamp(1, pool.current_num_threads()),
            #[cfg(not(feature = "rayon"))]
            Threads::Never(never, _) => match never {},
        }
    }

    /// Runs `work` where its parts can use the threads.
    pub(crate) fn enter<R: Send>(self, work: impl FnOnce() -> R + Send) -> R {
        match self {
            Threads::Serial => work(),
            #[cfg(feature = "rayon")]
            Threads::Pool(pool) => pool.install(work),
            #[cfg(not(feature = "rayon"))]
            Threads::Never(never, _) => match never {},
        }
    }
}

/// Runs both, on two threads of the pool that it is called in.
#[cfg(feature = "rayon")]
pub(crate) fn join(first: impl FnOnce() + Send, second: impl FnOnce() + Send) {
    rayon::join(first, second);
}

#[cfg(not(feature = "rayon"))]
pub(crate) fn join(first: impl FnOnce() + Send, second: impl FnOnce() + Send) {
    first();
    second();
}
