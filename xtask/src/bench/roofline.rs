//! The picture of results: arithmetic intensity against Gop/s, below the ceilings measured in the
//! same run.

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use qbenches::{Kind, Record};

use super::labels::{Area, Labels};
use super::rates::{memory_rate, peaks};
use crate::figure::{Canvas, Drawn, PALETTE};
use crate::machine::Machine;

const SIZE: (u32, u32) = (1120, 680);

/// The x of the column on the right.
const LEGEND: i32 = 860;

/// The size of a label's font in pixels.
const LABEL: i32 = 12;

/// Shapes with fewer operations measure the call rather than the product, and would squeeze all
/// other points into a corner.
const LEAST_OPERATIONS: f64 = 1e5;

/// The picture as SVG.
pub(crate) fn picture(machine: &Machine, records: &[Record]) -> Result<String> {
    let mut svg = String::new();
    let canvas = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    draw(&canvas, machine, records).map_err(|error| anyhow!("cannot draw: {error}"))?;
    drop(canvas);
    Ok(svg)
}

fn draw(canvas: &Canvas<'_>, machine: &Machine, records: &[Record]) -> Drawn {
    let (memory, peaks) = (memory_rate(records), peaks(records));
    let operations = |record: &Record| 2.0 * record.m as f64 * record.n as f64 * record.k as f64;
    let all = || records.iter().filter(|record| record.kind == Kind::Kernel);
    // If there are only small shapes, they are shown.
    let only_small = all().all(|record| operations(record) < LEAST_OPERATIONS);
    let points: Vec<&Record> =
        all().filter(|record| only_small || operations(record) >= LEAST_OPERATIONS).collect();
    let highest = peaks.iter().map(|(_, peak)| *peak).fold(0.0, f64::max);

    // The ridge, where the ceilings meet, is always visible.
    let x = range(points.iter().map(|point| point.intensity()).chain([highest / memory]), 1.6);
    let y = range(points.iter().map(|point| point.gops).chain([highest]), 1.6);

    canvas.fill(&WHITE)?;
    text(canvas, &format!("int8 products on {}", machine.cpu), (24, 14), 22, &BLACK)?;
    let threads = super::THREADS;
    let subtitle = format!("{}, threads: {threads}, u8 x i8 to int32, weights packed before", machine.date);
    text(canvas, &subtitle, (24, 42), 14, &BLACK)?;

    let (plot, _) = canvas.split_horizontally(LEGEND);
    let mut chart = ChartBuilder::on(&plot)
        .margin(10)
        .margin_top(66)
        .x_label_area_size(46)
        .y_label_area_size(64)
        .build_cartesian_2d((x.0..x.1).log_scale(), (y.0..y.1).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("arithmetic intensity, operations per byte of operands and int32 result")
        .y_desc("Gop/s")
        .x_label_formatter(&|x| number(*x))
        .y_label_formatter(&|y| number(*y))
        .label_style(("sans-serif", 13))
        .axis_desc_style(("sans-serif", 14))
        .bold_line_style(RGBColor(205, 205, 205))
        .light_line_style(RGBColor(238, 238, 238))
        .draw()?;
    let at = |x: f64, y: f64| chart.backend_coord(&(x, y));

    let mut taken = ceilings(canvas, &at, &peaks, memory, x, y)?;
    for point in &points {
        let colour = peaks.iter().position(|(kernel, _)| *kernel == point.contender).unwrap_or_default();
        let place = at(point.intensity(), point.gops);
        mark(canvas, colour, place)?;
        taken.push(Area::around(place, 6));
    }

    let (left, top) = at(x.0, y.1);
    let (right, bottom) = at(x.1, y.0);
    let mut labels = Labels::new(Area { left, top, right, bottom }, taken, LABEL);
    // Only the points of the fastest kernel, starting with the slowest point, because there is not
    // room for all.
    let fastest = peaks.iter().max_by(|x, y| x.1.total_cmp(&y.1)).map(|(kernel, _)| *kernel);
    let mut labelled: Vec<&&Record> =
        points.iter().filter(|point| Some(point.contender.as_str()) == fastest).collect();
    labelled.sort_by(|x, y| x.gops.total_cmp(&y.gops));
    for point in labelled {
        let name = format!("{}x{}x{}", point.m, point.n, point.k);
        if let Some(corner) = labels.place(at(point.intensity(), point.gops), &name) {
            text(canvas, &name, corner, LABEL, &RGBColor(60, 60, 60))?;
        }
    }
    legend(canvas, &peaks, memory, only_small)?;
    canvas.present()?;
    Ok(())
}

/// The smallest and the largest value, with room around them.
fn range(values: impl Iterator<Item = f64>, room: f64) -> (f64, f64) {
    let (least, most) = values
        .filter(|value| value.is_finite() && *value > 0.0)
        .fold((f64::INFINITY, 0.0), |(least, most), value| (value.min(least), value.max(most)));
    if least > most { (0.1, 10.0) } else { (least / room, most * room) }
}

/// Draws the slope of the memory and the peak of each kernel, and returns the areas that they take.
fn ceilings(
    canvas: &Canvas<'_>,
    at: &impl Fn(f64, f64) -> (i32, i32),
    peaks: &[(&str, f64)],
    memory: f64,
    x: (f64, f64),
    y: (f64, f64),
) -> std::result::Result<Vec<Area>, Box<dyn std::error::Error>> {
    let mut taken = Vec::new();
    let mut line = |from: (i32, i32), to: (i32, i32), style: ShapeStyle| -> Drawn {
        canvas.draw(&PathElement::new(vec![from, to], style))?;
        let steps = ((to.0 - from.0).abs() / 4).max(1);
        let between = |from: i32, to: i32, i: i32| from + (to - from) * i / steps;
        taken.extend(
            (0..=steps).map(|i| Area::around((between(from.0, to.0, i), between(from.1, to.1, i)), 5)),
        );
        Ok(())
    };
    let highest = peaks.iter().map(|(_, peak)| *peak).fold(0.0, f64::max);
    let start = x.0.max(y.0 / memory);
    line(at(start, start * memory), at(highest / memory, highest), BLACK.stroke_width(2))?;
    for (i, (_, peak)) in peaks.iter().enumerate() {
        let ridge = (peak / memory).max(x.0);
        line(at(ridge, *peak), at(x.1, *peak), PALETTE[i % PALETTE.len()].stroke_width(2))?;
    }
    Ok(taken)
}

/// The mark of a kernel.
fn mark(canvas: &Canvas<'_>, kernel: usize, (x, y): (i32, i32)) -> Drawn {
    let style = PALETTE[kernel % PALETTE.len()].filled();
    match kernel % 4 {
        0 => canvas.draw(&Circle::new((x, y), 5, style))?,
        1 => canvas.draw(&Polygon::new(vec![(x, y - 6), (x + 6, y + 5), (x - 6, y + 5)], style))?,
        2 => canvas.draw(&Rectangle::new([(x - 4, y - 4), (x + 5, y + 5)], style))?,
        _ => canvas.draw(&Polygon::new(vec![(x, y - 6), (x + 6, y), (x, y + 6), (x - 6, y)], style))?,
    }
    Ok(())
}

/// The column on the right.
fn legend(canvas: &Canvas<'_>, peaks: &[(&str, f64)], memory: f64, only_small: bool) -> Drawn {
    let left = LEGEND + 14;
    let mut top = 76;
    for (i, (kernel, peak)) in peaks.iter().enumerate() {
        mark(canvas, i, (left + 12, top + 8))?;
        text(canvas, kernel, (left + 36, top), 14, &BLACK)?;
        let colour = PALETTE[i % PALETTE.len()];
        canvas
            .draw(&PathElement::new(vec![(left, top + 27), (left + 24, top + 27)], colour.stroke_width(2)))?;
        text(canvas, &format!("its peak, {peak:.0} Gop/s"), (left + 36, top + 19), 13, &BLACK)?;
        top += 50;
    }
    canvas.draw(&PathElement::new(vec![(left, top + 8), (left + 24, top + 8)], BLACK.stroke_width(2)))?;
    text(canvas, &format!("reading memory, {memory:.1} GB/s"), (left + 36, top), 14, &BLACK)?;
    top += 36;
    let mut notes = vec![
        "Labels: m x n x k of the fastest",
        "kernel's points, where there is room.",
        "Points above the memory's line have",
        "their operands in a cache.",
    ];
    if !only_small {
        notes.push("Products below 100,000 operations");
        notes.push("are left out.");
    }
    for note in notes {
        text(canvas, note, (left, top), 13, &RGBColor(60, 60, 60))?;
        top += 18;
    }
    Ok(())
}

fn text(canvas: &Canvas<'_>, text: &str, corner: (i32, i32), size: i32, colour: &RGBColor) -> Drawn {
    canvas.draw(&Text::new(text.to_owned(), corner, ("sans-serif", size).into_font().color(colour)))?;
    Ok(())
}

/// The text of a tick, without needless digits.
fn number(x: f64) -> String {
    if x >= 1.0 { format!("{x:.0}") } else { format!("{}", (x * 1000.0).round() / 1000.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(lines: &[&str]) -> Vec<Record> {
        lines.iter().map(|line| line.parse().unwrap()).collect()
    }

    #[test]
    fn ceilings_are_the_best_that_was_seen() {
        let records = records(&[
            "memory,read,,,0,0,0,0,,12,,",
            "kernel,avx2_6x16,u8 x i8,odd,7,13,17,20,180,1,,exact",
            "kernel,avx2_6x16,u8 x i8,odd,33,65,127,100,190,10,,exact",
            "memory,read,,,0,0,0,0,,14,,",
        ]);
        assert_eq!(memory_rate(&records), 14.0);
        assert_eq!(peaks(&records), [("avx2_6x16", 190.0)]);
        let svg = picture(&Machine { cpu: "A CPU".into(), date: "2026-01-31".into() }, &records).unwrap();
        for part in ["A CPU", "2026-01-31", "threads: 1", "33x65x127", "avx2_6x16", "Gop/s", "14.0 GB/s"] {
            assert!(svg.contains(part), "{part}");
        }
    }

    #[test]
    fn one_tiny_point_is_drawn_too() {
        let records = records(&[
            "memory,read,,,0,0,0,0,,12,,",
            "kernel,portable_4x1,u8 x i8,odd,1,1,1,0.02,27,0.06,,exact",
        ]);
        let machine = Machine { cpu: "A CPU".into(), date: "2026-01-31".into() };
        assert!(picture(&machine, &records).unwrap().contains("1x1x1"));
    }
}
