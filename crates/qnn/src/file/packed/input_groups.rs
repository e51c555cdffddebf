//! Which group each input is in (`g_idx`): where inputs were sorted by their activations
//! (act-order, `desc_act`), those of a group may be anywhere. They are packed group after group.

/// Why groups of inputs are not the groups that a layer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InputGroupError {
    /// There is no such group.
    #[error("input {input} is in group {group}, which is none of 0..{groups}")]
    Group {
        /// The input.
        input: usize,
        /// Its group.
        group: i128,
        /// How many groups there are.
        groups: usize,
    },
    /// A group has more or fewer inputs than groups have.
    #[error("group {group} has {len} inputs, expected {expected}")]
    Length {
        /// The group.
        group: usize,
        /// Its inputs.
        len: usize,
        /// How many it should have: the length of groups, or what is left of k for the last one.
        expected: usize,
    },
}

/// The order in which inputs are packed so that those of a group lie side by side: by group, and
/// within a group as they are. `None` if that is how they lie. `of_inputs` has the group of each of
/// the `k` inputs; a group has `len` of them, but the last one has what is left of k.
pub(crate) fn input_order(
    of_inputs: impl Iterator<Item = i128>,
    k: usize,
    len: usize,
) -> Result<Option<Vec<u32>>, InputGroupError> {
    let len = len.max(1);
    let groups = k.div_ceil(len);
    let (mut order, mut counts, mut in_place) = (vec![0_u32; k], vec![0_usize; groups], true);
    for (input, group) in of_inputs.enumerate().take(k) {
        let index = usize::try_from(group).ok().filter(|&index| index < groups);
        let Some(index) = index else { return Err(InputGroupError::Group { input, group, groups }) };
        let count = counts[index];
        counts[index] += 1;
        // What is too much is refused below.
        if let Some(place) = order.get_mut(index * len + count).filter(|_| count < len) {
            // Weights with more inputs than u32 counts are refused where they are put in order.
            *place = u32::try_from(input).unwrap_or(u32::MAX);
            in_place &= index * len + count == input;
        }
    }
    let expected = |group: usize| len.min(k - group * len);
    match counts.iter().enumerate().find(|&(group, &count)| count != expected(group)) {
        None => Ok((!in_place).then_some(order)),
        Some((group, &len)) => Err(InputGroupError::Length { group, len, expected: expected(group) }),
    }
}
