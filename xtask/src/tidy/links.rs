//! Relative links of a document lead to files that exist.

use std::path::Path;

pub(super) fn check(name: &str, path: &Path, text: &str, findings: &mut Vec<String>) {
    for (line, target) in
        text.lines().enumerate().flat_map(|(i, line)| links(line).map(move |link| (i + 1, link)))
    {
        let file = target.split('#').next().unwrap_or_default();
        let elsewhere = target.contains("://") || target.starts_with("mailto:");
        if !elsewhere && !file.is_empty() && !path.with_file_name(file).exists() {
            findings.push(format!("{name}:{line}: link to {target}, which does not exist"));
        }
    }
}

/// The targets of the line's Markdown links.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found() {
        assert_eq!(links("see [a](b.md) and [c](d.md#e)").collect::<Vec<_>>(), ["b.md", "d.md#e"]);
    }
}
