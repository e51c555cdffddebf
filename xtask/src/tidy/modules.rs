//! The modules of a crate: what each declares, and which others it names.

use std::collections::{BTreeMap, HashSet};

use super::tokens::{self, Token};

/// The names from the crate root to a module; empty for the root.
pub(super) type ModulePath = Vec<String>;

/// A module, which is a file.
#[derive(Debug, Default)]
pub(super) struct Module {
    /// Its name in the repository.
    pub(super) file: String,
    /// Its `mod` lines in order, except those for tests alone.
    pub(super) children: Vec<String>,
    /// The names that `use` lines introduce, with the paths they stand for.
    names: BTreeMap<String, Vec<String>>,
    /// The paths of `use path::*` lines.
    globs: Vec<Vec<String>>,
    /// The items declared here.
    items: HashSet<String>,
    /// The paths of this crate that it names, with their lines.
    paths: Vec<Named>,
}

/// A path of this crate as a line names it.
#[derive(Clone, Debug)]
struct Named {
    /// The path from the root.
    path: Vec<String>,
    line: usize,
    /// Whether it is only re-exported, by `pub use`.
    passed_on: bool,
}

/// A place where one module names another.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Edge {
    pub(super) line: usize,
    /// The path as the line names it, starting with `crate`.
    pub(super) path: String,
    pub(super) target: ModulePath,
    /// Whether it is only re-exported, by `pub use`.
    pub(super) passed_on: bool,
}

/// The modules of a crate, by path.
#[derive(Debug)]
pub(super) struct Modules(pub(super) BTreeMap<ModulePath, Module>);

impl Modules {
    /// Reads modules from files, each given by its path below `src`, such as `a/mod.rs`, its name
    /// in the repository, and its text.
    pub(super) fn of<'a>(files: impl Iterator<Item = (&'a str, String, &'a str)>) -> Modules {
        let mut modules = BTreeMap::new();
        for (below, file, text) in files {
            let path = module_path(below);
            let module = Reader::read(&path, file, text);
            modules.insert(path, module);
        }
        // A file that only tests declare is test code.
        let declared = |path: &ModulePath| {
            (0..path.len()).all(|depth| {
                modules
                    .get(&path[..depth])
                    .is_some_and(|parent: &Module| parent.children.contains(&path[depth]))
            })
        };
        let for_tests: Vec<ModulePath> = modules.keys().filter(|path| !declared(path)).cloned().collect();
        for path in for_tests {
            modules.remove(&path);
        }
        Modules(modules)
    }

    /// All places where the module `path` names another.
    pub(super) fn edges(&self, path: &ModulePath) -> Vec<Edge> {
        let mut edges = Vec::new();
        for named in self.0.get(path).map_or(&[][..], |module| &module.paths) {
            let target = self.resolve(&named.path, 0);
            if target != *path {
                let text = format!("crate::{}", named.path.join("::"));
                edges.push(Edge { line: named.line, path: text, target, passed_on: named.passed_on });
            }
        }
        edges
    }

    /// The module that declares what `path` refers to, found through all re-exports.
    fn resolve(&self, path: &[String], depth: usize) -> ModulePath {
        let mut at = ModulePath::new();
        for (i, name) in path.iter().enumerate() {
            let Some(module) = self.0.get(&at) else { break };
            let rest = &path[i + 1..];
            if module.children.contains(name) {
                at.push(name.clone());
            } else if depth > 16 || module.items.contains(name) {
                break;
            } else if let Some(meant) = module.names.get(name) {
                return self.resolve(&[meant, rest].concat(), depth + 1);
            } else {
                let meant = module.globs.iter().map(|glob| self.resolve(glob, depth + 1));
                let declaring = meant.into_iter().find(|glob| *glob != at && self.offers(glob, name));
                match declaring {
                    Some(glob) => return self.resolve(&[&glob[..], &path[i..]].concat(), depth + 1),
                    None => break,
                }
            }
        }
        at
    }

    fn offers(&self, path: &ModulePath, name: &String) -> bool {
        self.0.get(path).is_some_and(|module| {
            module.items.contains(name) || module.names.contains_key(name) || module.children.contains(name)
        })
    }
}

/// `a/b.rs` and `a/b/mod.rs` are the module `a::b`; `lib.rs` is the root.
fn module_path(below: &str) -> ModulePath {
    let stem = below.strip_suffix(".rs").unwrap_or(below);
    let stem = stem.strip_suffix("/mod").unwrap_or(stem);
    if stem == "lib" { ModulePath::new() } else { stem.split('/').map(str::to_owned).collect() }
}

/// Reads the tokens of a file.
struct Reader<'t> {
    tokens: &'t [Token],
    at: usize,
    /// The module of the current token: that of the file, and inline modules inside it. `inline`
    /// has the brace depth of each inline module.
    path: Vec<String>,
    inline: Vec<usize>,
    depth: usize,
    module: Module,
}

