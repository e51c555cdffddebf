//! The table of kernels: one row each, best first.
//!
//! Selection, the environment override, the conformance tests, the benches and the listing all read
//! [`all`]. A new kernel is a new file and a new row (docs/adding-a-kernel.md).

use crate::kernel::desc::KernelDesc;

#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
mod aarch64;
#[allow(unused, reason = "the portable kernel does without")]
mod lanes;
pub(crate) mod portable;
pub(crate) mod select;
#[allow(unused, reason = "the portable kernel does without")]
mod store;
#[allow(unused, reason = "the portable kernel does without")]
mod strip;
#[cfg(target_arch = "x86_64")]
mod x86_64;

/// The kernels of this architecture, then the one for all architectures.
///
/// As a constant, it would be part of each crate that reads it, and so would generic kernels.
static TABLE: &[&[&KernelDesc]] = &[
    #[cfg(target_arch = "x86_64")]
    x86_64::KERNELS,
    #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
    aarch64::KERNELS,
    &[&portable::KERNEL],
];

/// Every kernel of this architecture, in order of preference, whether this CPU can run it or not.
pub fn all() -> impl Iterator<Item = &'static KernelDesc> {
    TABLE.iter().copied().flatten().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::desc::{ActivationForm, PanelKind};
    use crate::kernel::panel_order::{ORDERED_COLUMNS, WINDOW};
    use crate::weights::proof;

    #[test]
    fn every_row_is_within_the_limits_of_the_code_around_kernels() {
        for desc in all() {
            // Weight-only products read groups of these sizes and no others
            // (`kernel/float_tile.rs`).
            assert!([1, 2, 4, 8, 16].contains(&desc.kr), "{}: kr = {}", desc.name, desc.kr);
            // Wider panels are never proven, which would be slow without notice
            // (`weights/proof.rs`).
            let most = match (desc.proven, desc.ordered) {
                ([], None) => usize::MAX,
                (_, None) => proof::MOST_COLUMNS,
                _ => proof::MOST_COLUMNS.min(ORDERED_COLUMNS),
            };
            assert!(desc.nr <= most, "{}: nr = {}", desc.name, desc.nr);
        }
    }

    #[test]
    fn a_name_is_the_family_and_the_tile() {
        for desc in all() {
            assert_eq!(desc.name, format!("{}_{}x{}", desc.family, desc.mr, desc.nr));
        }
    }

    #[test]
    fn names_are_unique() {
        let names: Vec<_> = all().map(|desc| desc.name).collect();
        for (i, name) in names.iter().enumerate() {
            assert!(!names[..i].contains(name), "{name} twice");
        }
    }

    #[test]
    fn the_vector_level_is_part_of_the_features() {
        for desc in all() {
            for feature in desc.level.features() {
                assert!(desc.features.contains(feature), "{} lacks {feature}", desc.name);
            }
        }
    }

    #[test]
    fn proven_kernels_stand_in_for_the_one_that_names_them() {
        for desc in all() {
            assert_eq!((desc.kind, desc.narrow_groups), (PanelKind::Any, 0), "{}", desc.name);
            for proven in desc.proven {
                assert!(proven.proven.is_empty() && proven.narrow_groups > 0, "{}", proven.name);
                assert_eq!(proven.kind, PanelKind::Proven, "{}", proven.name);
                assert_eq!(proven.name, format!("{}_{}x{}", proven.family, proven.mr, proven.nr));
                // Their panels have the same columns and their tiles the same slots, and one copy
                // of the rows serves them all.
                let shape = |desc: &KernelDesc| (desc.mr, desc.nr, desc.vector_columns);
                assert_eq!(shape(proven), shape(desc), "{}", proven.name);
                let rows = |desc: &KernelDesc| (desc.kr, desc.form, desc.band);
                assert_eq!(rows(proven), rows(desc.proven[0]), "{}", proven.name);
                // A pass over panels of one kind sets up the CPU for the first of their kernels.
                assert!(proven.state.is_none(), "{}", proven.name);
                // A CPU that has the features of `desc` has theirs too.
                assert_eq!((proven.features, proven.level), (desc.features, desc.level), "{}", proven.name);
                // A block of k holds whole sums of each kernel, and a panel whole groups.
                assert_eq!(desc.most_narrow_groups() % proven.narrow_groups, 0, "{}", proven.name);
                assert_eq!(desc.largest_kr() % desc.kr, 0, "{}", desc.name);
            }
        }
    }

    #[test]
    fn ordered_kernels_read_panels_as_packing_orders_them() {
        for (desc, ordered) in all().filter_map(|desc| Some((desc, desc.ordered?))) {
            assert_eq!(ordered.name, format!("{}_{}x{}", ordered.family, ordered.mr, ordered.nr));
            assert!(ordered.proven.is_empty() && ordered.ordered.is_none(), "{}", ordered.name);
            assert!(ordered.narrow_groups > 0 && ordered.state.is_none(), "{}", ordered.name);
            // A group is a window, of a row as it lies.
            assert_eq!((ordered.kind, ordered.kr, ordered.band), (PanelKind::Ordered, WINDOW, 1));
            assert_eq!(ordered.form, ActivationForm::U8, "{}", ordered.name);
            // Windows are made of pairs of k.
            assert_eq!(desc.kr, 2, "{}", desc.name);
            let panels = |desc: &KernelDesc| (desc.nr, desc.vector_columns, desc.features, desc.level);
            assert_eq!(panels(ordered), panels(desc), "{}", ordered.name);
        }
    }

    #[test]
    fn tiles_are_made_of_whole_vectors_and_bands() {
        for desc in all() {
            assert_eq!(desc.nr % desc.vector_columns, 0, "{}", desc.name);
            assert_eq!(desc.mr % desc.band, 0, "{}", desc.name);
        }
    }

    #[test]
    fn groups_and_bands_are_counted_up() {
        for desc in all() {
            assert!(desc.kr.is_power_of_two() && desc.band.is_power_of_two(), "{}", desc.name);
            for len in 0..=65 {
                assert_eq!(desc.groups(len), len.div_ceil(desc.kr), "{} {len}", desc.name);
                assert_eq!(desc.whole_groups(len), len % desc.kr == 0, "{} {len}", desc.name);
                assert_eq!(desc.bands(len), len.div_ceil(desc.band), "{} {len}", desc.name);
            }
        }
    }

    #[test]
    fn no_group_of_a_band_lies_across_two_lines_of_a_cache() {
        for desc in all() {
            assert_eq!(64 % (desc.band * desc.group_bytes()), 0, "{}", desc.name);
        }
    }
}
