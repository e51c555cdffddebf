//! The map of the sources names all rooms, their files, and all files that may have `unsafe`.

use std::collections::{BTreeMap, BTreeSet};

use super::Files;
use super::source::UNSAFE_FILES;

const MAP: &str = "docs/architecture.md";

pub(super) fn check(crates: &[&str], files: &Files, findings: &mut Vec<String>) {
    let text = files.get(MAP).map_or("", String::as_str);
    for folder in crates {
        check_table(text, folder, files, findings);
    }
    let rest = text.split_once("## Where unsafe is").map_or("", |(_, rest)| rest);
    let section = rest.split("\n## ").next().unwrap_or_default();
    for file in UNSAFE_FILES {
        let name = file.rsplit('/').next().unwrap_or(file);
        if !section.contains(&format!("{name}`")) {
            findings.push(format!("{MAP}: the list of unsafe files lacks {file}"));
        }
    }
    for row in section.lines().filter(|line| line.starts_with('|')) {
        for name in quoted(first_cell(row)).filter(|name| name.ends_with(".rs")) {
            let end = format!("/{}", name.rsplit('>').next().unwrap_or(name).trim_start_matches('/'));
            if !UNSAFE_FILES.iter().any(|file| file.ends_with(&end)) {
                findings.push(format!("{MAP}: the list of unsafe files names {name}, which has none"));
            }
        }
    }
}

/// Compares the table for a crate, whose head names its `src`, with the tree. Every entry of `src`
/// has a row, the row of a room names everything in it, and no row names a file that does not
/// exist.
fn check_table(text: &str, folder: &str, files: &Files, findings: &mut Vec<String>) {
    let krate = folder.rsplit('/').next().unwrap_or(folder);
    let head = format!("`{krate}/src`");
    let mut lines = text.lines().skip_while(|line| !(line.starts_with('|') && line.contains(&head)));
    if lines.next().is_none() {
        findings.push(format!("{MAP}: no table of {head}"));
        return;
    }
    let rows: Vec<&str> = lines.skip(1).take_while(|line| line.starts_with('|')).collect();
    let entries = entries(&format!("{folder}/src/"), files);
    let row_of = |entry: &str| rows.iter().find(|row| quoted(first_cell(row)).any(|name| name == entry));
    for (entry, inside) in &entries {
        let Some(row) = row_of(entry) else {
            findings.push(format!("{MAP}: the table of {head} lacks `{entry}`"));
            continue;
        };
        for name in inside.iter().filter(|name| !quoted(row).any(|quoted| quoted == **name)) {
            findings.push(format!("{MAP}: the row of `{entry}` in the table of {head} lacks `{name}`"));
        }
    }
    for row in &rows {
        let rooms: Vec<&str> = quoted(first_cell(row)).collect();
        for name in quoted(row).filter(|name| name.ends_with(".rs") || name.ends_with('/')) {
            let known = entries.contains_key(name)
                || rooms.iter().any(|room| entries.get(room).is_some_and(|inside| inside.contains(name)));
            if !known {
                findings.push(format!("{MAP}: the table of {head} names `{name}`, which is not there"));
            }
        }
    }
}

/// The entries of a crate's `src`: files, and rooms with their contents. Rooms end in `/`. Roots
/// and `mod.rs` are left out.
fn entries<'f>(src: &str, files: &'f Files) -> BTreeMap<&'f str, BTreeSet<&'f str>> {
    let mut entries: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for below in files.keys().filter_map(|name| name.strip_prefix(src)) {
        let (entry, inside) = first_entry(below);
        if entry == "lib.rs" {
            continue;
        }
        let names = entries.entry(entry).or_default();
        if !inside.is_empty() && inside != "mod.rs" {
            names.insert(first_entry(inside).0);
        }
    }
    entries
}

/// Splits `a/b/c.rs` into the entry `a/` and the rest `b/c.rs`.
fn first_entry(path: &str) -> (&str, &str) {
    path.split_at(path.find('/').map_or(path.len(), |at| at + 1))
}

fn first_cell(row: &str) -> &str {
    row.split('|').nth(1).unwrap_or_default()
}

/// The parts between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_compared_with_the_tree_both_ways() {
        let files = ["lib.rs", "a.rs", "room/mod.rs", "room/b.rs", "room/deep/c.rs"];
        let files: Files = files.map(|name| (format!("crates/q/src/{name}"), String::new())).into();
        let found = |rows: &str| {
            let text =
                format!("Text.\n\n| room of `q/src` | holds |\n| --- | --- |\n{rows}\n\nText `other.rs`.");
            let mut findings = Vec::new();
            check_table(&text, "crates/q", &files, &mut findings);
            findings.into_iter().map(|finding| finding.replace(MAP, "map")).collect::<Vec<_>>()
        };
        assert_eq!(found("| `room/` | `b.rs`, `deep/`: deep things |\n| `a.rs` | a thing |"), [""; 0]);
        assert_eq!(
            found("| `room/` | `b.rs`, `gone.rs` |"),
            [
                "map: the table of `q/src` lacks `a.rs`",
                "map: the row of `room/` in the table of `q/src` lacks `deep/`",
                "map: the table of `q/src` names `gone.rs`, which is not there",
            ]
        );
    }
}
