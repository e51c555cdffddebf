//! Relative links of a document lead to files and headings that exist.

use std::fs;
use std::path::Path;

pub(super) fn check(name: &str, path: &Path, text: &str, findings: &mut Vec<String>) {
    for (line, target) in
        text.lines().enumerate().flat_map(|(i, line)| links(line).map(move |link| (i + 1, link)))
    {
        let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let linked = if file.is_empty() { path.to_owned() } else { path.with_file_name(file) };
        // Only Markdown has headings that become anchors. (A page of ours may define its own.)
        let is_there = match file.is_empty() || file.ends_with(".md") {
            _ if anchor.is_empty() => linked.exists(),
            true => fs::read_to_string(&linked).is_ok_and(|text| anchors(&text).any(|a| a == anchor)),
            false => linked.exists(),
        };
        if !is_there {
            findings.push(format!("{name}:{line}: link to {target}, which does not exist"));
        }
    }
}

/// The anchors that a page of Markdown has for its headings, as forges make them.
fn anchors(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter(|line| line.starts_with('#')).map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
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

    #[test]
    fn headings_become_anchors() {
        let text = "# A `name`, and: more\n\n## wasm32 (none)\ntext\n";
        assert_eq!(anchors(text).collect::<Vec<_>>(), ["a-name-and-more", "wasm32-none"]);
    }
}
