//! Tables as aligned text.

use core::fmt;

/// A table of rows of cells; the titles are the first row. The first column is aligned left, the
/// others right, and two spaces stand between columns.
pub(crate) struct Table<'t>(pub(crate) &'t [Vec<String>]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cell_width =
            |row: &[String], column: usize| row.get(column).map_or(0, |cell| cell.chars().count());
        let width = |column| self.0.iter().map(|row| cell_width(row, column)).max().unwrap_or(0);
        for row in self.0 {
            for (column, cell) in row.iter().enumerate() {
                match column {
                    0 => write!(f, "{cell:<width$}", width = width(column))?,
                    _ => write!(f, "  {cell:>width$}", width = width(column))?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [["a", "n"], ["long", "1000"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(Table(&rows).to_string(), "a        n\nlong  1000\n");
    }
}
