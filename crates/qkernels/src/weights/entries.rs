//! What weights have for each group, and for each part of a group, in the order in which kernels
//! read it.

use qcore::first_non_finite;

use crate::kernel::group_floats::{GroupFloats, OwnFloats};
use crate::kernel::token::Kernel;
use crate::output::channels::Largest;
use crate::weights::scales::{GROUP_STEP, ScaleError, WeightScales};

/// The scales, zero points, minimums and parts of all panels. Each list has entries for each panel
/// and each group (or part), those of nr columns; it is empty if there are none.
#[derive(Clone, Debug)]
pub(crate) struct Entries {
    n: usize,
    nr: usize,
    pub(crate) group_len: usize,
    pub(crate) groups: usize,
    /// Consecutive k of a part; of a group, if groups have no parts.
    pub(crate) part_len: usize,
    pub(crate) parts: usize,
    scales: OwnFloats,
    /// Empty also where `common_zero_point` says it all.
    zero_points: Vec<i8>,
    has_zero_points: bool,
    minimums: OwnFloats,
    part_scales: Vec<i8>,
    part_minimums: Vec<i8>,
    /// The zero point that all groups have, if they do; 0 without zero points.
    pub(crate) common_zero_point: Option<i8>,
    pub(crate) largest: LargestEntries,
}

/// The largest magnitudes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LargestEntries {
    pub(crate) scale: f32,
    /// 0 without minimums.
    pub(crate) minimum: f32,
    /// 1 without parts.
    pub(crate) part_scale: u8,
    /// 1 without minimums of parts.
    pub(crate) part_minimum: u8,
}

/// The entries of one panel, for each group or part those of a whole panel's columns. What there is
/// none of is empty.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PanelEntries<'p> {
    pub(crate) scales: GroupFloats<'p>,
    pub(crate) zero_points: &'p [i8],
    pub(crate) minimums: GroupFloats<'p>,
    /// For each part.
    pub(crate) part_scales: &'p [i8],
    /// For each part.
    pub(crate) part_minimums: &'p [i8],
}

