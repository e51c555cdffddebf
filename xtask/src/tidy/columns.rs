//! Comments are not too wide.

/// The widest a comment line may be.
const MOST_COLUMNS: usize = 100;

/// Where the rule holds.
const FOLDERS: &[&str] = &["crates/", "benches/", "xtask/", "fuzz/"];

/// Finds comment lines that are too wide and could be wrapped.
pub(super) fn check(name: &str, text: &str, findings: &mut Vec<String>) {
    if FOLDERS.iter().any(|folder| name.starts_with(folder)) {
        for line in too_wide(text) {
            findings.push(format!("{name}:{line}: a comment of more than {MOST_COLUMNS} columns"));
        }
    }
}

/// The comment lines that are too wide and could be wrapped. Tables, code blocks, lines with
/// addresses, and lines without a place to break are exempt.
fn too_wide(text: &str) -> Vec<usize> {
    let mut in_code = false;
    let mut found = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let Some(comment) = line.trim_start().strip_prefix("//") else {
            in_code = false;
            continue;
        };
        let words = comment.trim_start_matches(['/', '!']).trim_start();
        let fence = words.starts_with("```");
        let rigid = in_code || fence || words.starts_with('|') || words.contains("://");
        in_code ^= fence;
        let indent = line.chars().count() - words.chars().count();
        let fitting: String = words.chars().take(MOST_COLUMNS.saturating_sub(indent)).collect();
        let wraps = line.chars().count() > MOST_COLUMNS && fitting.contains(' ');
        if wraps && !rigid {
            found.push(i + 1);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_comments_are_found_unless_they_cannot_wrap() {
        let long = "word ".repeat(20);
        assert_eq!(too_wide(&format!("    // {long}")), [1]);
        assert_eq!(too_wide(&format!("a\n    /// {long}\n//! {long}\n")), [2, 3]);
        assert_eq!(too_wide(&"x ".repeat(80)), [0; 0]);
        assert_eq!(too_wide(&format!("// {}", "x".repeat(110))), [0; 0]);
        assert_eq!(
            too_wide(&format!("/// | {long} |\n// https://a {long}\n// ```\n// {long}\n// ```\n")),
            [0; 0]
        );
        assert_eq!(too_wide(&format!("// ```\n// ```\n// {long}")), [3]);
        assert_eq!(too_wide(&format!("// {}", &long[..97])), [0; 0]);
    }
}
