//! Patterns of names, as in a shell: `*` stands for any characters, `?` for one, and `\` takes away
//! the meaning of the `*`, `?` or `\` after it.

/// A part of a pattern.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Any,
    One,
    Char(char),
}

fn parts(pattern: &str) -> Vec<Part> {
    let mut chars = pattern.chars().peekable();
    let mut parts = Vec::new();
    while let Some(char) = chars.next() {
        parts.push(match char {
            '*' => Part::Any,
            '?' => Part::One,
            '\\' => Part::Char(chars.next_if(|next| is_special(*next)).unwrap_or('\\')),
            char => Part::Char(char),
        });
    }
    parts
}

fn is_special(char: char) -> bool {
    matches!(char, '*' | '?' | '\\')
}

/// The pattern that matches this name and no other.
pub(crate) fn literal(name: &str) -> String {
    let mut pattern = String::with_capacity(name.len());
    for char in name.chars() {
        if is_special(char) {
            pattern.push('\\');
        }
        pattern.push(char);
    }
    pattern
}

/// Whether `pattern` matches the whole of `name`.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (parts(pattern), name.chars().collect::<Vec<_>>());
    let (mut p, mut i) = (0, 0);
    // Where to go on if the part after the last star does not match: after the star, one character
    // later in the name.
    let mut retry = None;
    loop {
        match (pattern.get(p), name.get(i)) {
            (Some(Part::Any), _) => {
                p += 1;
                retry = Some((p, i));
                continue;
            }
            (Some(Part::One), Some(_)) => {}
            (Some(Part::Char(wanted)), Some(got)) if wanted == got => {}
            (None, None) => return true,
            _ => match retry {
                Some((after_star, start)) if start < name.len() => {
                    (p, i) = (after_star, start + 1);
                    retry = Some((after_star, start + 1));
                    continue;
                }
                _ => return false,
            },
        }
        (p, i) = (p + 1, i + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        let cases = [
            ("lm_head", "lm_head", true),
            ("lm_head", "lm_head2", false),
            ("embed*", "embed_tokens", true),
            ("embed*", "embed", true),
            ("embed*", "model.embed", false),
            ("*.q_proj", "model.layers.0.self_attn.q_proj", true),
            ("*.layers.?.*", "model.layers.0.mlp.up", true),
            ("*.layers.?.*", "model.layers.10.mlp.up", false),
            ("*a*b", "xaxbxab", true),
            ("*a*b", "xaxbxabx", false),
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("**", "ab", true),
            ("?", "ä", true),
            ("?", "", false),
            (r"a\*", "a*", true),
            (r"a\*", "ab", false),
            (r"a\?\\", r"a?\", true),
            // Before any other character, the backslash is a character like others.
            (r"a\b", r"a\b", true),
            (r"a\", r"a\", true),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(matches(pattern, name), expected, "{pattern:?} {name:?}");
        }
    }

    #[test]
    fn a_literal_is_the_pattern_of_one_name() {
        for name in ["a*", "a?b", r"\", r"\*", "plain.0", "", "**"] {
            assert!(matches(&literal(name), name), "{name:?}");
            for other in ["ab", "a", "axb", "x", r"\\", "plain.1", "y"] {
                assert!(name == other || !matches(&literal(name), other), "{name:?} {other:?}");
            }
        }
        assert_eq!(literal("plain.0"), "plain.0");
    }
}