impl Entries {
    /// Checks and packs the entries of (n, k) weights for panels of `nr` columns. `of_channels` are
    /// zero points of whole channels, or none. `nibbles` says that codes have 4 bits.
    pub(super) fn new(
        (n, k): (usize, usize),
        (kernel, nr): (Kernel, usize),
        scales: WeightScales<'_>,
        of_channels: &[i8],
        nibbles: bool,
    ) -> Result<Self, ScaleError> {
        let WeightScales { scales, zero_points, group_len, minimums, parts, part_minimums } = scales;
        let per_channel = group_len.is_none();
        let group_len = group_len.unwrap_or(k.max(1));
        if group_len == 0 || (group_len < k && !group_len.is_multiple_of(GROUP_STEP)) {
            return Err(ScaleError::GroupLength { group_len });
        }
        let groups = if per_channel { 1 } else { k.div_ceil(group_len) };
        let check = |operand, groups, len| match n.checked_mul(groups) {
            Some(expected) if expected == len => Ok(()),
            _ => Err(ScaleError::Length { operand, n, groups, len }),
        };
        check("scales", groups, scales.len())?;
        let of_groups: Vec<i8>;
        let zero_points = match zero_points {
            Some(zero_points) => {
                check("zero points", groups, zero_points.len())?;
                zero_points
            }
            None => {
                let of_channel = |&zero_point: &i8| core::iter::repeat_n(zero_point, groups);
                of_groups = of_channels.iter().flat_map(of_channel).collect();
                &of_groups
            }
        };
        if let Some(minimums) = minimums {
            check("minimums", groups, minimums.len())?;
        }
        let (part_len, part_count) = match parts {
            None => (group_len, groups),
            Some((part_len, part_scales)) => {
                // The only group of a channel is as long as need be.
                let divides = group_len >= k || group_len.is_multiple_of(part_len);
                if part_len == 0 || !part_len.is_multiple_of(GROUP_STEP) || !divides {
                    return Err(ScaleError::PartLength { part_len, group_len });
                }
                let count = k.div_ceil(part_len);
                check("scales of parts", count, part_scales.len())?;
                (part_len, count)
            }
        };
        if let Some(of_parts) = part_minimums {
            if parts.is_none() || minimums.is_none() {
                return Err(ScaleError::Parts);
            }
            check("minimums of parts", part_count, of_parts.len())?;
            if let Some(at) = of_parts.iter().position(|&minimum| minimum < 0) {
                let (channel, part) = (at / part_count, at % part_count);
                return Err(ScaleError::PartMinimum { channel, part, minimum: of_parts[at] });
            }
        }
        let minimums = minimums.unwrap_or_default();
        let part_scales = parts.map_or(&[][..], |(_, of_parts)| of_parts);
        let part_minimums = part_minimums.unwrap_or_default();
        let whole = part_count.max(1);
        let group_of_part = |at: usize| (at / whole, at % whole * part_len / group_len);
        let in_groups = (groups, per_channel);
        check_finite("scale", scales, in_groups, part_scales, group_of_part)?;
        check_finite("minimum", minimums, in_groups, part_minimums, group_of_part)?;
        let first = zero_points.first().copied().unwrap_or(0);
        let common_zero_point = zero_points.iter().all(|&of| of == first).then_some(first);
        // Codes of 4 bits lose it as they are expanded, or their sums do.
        let apart = common_zero_point.is_none_or(|common| !nibbles && common != 0);
        let largest_of = |parts: &[i8]| parts.iter().map(|part| part.unsigned_abs()).max().unwrap_or(1);
        Ok(Self {
            n,
            nr,
            group_len,
            groups,
            part_len,
            parts: part_count,
            common_zero_point,
            has_zero_points: !zero_points.is_empty(),
            largest: LargestEntries {
                scale: kernel.vectorize(Largest(scales)),
                minimum: kernel.vectorize(Largest(minimums)),
                part_scale: largest_of(part_scales),
                part_minimum: largest_of(part_minimums),
            },
            scales: OwnFloats::new(panels(scales, n, groups, nr)),
            zero_points: panels(if apart { zero_points } else { &[] }, n, groups, nr),
            minimums: OwnFloats::new(panels(minimums, n, groups, nr)),
            part_scales: panels(part_scales, n, part_count, nr),
            part_minimums: panels(part_minimums, n, part_count, nr),
        })
    }

