//! Patterns of names, as a shell has them: `*` for any number of any characters, `?` for one.

/// Whether the whole of `name` is what `pattern` describes.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut i) = (0, 0);
    // Where to go on if what follows the last star does not match: after the star, one character later in the name.
    let mut retry = None;
    loop {
        match (pattern.get(p), name.get(i)) {
            (Some('*'), _) => {
                p += 1;
                retry = Some((p, i));
                continue;
            }
            (Some('?'), Some(_)) => {}
            (Some(wanted), Some(got)) if wanted == got => {}
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
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(matches(pattern, name), expected, "{pattern:?} {name:?}");
        }
    }
}
