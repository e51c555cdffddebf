//! The picture of products in groups: bars of Gop/s, for each kernel at one row and at many rows.

use anyhow::Result;
use qbenches::Record;

use super::groups::{Groups, cell};
use crate::figure::{Bar, Bars, Figure, Words};
use crate::machine::Machine;

/// Pixels of a panel from left to right, and of the margin beside it.
const PANEL: i32 = 548;
const MARGIN: i32 = 28;

/// The first panels' top.
const TOP: i32 = 92;

/// The room between the panels of two kernels.
const GAP: i32 = 36;

/// The picture as SVG.
pub(crate) fn picture(machine: &Machine, groups: &Groups<'_>) -> Result<String> {
    let rows: Vec<Vec<&Record>> =
        groups.kernels().into_iter().map(|kernel| shapes(&groups.per_channel(kernel))).collect();
    let height = |row: &Vec<&Record>| {
        let count = row.iter().map(|shape| groups.beside(shape).len()).max().unwrap_or(0);
        Bars::height(count) + GAP
    };
    let bottom = TOP + rows.iter().map(height).sum::<i32>();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0) as i32;
    // The title is wider than one panel.
    let size = ((MARGIN + (PANEL + MARGIN) * columns).max(900).unsigned_abs(), bottom.unsigned_abs());
    let figure = Figure::draw("groups", "Gop/s of products in groups", size, |canvas| {
        let title = format!("Products in groups on {}", machine.cpu);
        Words::TITLE.write(canvas, &title, (MARGIN, 34))?;
        let subtitle = format!(
            "{}, one thread, Gop/s; in brackets the share of the kernel's peak, or the ratio to the product per channel",
            machine.date
        );
        Words::SUBTITLE.write(canvas, &subtitle, (MARGIN, 60))?;
        let mut top = TOP;
        for row in &rows {
            for (column, shape) in row.iter().enumerate() {
                let left = MARGIN + column as i32 * (PANEL + MARGIN);
                let Record { contender, m, n, k, .. } = shape;
                let bars: Vec<Bar> = groups.beside(shape).into_iter().map(bar).collect();
                Bars {
                    title: &format!("{contender}, {m} x {n} x {k}"),
                    bars: &bars,
                    area: (left, top, left + PANEL),
                    margins: (170, 86),
                    mark: Some((shape.gops, "per channel")),
                }
                .draw(canvas)?;
            }
            top += height(row);
        }
        Ok(())
    })?;
    Ok(figure.svg)
}

/// What the kernel measured at one row and at most rows, where it measured such shapes.
fn shapes<'r>(per_channel: &[&'r Record]) -> Vec<&'r Record> {
    let all = || per_channel.iter().copied();
    let one = all().find(|record| record.m == 1);
    one.into_iter().chain(all().filter(|record| record.m > 1).max_by_key(|record| record.m)).collect()
}

/// The product per channel has a colour of its own.
fn bar(record: &Record) -> Bar {
    let colour = usize::from(record.over_per_channel.is_none());
    Bar { name: record.operands.clone(), value: record.gops, text: cell(record), colour }
}

#[cfg(test)]
mod tests {
    use super::super::groups::tests::records;
    use super::*;

    #[test]
    fn one_row_and_many_have_their_bars() {
        let records = records();
        let machine = Machine { cpu: "A CPU".into(), date: "2026-01-31".into() };
        let svg = picture(&machine, &Groups::new(&records)).unwrap();
        for part in [
            "A CPU",
            "2026-01-31",
            "avx2_6x16, 1 x 4096 x 4096",
            "avx2_6x16, 128 x 768 x 768",
            "portable_4x1, 1 x 4096 x 4096",
            "84 (1.39)",
        ] {
            assert!(svg.contains(part), "{part}");
        }
        assert!(!svg.contains("portable_4x1, 128"));
    }
}