impl Reader<'_> {
    fn read(path: &ModulePath, file: String, text: &str) -> Module {
        let tokens = tokens::of(text);
        let module = Module { file, children: children(&tokens), ..Module::default() };
        let mut reader =
            Reader { tokens: &tokens, at: 0, path: path.clone(), inline: Vec::new(), depth: 0, module };
        while reader.at < tokens.len() {
            reader.step();
        }
        reader.module
    }

    fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| &token.text)
    }

    fn step(&mut self) {
        let (token, next) = (self.text(self.at).to_owned(), self.text(self.at + 1).to_owned());
        match token.as_str() {
            "{" => self.depth += 1,
            "}" => {
                self.depth = self.depth.saturating_sub(1);
                if self.inline.last() == Some(&self.depth) {
                    self.inline.pop();
                    self.path.pop();
                }
            }
            "mod" if self.text(self.at + 2) == "{" => {
                self.inline.push(self.depth);
                self.path.push(next);
                self.at += 1;
            }
            "use" => return self.read_use(),
            "fn" | "struct" | "enum" | "union" | "trait" | "type" | "const" | "static" => {
                self.module.items.insert(next);
            }
            "macro_rules" => {
                let name = self.text(self.at + 2).to_owned();
                self.module.items.insert(name);
            }
            _ => {
                let starts = !matches!(self.at.checked_sub(1).map(|at| self.text(at)), Some("::" | "."));
                if starts && next == "::" && self.start(&token).is_some() {
                    let line = self.tokens[self.at].line;
                    let mut found = Vec::new();
                    self.tree(Vec::new(), &mut found);
                    let paths = found.into_iter().filter_map(|leaf| self.rooted(&leaf.path));
                    let named: Vec<Named> =
                        paths.map(|path| Named { path, line, passed_on: false }).collect();
                    self.module.paths.extend(named);
                    return;
                }
            }
        }
        self.at += 1;
    }

    /// The path that the first name of a path stands for, if it belongs to this crate.
    fn start(&self, name: &str) -> Option<Vec<String>> {
        match name {
            "crate" => Some(Vec::new()),
            "self" => Some(self.path.clone()),
            "super" => Some(self.path.split_last()?.1.to_vec()),
            child if self.inline.is_empty() && self.module.children.iter().any(|name| name == child) => {
                Some([&self.path[..], &[child.to_owned()]].concat())
            }
            _ => None,
        }
    }

    /// Turns a path as it is written into a path from the root.
    fn rooted(&self, path: &[String]) -> Option<Vec<String>> {
        let (first, mut rest) = path.split_first()?;
        let mut start = self.start(first)?;
        while let Some((name, after)) =
            rest.split_first().filter(|(name, _)| *name == "super" || *name == "self")
        {
            if name == "super" {
                start.pop();
            }
            rest = after;
        }
        start.extend_from_slice(rest);
        Some(start)
    }

    fn read_use(&mut self) {
        // Also `pub(crate) use`, where the token before is `)`.
        let before = self.at.checked_sub(1).map_or("", |at| self.text(at));
        let passed_on = before == "pub" || before == ")";
        self.at += 1;
        let mut leaves = Vec::new();
        self.tree(Vec::new(), &mut leaves);
        for leaf in leaves {
            let Some(path) = self.rooted(&leaf.path) else { continue };
            if self.inline.is_empty() {
                match &leaf.name {
                    Some(name) => drop(self.module.names.insert(name.clone(), path.clone())),
                    None => self.module.globs.push(path.clone()),
                }
            }
            self.module.paths.push(Named { path, line: leaf.line, passed_on });
        }
    }

    /// Collects the paths of the use tree at the current token, which follows `prefix`.
    fn tree(&mut self, mut prefix: Vec<String>, leaves: &mut Vec<Leaf>) {
        let mut line = self.tokens.get(self.at).map_or(0, |token| token.line);
        loop {
            match self.text(self.at).to_owned().as_str() {
                "{" => {
                    self.at += 1;
                    while !matches!(self.text(self.at), "}" | "") {
                        self.tree(prefix.clone(), leaves);
                        if self.text(self.at) == "," {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    return;
                }
                "*" => {
                    self.at += 1;
                    return leaves.push(Leaf { path: prefix, name: None, line });
                }
                word if word.starts_with(|c: char| c.is_alphabetic() || c == '_') => {
                    line = self.tokens[self.at].line;
                    // `a::{self}` is `a`.
                    if word != "self" || prefix.is_empty() {
                        prefix.push(word.to_owned());
                    }
                    self.at += 1;
                }
                _ => break,
            }
            match self.text(self.at) {
                "::" if self.text(self.at + 1) != "<" => self.at += 1,
                "as" => {
                    let name = self.text(self.at + 1).to_owned();
                    self.at += 2;
                    return leaves.push(Leaf { path: prefix, name: Some(name), line });
                }
                _ => break,
            }
        }
        // Always advance, even over a token that was not expected here.
        if prefix.is_empty() {
            self.at += 1;
        }
        let name = prefix.last().cloned();
        leaves.push(Leaf { path: prefix, name, line });
    }
}

/// One path of a `use` tree.
struct Leaf {
    path: Vec<String>,
    /// The name it introduces; `None` for `*`.
    name: Option<String>,
    line: usize,
}

/// The names of `mod name;` lines.
fn children(tokens: &[Token]) -> Vec<String> {
    let triples = tokens.windows(3).filter(|triple| triple[0].text == "mod" && triple[2].text == ";");
    triples.map(|triple| triple[1].text.clone()).collect()
}
