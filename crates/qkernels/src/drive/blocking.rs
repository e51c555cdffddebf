//! How large the blocks of the loop nest are: a pure function of the caches, the kernel and the
//! shape.

use crate::cpu::caches::Caches;

/// Block sizes in the units that the loops step by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocking {
    /// mc: rows of a block. A multiple of mr, unless the block holds all rows.
    pub(crate) rows: usize,
    /// nc: panels of a block, of nr columns each.
    pub(crate) panels: usize,
    /// kc: groups of a block, of kr consecutive k each.
    pub(crate) groups: usize,
}

/// The size of the product, in the same units. Only `groups` may be 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub(crate) rows: usize,
    pub(crate) panels: usize,
    pub(crate) groups: usize,
    /// Bytes that one group takes in a row of `a`.
    pub(crate) group_bytes: usize,
    /// Bytes that one group takes in a panel.
    pub(crate) panel_group_bytes: usize,
    /// mr: most rows of a tile.
    pub(crate) mr: usize,
    /// Whether rows of a block stay in L3, because each block costs more than rows from there.
    pub(crate) rows_far: bool,
}

/// The largest part of a panel that is multiplied between two trips of its sums through memory,
/// whatever the caches. At this size the trips cost less than half a percent.
const MOST_PANEL_BYTES: usize = 256 << 10;

impl Blocking {
    #[inline]
    pub(crate) fn new(caches: &Caches, extent: Extent) -> Self {
        let Extent { rows, panels, groups, group_bytes, panel_group_bytes, mr, rows_far } = extent;
        // A panel is read once per tile of rows. If it exceeds L1 it streams from L2, and the reuse
        // in the tile hides that. Splitting k takes all sums through memory instead. That cost 3 to
        // 6 % at k = 2048 and 4096 wherever it was tried (AMD Zen 4, 8x48 tile, panels of 0.75 and
        // 1.5 times L1). So k is split only to keep the panels of very deep matrices in L2.
        let panel_limit = (caches.l2 / 2).min(MOST_PANEL_BYTES);
        // The rows of a block are read once per panel, from half of L2. (Whole rows, because `a` is
        // copied whole.) The panels of a block are read once per block of rows, from half of L3.
        let (mut rows_limit, panels_limit) = (caches.l2 / 2, caches.l3 / 2);
        if rows_far {
            rows_limit = rows_limit.max(caches.l3 / 4);
        }
        let (row_bytes, panel_bytes) =
            (groups.saturating_mul(group_bytes), groups.saturating_mul(panel_group_bytes));
        if panel_bytes <= panel_limit
            && row_bytes.saturating_mul(rows) <= rows_limit
            && panel_bytes.saturating_mul(panels) <= panels_limit
        {
            // Small products should not pay for divisions.
            return Self { rows, panels, groups };
        }
        Self {
            rows: even_split(rows, (rows_limit / row_bytes.max(1)).max(mr), mr),
            panels: even_split(panels, (panels_limit / panel_bytes.max(1)).max(1), 1),
            groups: even_split(groups, (panel_limit / panel_group_bytes).max(1), 1),
        }
    }
}

/// The block size that cuts `total` evenly into as few blocks as possible. A block is at most
/// `most`, in whole `step`s.
fn even_split(total: usize, most: usize, step: usize) -> usize {
    if total <= most {
        return total;
    }
    let (steps, most) = (total.div_ceil(step), most / step);
    steps.div_ceil(steps.div_ceil(most)) * step
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive::parts::Part;
    use crate::kernels;

    #[test]
    fn blocks_are_even_and_whole() {
        assert_eq!(even_split(100, 1000, 8), 100);
        assert_eq!(even_split(100, 96, 8), 56);
        assert_eq!(even_split(9, 8, 8), 8);
        assert_eq!(even_split(7, 3, 1), 3);
        assert_eq!(even_split(1, 1, 1), 1);
    }

    #[test]
    fn blocks_fit_their_caches() {
        let shapes =
            [(1, 1, 1), (7, 13, 17), (256, 512, 784), (4096, 4096, 4096), (1, 11008, 4096), (9, 9, 600_000)];
        let caches = Caches::TYPICAL;
        for desc in kernels::all() {
            for (m, n, k) in shapes {
                let part = Part { rows: 0..m, panels: 0..usize::div_ceil(n, desc.nr) };
                let extent = part.extent(desc, k);
                let Blocking { rows, panels, groups } = Blocking::new(&caches, extent);
                let context = format!("{} {m} x {n} x {k}", desc.name);
                assert!((1..=m).contains(&rows) && (rows == m || rows % desc.mr == 0), "{context}");
                assert!((1..=extent.panels).contains(&panels), "{context}");
                assert!((1..=extent.groups).contains(&groups), "{context}");
                assert!(
                    rows <= desc.mr || rows * extent.groups * desc.group_bytes() <= caches.l2 / 2,
                    "{context}"
                );
                assert!(groups * desc.nr * desc.kr <= caches.l2 / 2, "{context}");
                assert!(
                    panels == 1 || panels * extent.groups * desc.nr * desc.kr <= caches.l3 / 2,
                    "{context}"
                );
            }
        }
    }

    #[test]
    fn deep_products_are_cut_along_k() {
        for desc in kernels::all() {
            let extent = Part { rows: 0..9, panels: 0..2 }.extent(desc, 600_000);
            assert!(Blocking::new(&Caches::TYPICAL, extent).groups < extent.groups, "{}", desc.name);
        }
    }
}