    /// The entries of panel `p`.
    pub(crate) fn panel(&self, p: usize) -> PanelEntries<'_> {
        fn of<T>(entries: &[T], p: usize, len: usize) -> &[T] {
            entries.get(p * len..(p + 1) * len).unwrap_or_default()
        }
        let (groups, parts) = (self.groups * self.nr, self.parts * self.nr);
        PanelEntries {
            scales: self.scales.view().range(p * groups..(p + 1) * groups),
            zero_points: of(&self.zero_points, p, groups),
            minimums: self.minimums.view().range(p * groups..(p + 1) * groups),
            part_scales: of(&self.part_scales, p, parts),
            part_minimums: of(&self.part_minimums, p, parts),
        }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        let floats = self.scales.bytes() + self.minimums.bytes();
        floats + self.zero_points.len() + self.part_scales.len() + self.part_minimums.len()
    }

    /// Entries of groups of all panels, with their padding.
    pub(super) fn packed_groups(&self) -> usize {
        self.n.next_multiple_of(self.nr) * self.groups
    }

    pub(crate) fn has_zero_points(&self) -> bool {
        self.has_zero_points
    }

    /// Whether panels have some, as opposed to one that all groups have.
    pub(crate) fn has_zero_points_apart(&self) -> bool {
        !self.zero_points.is_empty()
    }

    pub(crate) fn has_minimums(&self) -> bool {
        !self.minimums.view().is_empty()
    }

    pub(crate) fn has_parts(&self) -> bool {
        !self.part_scales.is_empty()
    }

    pub(crate) fn has_part_minimums(&self) -> bool {
        !self.part_minimums.is_empty()
    }

    /// The group that part `part` belongs to.
    pub(crate) fn group_of(&self, part: usize) -> usize {
        part * self.part_len / self.group_len
    }

    /// The parts of group `g`.
    pub(crate) fn parts_of(&self, g: usize) -> core::ops::Range<usize> {
        if !self.has_parts() {
            return g..g + 1;
        }
        let of_group = self.group_len.div_ceil(self.part_len);
        g * of_group..self.parts.min((g + 1) * of_group)
    }

    /// The scales (n, groups), row-major.
    pub(super) fn scales(&self) -> Vec<f32> {
        self.unpacked(|at| self.scales.view().at(at), self.groups)
    }

    /// As [`scales`](Self::scales), if there are any.
    pub(super) fn zero_points(&self) -> Option<Vec<i8>> {
        self.has_zero_points().then(|| {
            let zero_point = |at: usize| self.zero_points.get(at).copied().or(self.common_zero_point);
            self.unpacked(|at| zero_point(at).unwrap_or(0), self.groups)
        })
    }

    /// As [`scales`](Self::scales), if there are any.
    pub(super) fn minimums(&self) -> Option<Vec<f32>> {
        self.has_minimums().then(|| self.unpacked(|at| self.minimums.view().at(at), self.groups))
    }

    /// The scales of parts (n, parts), row-major, if there are any.
    pub(super) fn part_scales(&self) -> Option<Vec<i8>> {
        self.has_parts().then(|| self.unpacked(|at| self.part_scales[at], self.parts))
    }

    /// As [`part_scales`](Self::part_scales).
    pub(super) fn part_minimums(&self) -> Option<Vec<i8>> {
        self.has_part_minimums().then(|| self.unpacked(|at| self.part_minimums[at], self.parts))
    }

    /// The n * groups entries that those of the panels were made from.
    fn unpacked<T>(&self, packed: impl Fn(usize) -> T, groups: usize) -> Vec<T> {
        let nr = self.nr;
        let entry = |at: usize| {
            let (channel, group) = (at / groups, at % groups);
            packed((channel / nr * groups + group) * nr + channel % nr)
        };
        (0..self.n * groups).map(entry).collect()
    }
}

/// An error if one of `values`, or its product with a part's integer, is not finite. Channels have
/// so many groups, or are `per_channel` one without a number.
fn check_finite(
    operand: &'static str,
    values: &[f32],
    (groups, per_channel): (usize, bool),
    of_parts: &[i8],
    group_of_part: impl Fn(usize) -> (usize, usize),
) -> Result<(), ScaleError> {
    let error = |operand, channel, group, value| {
        Err(ScaleError::NotFinite { operand, channel, group: (!per_channel).then_some(group), value })
    };
    if let Some((at, value)) = first_non_finite(values) {
        return error(operand, at / groups, at % groups, value);
    }
    for (at, &of_part) in of_parts.iter().enumerate() {
        let (channel, group) = group_of_part(at);
        let value = values[channel * groups + group] * f32::from(of_part);
        if !value.is_finite() {
            let operand = if operand == "scale" { "scale of a part" } else { "minimum of a part" };
            return error(operand, channel, group, value);
        }
    }
    Ok(())
}

/// The entries (n, groups), panel by panel of nr channels, and group by group within a panel.
/// Channels that do not exist have zeros.
fn panels<T: Copy + Default>(entries: &[T], n: usize, groups: usize, nr: usize) -> Vec<T> {
    if entries.is_empty() {
        // There are no channels, or any number of them without a group.
        return Vec::new();
    }
    let mut packed = vec![T::default(); n.next_multiple_of(nr) * groups];
    for (channel, entries) in entries.chunks(groups).enumerate() {
        let panel = &mut packed[channel / nr * nr * groups..][..nr * groups];
        for (panel, entry) in panel.chunks_exact_mut(nr).zip(entries) {
            panel[channel % nr] = *entry;
        }
    }
    packed
}
