//! The order of rooms: a room names only rooms above it in the crate root, and the modules of a
//! room do not name each other in a circle.

use std::collections::{BTreeMap, BTreeSet};

use super::modules::{Edge, ModulePath, Modules};

/// The most entries of a crate's `src`, and of any folder below it.
const MOST_IN_SRC: usize = 12;
const MOST_IN_ROOM: usize = 16;

/// A file below a crate's `src`: its path from there, its name in the repository, and its text.
type File<'f> = (&'f str, String, &'f str);

/// Checks the crate in `folder` of the repository.
pub(super) fn check(folder: &str, files: &BTreeMap<String, String>, findings: &mut Vec<String>) {
    let src = format!("{folder}/src/");
    let below: Vec<File<'_>> = files
        .iter()
        .filter(|(name, _)| name.ends_with(".rs"))
        .filter_map(|(name, text)| Some((name.strip_prefix(&src)?, name.clone(), text.as_str())))
        .collect();
    check_sizes(&src, &below, findings);
    let modules = Modules::of(below.into_iter());
    check_order(&modules, findings);
    check_circles(&modules, findings);
}

/// No folder has more entries than a reader takes in at a glance.
fn check_sizes(src: &str, files: &[File<'_>], findings: &mut Vec<String>) {
    let mut folders: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (below, _, _) in files {
        let mut path = *below;
        loop {
            let (folder, entry) = path.rsplit_once('/').unwrap_or(("", path));
            folders.entry(folder).or_default().insert(entry);
            if folder.is_empty() {
                break;
            }
            path = folder;
        }
    }
    for (folder, entries) in folders {
        let most = if folder.is_empty() { MOST_IN_SRC } else { MOST_IN_ROOM };
        if entries.len() > most {
            findings.push(format!("{src}{folder}: {} entries, more than {most}", entries.len()));
        }
    }
}

/// A room names only rooms whose `mod` line is above its own.
fn check_order(modules: &Modules, findings: &mut Vec<String>) {
    let Some(root) = modules.0.get(&ModulePath::new()) else { return };
    let place = |room: &str| root.children.iter().position(|child| child == room);
    for (path, module) in &modules.0 {
        let Some(room) = path.first() else { continue };
        // One finding for all that a line takes from a room.
        let mut seen = BTreeSet::new();
        for Edge { line, path, target, .. } in modules.edges(path) {
            let file = &module.file;
            match target.first() {
                other if !seen.insert((line, other.cloned())) => {}
                None => findings.push(format!("{file}:{line}: {path} is an item of {}; a room may not name it", root.file)),
                Some(other) if place(other) > place(room) => findings.push(format!(
                    "{file}:{line}: room `{room}` names {path}, but `mod {other}` is below `mod {room}` in {}",
                    root.file
                )),
                Some(_) => {}
            }
        }
    }
}

/// The modules of a room do not name each other in a circle. A re-export by `pub use` is not a
/// dependency.
fn check_circles(modules: &Modules, findings: &mut Vec<String>) {
    let mut edges: BTreeMap<&ModulePath, Vec<(&ModulePath, Edge)>> = BTreeMap::new();
    for path in modules.0.keys() {
        for edge in modules.edges(path) {
            let in_room = !path.is_empty() && edge.target.first() == path.first();
            if let Some((target, _)) =
                modules.0.get_key_value(&edge.target).filter(|_| in_room && !edge.passed_on)
            {
                edges.entry(path).or_default().push((target, edge));
            }
        }
    }
    // Each module is reported at most once, with the shortest circle through it.
    let mut reported = BTreeSet::new();
    for &start in edges.keys() {
        if reported.contains(start) {
            continue;
        }
        let Some(circle) = shortest_circle(start, &edges) else { continue };
        let steps: Vec<String> = circle
            .iter()
            .map(|(from, edge)| format!("{}:{} names {}", modules.0[*from].file, edge.line, edge.path))
            .collect();
        reported.extend(circle.iter().map(|(from, _)| *from));
        findings.push(format!("a circle of {}: {}", steps.len(), steps.join(", ")));
    }
}

type Edges<'m> = BTreeMap<&'m ModulePath, Vec<(&'m ModulePath, Edge)>>;

/// The edges of the shortest path from `start` back to itself.
fn shortest_circle<'e>(
    start: &'e ModulePath,
    edges: &'e Edges<'_>,
) -> Option<Vec<(&'e ModulePath, &'e Edge)>> {
    let mut ways = vec![(start, Vec::new())];
    let mut seen = BTreeSet::new();
    let mut next = 0;
    while next < ways.len() {
        let (at, way) = ways[next].clone();
        next += 1;
        for (target, edge) in edges.get(at).map_or(&[][..], Vec::as_slice) {
            let way = [&way[..], &[(at, edge)]].concat();
            if *target == start {
                return Some(way);
            }
            if seen.insert(*target) {
                ways.push((*target, way));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(files: &[(&str, &str)]) -> Vec<String> {
        let files = files.iter().map(|(name, text)| (format!("c/src/{name}"), (*text).to_owned())).collect();
        let mut findings = Vec::new();
        check("c", &files, &mut findings);
        findings
    }

    #[test]
    fn a_room_names_rooms_above_it() {
        let root = ("lib.rs", "mod low; mod high; pub use high::High; pub use low::Low;");
        let high = ("high.rs", "use crate::low::Low;\nuse crate::Low as Again; pub struct High;");
        assert_eq!(findings(&[root, ("low.rs", "pub struct Low;"), high]), [""; 0]);
        for (text, path) in [
            ("pub struct Low;\nuse crate::high::High;", "high::High"),
            ("pub struct Low;\nfn f() { crate::high::g() }", "high::g"),
            ("pub struct Low;\nuse super::high::{High};", "high::High"),
            // By the name that the root re-exports.
            ("pub struct Low;\nuse crate::High;", "High"),
            ("pub struct Low;\nmacro_rules! m { () => { $crate::high::g() } }", "high::g"),
            ("pub struct Low;\nmod inner { use super::super::high::High; }", "high::High"),
        ] {
            let found = findings(&[root, ("low.rs", text), high]);
            let expected = format!(
                "c/src/low.rs:2: room `low` names crate::{path}, but `mod high` is below `mod low` in c/src/lib.rs"
            );
            assert_eq!(found, [expected]);
        }
    }

    #[test]
    fn tests_and_comments_name_what_they_like() {
        let low = "/// See [`crate::high::High`].\n// crate::high\n\
            #[cfg(test)] mod tests { use crate::high::High; }\n#[cfg(test)] mod checks;";
        let files = [
            ("lib.rs", "mod low; mod high;"),
            ("low/mod.rs", low),
            ("low/checks.rs", "use crate::high::High;"),
            ("high.rs", "use crate::low; pub struct High;"),
        ];
        assert_eq!(findings(&files), [""; 0]);
    }

    #[test]
    fn a_planted_circle_is_found() {
        let sound = [
            ("lib.rs", "mod room;"),
            ("room/mod.rs", "mod a; mod b; mod deep; pub(crate) use a::A; pub use b::B;"),
            ("room/a.rs", "pub struct A;"),
            ("room/b.rs", "use super::A; pub struct B;"),
            ("room/deep/mod.rs", "mod c; pub(crate) use c::C;"),
            ("room/deep/c.rs", "use crate::room::b::B;\npub struct C;"),
        ];
        assert_eq!(findings(&sound), [""; 0]);
        let mut planted = sound;
        planted[2].1 = "// One line.\nuse super::deep::C; pub struct A;";
        assert_eq!(
            findings(&planted),
            ["a circle of 3: c/src/room/a.rs:2 names crate::room::deep::C, c/src/room/deep/c.rs:1 names \
                crate::room::b::B, c/src/room/b.rs:1 names crate::room::A"]
        );
    }

    #[test]
    fn a_parent_and_its_child_may_be_a_circle() {
        let files = [
            ("lib.rs", "mod room;"),
            ("room/mod.rs", "mod a; pub struct Of; fn f() { a::g() }"),
            ("room/a.rs", "use super::*;"),
        ];
        assert_eq!(
            findings(&files),
            [
                "a circle of 2: c/src/room/mod.rs:1 names crate::room::a::g, c/src/room/a.rs:1 names crate::room"
            ]
        );
    }

    #[test]
    fn full_folders_are_found() {
        let names: Vec<String> = (0..17).map(|i| format!("room/m{i}.rs")).collect();
        let mut files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
        assert_eq!(findings(&files), ["c/src/room: 17 entries, more than 16"]);
        let names: Vec<String> = (0..12).map(|i| format!("m{i}.rs")).collect();
        files = names.iter().map(|name| (name.as_str(), "")).collect();
        files.push(("lib.rs", ""));
        assert_eq!(findings(&files), ["c/src/: 13 entries, more than 12"]);
    }
}
