//! The formats of weights that are measured.

/// What weights have besides their codes.
pub(crate) struct Format {
    /// As in tables. Without commas, which separate the fields of a record.
    pub(crate) name: &'static str,
    /// Of a code as it is packed.
    pub(crate) bits: usize,
    /// The k that share a scale; longer than any k where there is a scale per channel.
    pub(crate) group_len: usize,
    /// As long as a group, if groups have no parts.
    pub(crate) part_len: usize,
    pub(crate) minimums: bool,
}

impl Format {
    /// Whether the scale of a group is multiplied by an integer for each part of it.
    pub(crate) fn has_parts(&self) -> bool {
        self.part_len < self.group_len
    }

    /// The codes of 0, if codes of 4 bits are those of -8 to 7.
    pub(crate) fn zero_point(&self) -> Option<i8> {
        (self.bits == 4 && !self.minimums).then_some(8)
    }
}

/// What all others are compared with.
pub(crate) const PER_CHANNEL: Format = Format {
    name: "8 bits per channel",
    bits: 8,
    group_len: usize::MAX,
    part_len: usize::MAX,
    minimums: false,
};

/// The usual groups, then the formats of GGUF files that are more than that.
pub(crate) const FORMATS: &[Format] = &[
    Format { name: "8 bits in groups of 128", bits: 8, group_len: 128, part_len: 128, minimums: false },
    Format { name: "8 bits in groups of 32", bits: 8, group_len: 32, part_len: 32, minimums: false },
    Format { name: "4 bits in groups of 128", bits: 4, group_len: 128, part_len: 128, minimums: false },
    Format { name: "4 bits in groups of 32", bits: 4, group_len: 32, part_len: 32, minimums: false },
    Format { name: "Q4_1", bits: 4, group_len: 32, part_len: 32, minimums: true },
    Format { name: "Q4_K", bits: 4, group_len: 256, part_len: 32, minimums: true },
    Format { name: "Q5_1 as 8 bits", bits: 8, group_len: 32, part_len: 32, minimums: true },
    Format { name: "Q5_K as 8 bits", bits: 8, group_len: 256, part_len: 32, minimums: true },
    Format { name: "Q6_K as 8 bits", bits: 8, group_len: 256, part_len: 16, minimums: false },
];
