//! `cargo xtask kernels --cost`: what the inner loop of each kernel executes for 64 products,
//! counted in the assembly that the compiler generates. No CPU that could run the kernel is needed.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Write, stdout};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, bail};

use super::assembly::{Loop, inner_loops};
use crate::cargo;

/// The number of products that the counts refer to, which is what one 512-bit `vpdpbusd` computes.
const PRODUCTS: f64 = 64.0;

pub(crate) fn run(target: Option<&str>) -> Result<()> {
    let assembly = compile(target)?;
    writeln!(stdout(), "{}\n", compiler()?)?;
    writeln!(stdout(), "| kernel | multiply | add | load | all instructions |")?;
    writeln!(stdout(), "|---|---|---|---|---|")?;
    for (family, inner) in full_tiles(&assembly) {
        let each = |count: usize| count as f64 * PRODUCTS / inner.products as f64;
        let [multiplies, adds, loads, instructions] =
            [inner.multiplies, inner.adds, inner.loads, inner.instructions].map(each);
        writeln!(stdout(), "| {family} | {multiplies:.2} | {adds:.2} | {loads:.2} | {instructions:.2} |")?;
    }
    Ok(())
}

/// The inner loop of the full tile of each kernel. Of all its loops it has the fewest loads per
/// product, because smaller tiles share their loads less.
fn full_tiles(assembly: &str) -> BTreeMap<String, Loop> {
    let mut best: BTreeMap<String, Loop> = BTreeMap::new();
    for found in inner_loops(assembly) {
        let Some(family) = family(&found.function) else { continue };
        // Loops that only multiply, which measure the peak of a CPU, load nothing.
        if found.products == 0 || found.loads == 0 {
            continue;
        }
        let cost = |of: &Loop| [of.loads, of.instructions].map(|count| count as f64 / of.products as f64);
        match best.get(family) {
            Some(other) if cost(other) <= cost(&found) => {}
            _ => drop(best.insert(family.to_owned(), found)),
        }
    }
    best
}

/// The file of `kernels/` that a function comes from, by the parts of its mangled name (each
/// preceded by its length): `7kernels7aarch648neon_x4body` is `body` of `neon_x4`, and
/// `7kernels8portable3run` is `run` of `portable`.
fn family(function: &str) -> Option<&str> {
    const MODULE: &str = "7kernels";
    let mut rest = &function[function.find(MODULE)? + MODULE.len()..];
    let mut part = || {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (length, after) = rest.split_at(digits);
        let (name, after) = after.split_at_checked(length.parse().ok()?)?;
        rest = after;
        Some(name)
    };
    match part()? {
        "aarch64" | "x86_64" => part(),
        family => Some(family),
    }
}

/// The compiler that cargo runs, and its version.
fn compiler() -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| OsStr::new("rustc").into());
    let output = Command::new(rustc).arg("--version").output().context("cannot start rustc")?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// The assembly of qkernels for `target`, or for this machine.
fn compile(target: Option<&str>) -> Result<String> {
    let folder = cargo::target_folder().join("cost");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let path = fs::canonicalize(&folder)?.join(format!("{}.s", target.unwrap_or("host")));
    let mut command = cargo::command();
    // With link-time optimization the assembly of a library is unfinished, and loops are not
    // vectorized yet. More than one codegen unit would give more than one file.
    command.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1");
    command.args(["rustc", "--release", "--lib", "--package", "qkernels"]);
    if let Some(target) = target {
        command.args(["--target", target]);
    }
    let emit = format!("asm={}", path.display());
    command.args(["--", "-C", "debuginfo=0", "--emit", &emit]);
    let status = command.status().context("cannot start cargo rustc")?;
    if !status.success() {
        bail!("cargo rustc: {status}");
    }
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_read_out_of_either_mangling() {
        let legacy = "_ZN8qkernels7kernels7aarch6412neon_dotprod4body17h239ad706d12c923aE";
        assert_eq!(family(legacy), Some("neon_dotprod"));
        let v0 = "_RINvNtNtNtCs1Jx_8qkernels7kernels6x86_6411avx512_vnni4bodyKj8_Kj3_Kj1_EB8_";
        assert_eq!(family(v0), Some("avx512_vnni"));
        assert_eq!(family("_ZN8qkernels7kernels8portable3run17h0123456789abcdefE"), Some("portable"));
        assert_eq!(family("_ZN8qkernels4pack4pack17h0123456789abcdefE"), None);
    }

    #[test]
    fn the_full_tile_is_the_loop_with_the_fewest_loads() {
        let body = |loads: usize| {
            let loads = "\tldr\tq0, [x0], #16\n".repeat(loads);
            format!(".LBB0_1:\n{loads}\tsmmla\tv1.4s, v0.16b, v0.16b\n\tb.ne\t.LBB0_1\n")
        };
        let text =
            format!("_ZN1q7kernels7aarch649neon_i8mm4body1hE:\n{}{}\n.Lfunc_end0:\n", body(3), body(2));
        let tiles = full_tiles(&text.replacen("LBB0_1", "LBB0_0", 2));
        assert_eq!(tiles.len(), 1);
        let inner = &tiles["neon_i8mm"];
        assert_eq!((inner.multiplies, inner.loads, inner.instructions, inner.products), (1, 2, 4, 32));
    }
}
