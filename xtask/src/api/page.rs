//! The lines for one item, read from its page.

use anyhow::{Context, Result, ensure};

use super::html::{between, text};

/// An item that `all.html` links to.
#[derive(Debug, PartialEq)]
pub(super) struct Item<'a> {
    /// `struct`, `fn`, ...
    kind: &'a str,
    name: &'a str,
    /// Its path below the crate, such as `float::matmul`.
    path: String,
}

impl<'a> Item<'a> {
    /// Parses the name of the page, such as `float/fn.matmul.html`.
    pub(super) fn from_file(file: &'a str) -> Option<Self> {
        let (modules, page) = file.rsplit_once('/').map_or(("", file), |(modules, page)| (modules, page));
        let (kind, name) = page.strip_suffix(".html")?.split_once('.')?;
        let path = modules.split('/').filter(|module| !module.is_empty()).chain([name]);
        Some(Self { kind, name, path: path.collect::<Vec<_>>().join("::") })
    }

    /// The lines of the item itself, of its fields, variants, functions and constants, and of the
    /// traits that it implements.
    pub(super) fn lines(&self, page: &str) -> Result<Vec<String>> {
        let (_, page) = page.split_once("id=\"main-content\"").context("no main content")?;
        // Traits that every type implements say nothing about this one, and the target of an alias
        // has a page of its own.
        let page = ["id=\"blanket-implementations\"", "id=\"aliased-type\""]
            .iter()
            .fold(page, |page, end| page.split(end).next().unwrap_or_default());
        let (page, auto) = page.split_once("id=\"synthetic-implementations\"").unwrap_or((page, ""));

        let declaration = between(page, "item-decl\"><code>", "</code></pre>").context("no declaration")?;
        let mut lines = vec![format!("{}: {}", self.path, self.head(&text(declaration)))];
        self.fields(page, &mut lines)?;
        self.sections(page, &mut lines)?;
        if ["struct", "enum", "union"].contains(&self.kind) {
            ensure!(auto.contains("class=\"impl\""), "not a word on Send and Sync");
            for header in auto.split("<section ").skip(1).map(header) {
                let header = header?;
                if header.contains("!Send for ") || header.contains("!Sync for ") {
                    lines.push(self.implementation(&header));
                }
            }
        }
        Ok(lines)
    }

    /// The declaration without the parts that have lines of their own. Whether there are private
    /// fields is part of the API: if there are, other crates can neither build nor take apart the
    /// struct.
    fn head(&self, declaration: &str) -> String {
        if !["struct", "enum", "union", "trait"].contains(&self.kind) {
            return declaration.to_owned();
        }
        let Some((head, body)) = declaration.split_once('{') else { return declaration.to_owned() };
        let head = head.trim_end_matches([' ', ',']);
        let private = "/* private fields */";
        if body.contains(private) { format!("{head} {{ {private} }}") } else { head.to_owned() }
    }

    /// The named fields of a struct or of variants. (Unnamed fields are part of the declaration.)
    fn fields(&self, page: &str, lines: &mut Vec<String>) -> Result<()> {
        for part in page.split("<span id=\"").skip(1) {
            let id = part.split('"').next().unwrap_or_default();
            let (owner, name) = match id.strip_prefix("variant.").and_then(|id| id.split_once(".field.")) {
                Some((variant, name)) => (format!("{}::{variant}", self.path), name),
                None => match id.strip_prefix("structfield.") {
                    Some(name) => (self.path.clone(), name),
                    None => continue,
                },
            };
            if !name.starts_with(|c: char| c.is_ascii_digit()) {
                let field = between(part, "<code>", "</code>").with_context(|| format!("{id}: no code"))?;
                lines.push(format!("{owner}.{}", text(field)));
            }
        }
        Ok(())
    }

    /// Variants, functions, associated types and constants, and the `impl` blocks that they are in.
    fn sections(&self, page: &str, lines: &mut Vec<String>) -> Result<()> {
        let mut block = String::new();
        for part in page.split("<section ").skip(1) {
            let id = between(part, "id=\"", "\"").unwrap_or_default();
            let class = between(part, "class=\"", "\"").unwrap_or_default();
            let (kind, name) = id.split_once('.').unwrap_or((id, ""));
            // The second `fmt` of a page is `fmt-1`.
            let name = name.split('-').next().unwrap_or_default();
            match class {
                "variant" => lines.push(format!("{}::{}", self.path, header(part)?)),
                "impl" => {
                    block = header(part)?;
                    if block.contains(" for ") && !block.contains("StructuralPartialEq") {
                        lines.push(self.implementation(&block));
                    }
                }
                "associatedtype trait-impl" => {
                    lines.push(format!("{} {{ {} }}", self.implementation(&block), header(part)?));
                }
                // The page of the trait describes these.
                _ if class.ends_with("trait-impl") => {}
                _ => {
                    let role = match (self.kind, kind) {
                        ("trait", "tymethod") => "required ",
                        ("trait", "method") => "provided ",
                        _ => "",
                    };
                    // The generic parameters of the block, if it has any.
                    let of = if block.starts_with("impl<") { format!(" in {block}") } else { String::new() };
                    lines.push(format!("{}::{name}: {role}{}{of}", self.path, header(part)?));
                }
            }
        }
        Ok(())
    }

