//! The listing of a crate, and the difference of two listings.

use std::collections::BTreeSet;
use std::fmt::Write;

use anyhow::{Context, Result, ensure};

use super::page::Item;

/// How many lines of a difference are shown.
const MOST_LINES: usize = 30;

/// The listing of a crate whose pages `read` returns.
pub(super) fn of(name: &str, read: &dyn Fn(&str) -> Result<String>) -> Result<String> {
    let all = read("all.html")?;
    let mut lines = BTreeSet::new();
    let links = all.split("class=\"all-items\"").skip(1).flat_map(|list| {
        let list = list.split("</ul>").next().unwrap_or_default();
        list.split("href=\"").skip(1).filter_map(|link| link.split('"').next())
    });
    for file in links {
        let item =
            Item::from_file(file).with_context(|| format!("{name}/all.html: {file} is no item's page"))?;
        lines.extend(item.lines(&read(file)?).with_context(|| format!("{name}/{file}"))?);
    }
    ensure!(
        !lines.is_empty(),
        "{name}/all.html lists no item: rustdoc's pages are not as this command expects them"
    );

    let mut listing =
        format!("# What is public in {name}, as `cargo xtask api` finds it in rustdoc's pages.\n\n");
    for line in lines {
        writeln!(listing, "{line}")?;
    }
    Ok(listing)
}

/// The lines that were removed (-) and added (+), in order; `None` if there are none.
pub(super) fn difference(old: &str, new: &str) -> Option<String> {
    let [old, new] = [old, new].map(|text| text.lines().collect::<BTreeSet<_>>());
    let mut changes: Vec<(&str, char)> = old.difference(&new).map(|line| (*line, '-')).collect();
    changes.extend(new.difference(&old).map(|line| (*line, '+')));
    // The old line of an item comes before the new one.
    changes.sort_by_key(|(line, sign)| (line.split(": ").next(), *sign == '+', *line));
    let mut shown: Vec<String> =
        changes.iter().take(MOST_LINES).map(|(line, sign)| format!("{sign} {line}")).collect();
    if changes.len() > MOST_LINES {
        shown.push(format!("and {} more", changes.len() - MOST_LINES));
    }
    (!shown.is_empty()).then(|| shown.join("\n"))
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    fn listing(all: &str) -> Result<String> {
        of("a", &|file| match file {
            "all.html" => Ok(all.to_owned()),
            "fn.f.html" | "m/fn.g.html" => Ok(format!(
                "<section id=\"main-content\"><pre class=\"rust item-decl\"><code>pub fn {file}()</code></pre>"
            )),
            _ => bail!("{file} is not there"),
        })
    }

    #[test]
    fn every_item_is_listed_in_order() {
        let all = "<a href=\"x\"><ul class=\"all-items\"><li><a href=\"m/fn.g.html\">g</a></li></ul>\
                   <ul class=\"all-items\"><li><a href=\"fn.f.html\">f</a></li></ul><a href=\"y\">";
        let text = listing(all).unwrap();
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(lines, ["f: pub fn fn.f.html()", "m::g: pub fn m/fn.g.html()"]);
    }

    #[test]
    fn no_listing_is_better_than_half_of_one() {
        assert!(listing("<html>").unwrap_err().to_string().contains("lists no item"));
        assert!(listing("<ul class=\"all-items\"><li><a href=\"index.html\">").is_err());
        assert!(listing("<ul class=\"all-items\"><li><a href=\"fn.h.html\">").is_err());
    }

    #[test]
    fn a_difference_shows_an_item_s_lines_together() {
        let old = "a: 1\nb: pub fn b()\nc: 3\n";
        let new = "a: 1\nb: pub fn a()\nd: 4\n";
        assert_eq!(difference(old, new).unwrap(), "- b: pub fn b()\n+ b: pub fn a()\n- c: 3\n+ d: 4");
        assert_eq!(difference(old, old), None);
        let many: String = (0..MOST_LINES + 2).map(|i| format!("{i}: x\n")).collect();
        assert!(difference("", &many).unwrap().ends_with("\nand 2 more"));
    }
}
