//! How large the blocks of the loop nest are: a pure function of the caches, the tile and the shape.

use crate::kernel::KernelDesc;

/// Data cache sizes of one core, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caches {
    pub(crate) l1: usize,
    pub(crate) l2: usize,
    pub(crate) l3: usize,
}

/// What server and client cores of the last ten years have at least (L3: a core's share).
pub(crate) const TYPICAL: Caches = Caches { l1: 32 << 10, l2: 512 << 10, l3: 2 << 20 };

/// Block sizes in elements: mc is a multiple of mr, nc of nr, kc of kr, all at least 1 and at most one step beyond the
/// shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocking {
    pub(crate) mc: usize,
    pub(crate) nc: usize,
    pub(crate) kc: usize,
}

impl Blocking {
    pub(crate) fn new(caches: &Caches, desc: &KernelDesc, (m, n, k): (usize, usize, usize)) -> Self {
        let KernelDesc { mr, nr, kr, .. } = *desc;
        // A panel of weights is read once per tile of rows: kc keeps it and a tile of `a` within reach of L1. Panels
        // that exceed L1 stream from L2, which the tile's reuse hides, so splitting k pays only far beyond that.
        let kc = even_split(k, 8 * caches.l1 / nr, kr);
        // The rows of a block are read once per panel: mc keeps them, with all of k, in half of L2.
        let row_bytes = k.next_multiple_of(kr) * desc.form.bytes();
        let mc = even_split(m, caches.l2 / 2 / row_bytes.max(1), mr);
        // The panels of a block are read once per block of rows: nc keeps them in half of L3.
        let nc = even_split(n, caches.l3 / 2 / k.max(1), nr);
        Self { mc, nc, kc }
    }
}

/// The size of the blocks when `total` is cut into as few as possible of at most `most`, evenly, in whole `step`s.
fn even_split(total: usize, most: usize, step: usize) -> usize {
    let steps = total.div_ceil(step).max(1);
    let most = (most / step).max(1);
    steps.div_ceil(steps.div_ceil(most)) * step
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels;

    #[test]
    fn blocks_are_even_and_whole() {
        assert_eq!(even_split(100, 1000, 8), 104);
        assert_eq!(even_split(100, 96, 8), 56);
        assert_eq!(even_split(0, 96, 8), 8);
        assert_eq!(even_split(5, 0, 8), 8);
        assert_eq!(even_split(1, 1, 1), 1);
    }

    #[test]
    fn blocks_fit_their_caches() {
        for desc in kernels::all() {
            for shape in [
                (1, 1, 1),
                (7, 13, 17),
                (256, 512, 784),
                (4096, 4096, 4096),
                (1, 11008, 4096),
                (9, 9, 100_000),
            ] {
                let Blocking { mc, nc, kc } = Blocking::new(&TYPICAL, desc, shape);
                assert!(mc > 0 && nc > 0 && kc > 0);
                assert_eq!((mc % desc.mr, nc % desc.nr, kc % desc.kr), (0, 0, 0), "{} {shape:?}", desc.name);
                assert!(
                    mc <= desc.mr || mc * shape.2 * desc.form.bytes() <= TYPICAL.l2 / 2,
                    "{} {shape:?}",
                    desc.name
                );
                assert!(nc <= desc.nr || nc * shape.2 <= TYPICAL.l3 / 2, "{} {shape:?}", desc.name);
            }
        }
    }
}
