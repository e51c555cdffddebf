//! Plain Rust for every CPU: the kernel of last resort, and the one to read first.
//!
//! A panel is a single column. Its weights lie along k like the rows of `a`, and each sum is a dot
//! product. That is the one form that compilers turn into vector multiply-adds on any target
//! (`pmaddwd` on the x86-64 baseline).

use crate::cpu::vectorize::Level;
use crate::kernel::desc::{ActivationForm, KernelDesc, PanelKind, PeakLoop};
use crate::kernel::panel_order::Orders;
use crate::kernel::strip::{Strip, Tile};

pub(crate) const KERNEL: KernelDesc = KernelDesc {
    name: "portable_4x1",
    family: "portable",
    mr: 4,
    nr: 1,
    vector_columns: 1,
    kr: 2,
    kind: PanelKind::Any,
    narrow_groups: 0,
    proven: &[],
    ordered: None,
    form: ActivationForm::I16,
    signed_rows: false,
    band: 1,
    features: &[],
    level: Level::Baseline,
    run,
    stores: false,
    state: None,
    float: None,
    scaled: None,
    nibbles: None,
    peak: PeakLoop { operations: 2 * 4 * PEAK_K as u64, run: peak },
};

/// Depth of the tile that the peak loop runs on.
const PEAK_K: usize = 1024;

pub(crate) fn run(strip: &mut Strip<'_, '_>) {
    while let Some(mut tile) = strip.next_tile() {
        run_tile(&mut tile);
    }
}

fn run_tile(tile: &mut Tile<'_, '_, '_>) {
    match tile.rows {
        1 => body::<1>(tile),
        2 => body::<2>(tile),
        3 => body::<3>(tile),
        _ => body::<4>(tile),
    }
}

fn body<const M: usize>(tile: &mut Tile<'_, '_, '_>) {
    let k = 2 * tile.groups;
    let a: [&[[u8; 2]]; M] = core::array::from_fn(|i| &tile.a[i * tile.a_stride..].as_chunks::<2>().0[..k]);
    let mut acc = [0i32; M];
    for (p, &w) in (0..k).zip(tile.b) {
        for i in 0..M {
            let x = i16::from_ne_bytes(a[i][p]);
            acc[i] = acc[i].wrapping_add(i32::from(x) * i32::from(w));
        }
    }
    for (i, acc) in acc.into_iter().enumerate() {
        tile.acc[i] = tile.start(i, 0).wrapping_add(acc);
    }
}

/// There is no instruction to name, so this runs the body on a tile that fits the L1 cache.
fn peak(iterations: u64) -> i32 {
    // They are not on the stack, which may be small.
    let a = core::hint::black_box(vec![3u8; 4 * 2 * PEAK_K]);
    let b = core::hint::black_box(vec![-5i8; PEAK_K]);
    let mut acc = [0; 4];
    for _ in 0..iterations {
        let groups = PEAK_K / 2;
        run_tile(&mut Tile {
            a: &a,
            a_stride: 2 * PEAK_K,
            first: 0,
            rows: 4,
            b: &b,
            columns: 1,
            groups,
            orders: Orders::default(),
            acc: &mut acc,
            offsets: None,
            channel_sums: &[],
            store: None,
        });
    }
    acc.iter().fold(0, |sum, acc| sum.wrapping_add(*acc))
}
