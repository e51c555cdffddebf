//! How much faster are int8 products?

use anyhow::Result;
use qkernels::{Int32, Kernel, MatMut, MatRef, PackedWeights, Threads, Workspace, float, gemm};

use crate::figure::{Bar, Bars, Figure, Words};
use crate::machine::Machine;
use crate::outcome::Outcome;
use crate::pace;
use crate::table::Table;

/// The number of rows, of columns, and the depth of the product.
const SIZE: usize = 512;

/// How many int8 fit in the place of one f32.
const LANES: usize = 4;

pub(crate) fn answer(outcome: &mut Outcome) -> Result<()> {
    let cells = SIZE * SIZE;
    let (x, w): (Vec<f32>, Vec<f32>) =
        (0..cells).map(|i| ((i % 251) as f32 / 251.0, (i % 241) as f32 / 241.0 - 0.5)).unzip();
    let q: Vec<u8> = (0..cells).map(|i| (i % 256) as u8).collect();
    let codes: Vec<i8> = (0..cells).map(|i| (i % 253) as i8).collect();
    let (mut y, mut acc) = (vec![0.0; cells], vec![0; cells]);
    let operations = 2.0 * (SIZE * cells) as f64;

    let (mut kernels, mut float) = (Vec::new(), 0.0_f64);
    let mut workspace = Workspace::new();
    for kernel in Kernel::available() {
        let packed = PackedWeights::from_nk(MatRef::new(&codes, SIZE, SIZE)?, kernel)?;
        let (a, b) = (MatRef::new(&x, SIZE, SIZE)?, MatRef::new(&w, SIZE, SIZE)?);
        let q = MatRef::new(&q, SIZE, SIZE)?;
        let pace = pace::compare(
            || Ok(float::matmul(a, b, MatMut::new(&mut y, SIZE, SIZE)?, Threads::Serial)?),
            || {
                let acc = MatMut::new(&mut acc, SIZE, SIZE)?;
                Ok(gemm(q, &packed, &Int32::new(), acc, Threads::Serial, &mut workspace)?)
            },
            || (),
        )?;
        float = float.max(operations / pace.first / 1e9);
        kernels.push((kernel, operations / pace.second / 1e9));
    }

    let machine = Machine::of_today();
    let mut table = Table::new(["product", "f32 lanes", "int8 lanes", "Gop/s", "times f32"]);
    let mut bars = Vec::new();
    for (kernel, gops) in kernels {
        let columns = kernel.desc().vector_columns;
        let lanes = |each: usize| if columns > 1 { (columns * each).to_string() } else { "-".to_owned() };
        let times = gops / float;
        table.row([
            kernel.name().into(),
            lanes(1),
            lanes(LANES),
            format!("{gops:.1}"),
            format!("{times:.2}"),
        ]);
        let text = format!("{gops:.0} Gop/s, {times:.1} times f32");
        bars.push(Bar { name: kernel.name().into(), value: gops, text, colour: 0 });
    }
    table.row(["f32, gemm crate".into(), String::new(), String::new(), format!("{float:.1}"), "1.00".into()]);
    bars.push(Bar {
        name: "f32, gemm crate".into(),
        value: float,
        text: format!("{float:.0} Gop/s"),
        colour: 1,
    });
    outcome.text(format!(
        "\n* Question 5: how much faster are int8 products? (512 bits hold {} f32 or {} int8: {LANES} times as many; \
         {SIZE} x {SIZE} x {SIZE}, one thread, {})",
        512 / 32,
        512 / 8,
        machine.cpu
    ));
    outcome.table(table);
    let caption = format!(
        "Products of {SIZE} x {SIZE} x {SIZE} on {}, one thread, against four times f32.",
        machine.cpu
    );
    let height = Bars::height(bars.len()) + 108;
    outcome.figure(Figure::draw("questions-lanes", caption, (860, height as u32), |canvas| {
        Words::TITLE.write(canvas, "int8 products against f32", (28, 34))?;
        let subtitle = format!(
            "{}, {}; {SIZE} x {SIZE} x {SIZE}, u8 x i8 to int32, one thread",
            machine.cpu, machine.date
        );
        Words::SUBTITLE.write(canvas, &subtitle, (28, 60))?;
        let mark = Some((LANES as f64 * float, "4 times f32: what the lanes promise"));
        Bars { title: "", bars: &bars, area: (28, 64, 850), margins: (156, 210), mark }.draw(canvas)
    })?);
    Ok(())
}