    /// An implementation is listed with its type, whichever page it is on.
    fn implementation(&self, header: &str) -> String {
        let bare = header.split(" where ").next().unwrap_or_default();
        let of = bare.rsplit(" for ").next().unwrap_or_default();
        let of = of.split('<').next().unwrap_or_default();
        format!("{}: {header}", if of == self.name { &self.path } else { of })
    }
}

/// The signature of a section.
fn header(part: &str) -> Result<String> {
    let id = between(part, "id=\"", "\"").unwrap_or_default();
    between(part, "class=\"code-header\">", "</h").map(text).with_context(|| format!("{id}: no signature"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(class: &str, id: &str, signature: &str) -> String {
        format!(
            "<section id=\"{id}\" class=\"{class}\"><a>§</a><h4 class=\"code-header\">{signature}</h4></section>"
        )
    }

    fn page(declaration: &str, rest: &[String]) -> String {
        let rest = rest.concat();
        format!(
            "<section id=\"main-content\" class=\"content\">\
             <pre class=\"rust item-decl\"><code>{declaration}</code></pre>{rest}"
        )
    }

    fn auto(signature: &str) -> String {
        format!("<h2 id=\"synthetic-implementations\"></h2>{}", section("impl", "impl-Send-for-A", signature))
    }

    #[test]
    fn a_file_s_name_is_a_path() {
        let path = |file| Item::from_file(file).map(|item| (item.kind.to_owned(), item.path));
        assert_eq!(path("float/fn.matmul.html"), Some(("fn".into(), "float::matmul".into())));
        assert_eq!(path("struct.Range.html"), Some(("struct".into(), "Range".into())));
        assert_eq!(path("index.html"), None);
    }

    #[test]
    fn a_struct_has_fields_functions_and_traits() {
        let declaration =
            "pub struct A&lt;T&gt; {\n    pub len: usize,\n    <span>/* private fields */</span>\n}";
        let rest = [
            "<span id=\"structfield.len\" class=\"structfield\"><code>len: <a>usize</a></code></span>".into(),
            section("impl", "impl-A", "impl&lt;T&gt; A&lt;T&gt;"),
            section("method", "method.new-1", "pub fn <a>new</a>() -&gt; Self"),
            section("impl", "impl-Iterator-for-A", "impl&lt;T&gt; Iterator for A&lt;T&gt;"),
            section("associatedtype trait-impl", "associatedtype.Item", "type Item = T"),
            section("method trait-impl", "method.next", "fn next(&amp;mut self) -&gt; Option&lt;T&gt;"),
            section("impl", "impl-From", "impl From&lt;A&lt;u8&gt;&gt; for B"),
            auto("impl&lt;T&gt; !Send for A&lt;T&gt;"),
            "<h2 id=\"blanket-implementations\">".into(),
            section("impl", "impl-Any-for-T", "impl&lt;T&gt; Any for T"),
        ];
        let item = Item::from_file("m/struct.A.html").unwrap();
        let expected = [
            "m::A: pub struct A<T> { /* private fields */ }",
            "m::A.len: usize",
            "m::A::new: pub fn new() -> Self in impl<T> A<T>",
            "m::A: impl<T> Iterator for A<T>",
            "m::A: impl<T> Iterator for A<T> { type Item = T }",
            "B: impl From<A<u8>> for B",
            "m::A: impl<T> !Send for A<T>",
        ];
        assert_eq!(item.lines(&page(declaration, &rest)).unwrap(), expected);
    }

    #[test]
    fn variants_have_fields() {
        let rest = [
            section("variant", "variant.One", "One(<a>f32</a>)"),
            section("variant", "variant.Two", "Two"),
            "<div id=\"variant.Two.fields\"><span id=\"variant.Two.field.min\"><code>min: f64</code></span>"
                .into(),
            auto("impl Send for A"),
        ];
        let item = Item::from_file("enum.A.html").unwrap();
        let expected = ["A: pub enum A", "A::Two.min: f64", "A::One(f32)", "A::Two"];
        assert_eq!(item.lines(&page("pub enum A {\n    One(f32),\n}", &rest)).unwrap(), expected);
    }

    #[test]
    fn a_trait_says_what_must_be_there() {
        let rest = [
            section("method", "tymethod.f", "fn f()"),
            section("method", "method.g", "fn g()"),
            section("impl", "impl-A-for-i8", "impl A for i8"),
        ];
        let item = Item::from_file("trait.A.html").unwrap();
        let expected =
            ["A: pub trait A: Sync", "A::f: required fn f()", "A::g: provided fn g()", "i8: impl A for i8"];
        assert_eq!(item.lines(&page("pub trait A: Sync { }", &rest)).unwrap(), expected);
    }

    #[test]
    fn a_page_of_another_form_is_an_error() {
        let item = Item::from_file("struct.A.html").unwrap();
        let error = |page: &str| item.lines(page).unwrap_err().to_string();
        assert_eq!(error("<html>"), "no main content");
        assert_eq!(error(&page("pub struct A;", &[])), "not a word on Send and Sync");
        let rest = ["<section id=\"method.f\" class=\"method\">".to_owned()];
        assert_eq!(error(&page("pub struct A;", &rest)), "method.f: no signature");
    }
}
