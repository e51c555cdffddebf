//! Rows of cells, as aligned text and as HTML.

use std::fmt::{self, Write};

/// A table. The first column is aligned left, the others right.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub(crate) head: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(head: [&str; N]) -> Self {
        Self { head: head.map(str::to_owned).to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    pub(crate) fn html(&self) -> String {
        let cells = |tag: &str, row: &[String]| -> String {
            row.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect()
        };
        let mut html = format!("<table>\n<thead><tr>{}</tr></thead>\n<tbody>\n", cells("th", &self.head));
        for row in &self.rows {
            html += &format!("<tr>{}</tr>\n", cells("td", row));
        }
        html + "</tbody>\n</table>\n"
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = || std::iter::once(&self.head).chain(&self.rows);
        let cell_width =
            |row: &[String], column: usize| row.get(column).map_or(0, |cell| cell.chars().count());
        let width = |column| all().map(|row| cell_width(row, column)).max().unwrap_or(0);
        for row in all() {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                match column {
                    0 => write!(line, "{cell:<width$}", width = width(column))?,
                    _ => write!(line, "  {cell:>width$}", width = width(column))?,
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Escapes text for HTML, between tags and in attributes.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(["a", "n"]);
        table.row(["long".into(), "1000".into()]);
        assert_eq!(table.to_string(), "a        n\nlong  1000\n");
    }

    #[test]
    fn html_is_escaped() {
        let mut table = Table::new(["max |w|"]);
        table.row(["<1 & \"2\"".into()]);
        assert!(table.html().contains("<td>&lt;1 &amp; &quot;2&quot;</td>"));
    }
}
