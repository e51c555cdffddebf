//! The report: one HTML file that contains everything, with no network and no script.

use std::env::consts;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::figure::Figure;
use crate::machine::Machine;
use crate::outcome::{Outcome, Part};
use crate::table::{Table, escape};

const STYLE: &str = include_str!("report.css");

/// The report of all outcomes, whose pictures are in the folder `figures`.
pub(crate) fn html(machine: &Machine, outcomes: &[Outcome], figures: &Path) -> Result<String> {
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>int8 quantization, measured on {cpu}</title>\n<link rel=\"icon\" href=\"data:,\">\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>int8 quantization, measured</h1>\n\
         <p>Every demonstration of this workspace, as <code>cargo xtask repro</code> ran it.</p>\n{machine}</header>\n",
        cpu = escape(&machine.cpu),
        machine = described(machine)?.html(),
    );
    html += "<nav>\n<ol>\n";
    for (i, outcome) in outcomes.iter().enumerate() {
        writeln!(html, "<li><a href=\"#demo-{i}\">{}</a></li>", escape(&outcome.title))?;
    }
    html += "</ol>\n</nav>\n<main>\n";
    for (i, outcome) in outcomes.iter().enumerate() {
        let (title, command) = (escape(&outcome.title), escape(&outcome.command));
        writeln!(
            html,
            "<section id=\"demo-{i}\">\n<h2>{title}</h2>\n<p class=\"command\">cargo xtask {command}</p>"
        )?;
        for part in &outcome.parts {
            html += &match part {
                Part::Text(text) => format!("<pre>{}</pre>\n", escape(text.trim_matches('\n'))),
                Part::Table(table) => format!("<div class=\"wide\">{}</div>\n", table.html()),
                Part::Figure(figure) => picture(figure, figures)?,
            };
        }
        html += "</section>\n";
    }
    Ok(html + "</main>\n</body>\n</html>\n")
}

/// What was measured, and on which machine.
fn described(machine: &Machine) -> Result<Table> {
    let selection = qkernels::report()?;
    let cores = thread::available_parallelism().map_or_else(|_| "unknown".into(), |count| count.to_string());
    let mut table = Table::new(["machine", ""]);
    for (what, value) in [
        ("CPU", machine.cpu.clone()),
        ("date", machine.date.clone()),
        ("cores", cores),
        ("system", format!("{} {}", consts::OS, consts::ARCH)),
        ("kernel", format!("{}: {}", selection.kernel, selection.reason)),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
    ] {
        table.row([what.into(), value]);
    }
    Ok(table)
}

fn picture(figure: &Figure, folder: &Path) -> Result<String> {
    let [png, _] = figure.files(folder);
    let data = STANDARD.encode(fs::read(&png).with_context(|| format!("cannot read {}", png.display()))?);
    let caption = escape(&figure.caption);
    Ok(format!(
        "<figure>\n<img alt=\"{caption}\" src=\"data:image/png;base64,{data}\">\n<figcaption>{caption}</figcaption>\n</figure>\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_in_the_one_file() {
        let machine = Machine { cpu: "A <CPU>".into(), date: "2026-01-31".into() };
        let mut outcome = Outcome::new("demo x", "A & B");
        outcome.text("1 < 2");
        let mut table = Table::new(["a", "b"]);
        table.row(["c".into(), "d".into()]);
        outcome.table(table);
        outcome.figure(Figure::draw("x", "a picture", (20, 10), |_| Ok(())).unwrap());
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("x.png"), b"\x89PNG\r\n\x1a\n").unwrap();
        let html = html(&machine, &[outcome], folder.path()).unwrap();
        for part in [
            "A &lt;CPU&gt;",
            "2026-01-31",
            "<h2>A &amp; B</h2>",
            "cargo xtask demo x",
            "<pre>1 &lt; 2</pre>",
            "<td>c</td><td>d</td>",
            "src=\"data:image/png;base64,iVBOR",
            "<figcaption>a picture</figcaption>",
        ] {
            assert!(html.contains(part), "{part}");
        }
        assert!(!html.contains("http") && !html.contains("<script"));
    }
}
