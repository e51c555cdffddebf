//! Reads the loops from the assembly of a compiler, as far as kernels need: x86-64 in AT&T syntax,
//! and aarch64.

use std::collections::HashMap;

/// The instructions of an innermost loop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Loop {
    /// The mangled name of the function.
    pub(crate) function: String,
    /// How many multiply integers, whether or not they also add the products.
    pub(crate) multiplies: usize,
    /// How many products these compute.
    pub(crate) products: usize,
    /// How many only add vectors.
    pub(crate) adds: usize,
    /// The vector registers loaded, plus the vector operands in memory.
    pub(crate) loads: usize,
    /// All instructions.
    pub(crate) instructions: usize,
}

impl Loop {
    fn count(&mut self, instruction: &str) {
        let (mnemonic, operands) = split(instruction);
        self.instructions += 1;
        let products = products(mnemonic, operands);
        self.products += products;
        self.multiplies += usize::from(products > 0);
        self.adds += usize::from(is_vector_add(mnemonic, operands));
        self.loads += vector_loads(mnemonic, operands);
    }
}

/// The innermost loops of all functions.
pub(crate) fn inner_loops(assembly: &str) -> Vec<Loop> {
    let mut loops = Vec::new();
    let (mut function, mut instructions, mut labels) = ("", Vec::new(), HashMap::new());
    for line in assembly.lines() {
        if let Some(label) = line.strip_suffix(':').filter(|_| !line.starts_with('\t')) {
            if label.starts_with("_ZN") || label.starts_with("_R") {
                (function, instructions, labels) = (label, Vec::new(), HashMap::new());
            } else if label.starts_with(".LBB") {
                labels.insert(label, instructions.len());
            }
            continue;
        }
        let Some(instruction) = line.strip_prefix('\t').filter(|line| !line.starts_with(['.', '#', '/']))
        else {
            continue;
        };
        instructions.push(instruction);
        // A backward jump to a label ends a loop. In an innermost loop there is no other label in
        // between.
        let target = instruction.rsplit(['\t', ' ']).next().and_then(|target| labels.get(target));
        if let Some(&start) = target
            && labels.values().all(|&label| label <= start)
        {
            let mut found = Loop { function: function.to_owned(), ..Loop::default() };
            instructions[start..].iter().for_each(|instruction| found.count(instruction));
            loops.push(found);
        }
    }
    loops
}

/// Splits into mnemonic and operands. A request for an encoding, `{vex}`, is dropped.
fn split(instruction: &str) -> (&str, &str) {
    let instruction = instruction.strip_prefix("{vex}\t").unwrap_or(instruction);
    instruction.split_once('\t').unwrap_or((instruction, ""))
}

/// The number of integer products that an instruction computes.
fn products(mnemonic: &str, operands: &str) -> usize {
    let bytes = if operands.contains("zmm") {
        64
    } else if operands.contains("ymm") {
        32
    } else {
        16
    };
    match mnemonic {
        "smmla" => 32,
        "sdot" => 16,
        "smull" | "smull2" | "smlal" | "smlal2" if operands.contains(".8h,") && operands.contains('b') => 8,
        "smull" | "smull2" | "smlal" | "smlal2" if operands.contains(".4s,") => 4,
        "vpdpbusd" => bytes,
        "vpmaddwd" => bytes / 2,
        // This occurs only if the compiler vectorizes a loop of single products, where every other
        // product is by zero.
        "pmaddwd" => bytes / 4,
        _ => 0,
    }
}

fn is_vector_add(mnemonic: &str, operands: &str) -> bool {
    match mnemonic {
        "sadalp" | "vpaddd" | "paddd" => true,
        "add" => operands.starts_with('v'),
        _ => false,
    }
}

/// The vector registers that an instruction loads, or the vector operands that it takes from
/// memory.
fn vector_loads(mnemonic: &str, operands: &str) -> usize {
    if operands.contains("%xmm") || operands.contains("%ymm") || operands.contains("%zmm") {
        return usize::from(operands.contains('('));
    }
    let is_vector =
        |register: &str| register.starts_with(['q', 'd', 's', 'v', '{']) && !register.starts_with("sp");
    match mnemonic {
        "ldp" => operands.split(", ").take(2).filter(|register| is_vector(register)).count(),
        _ if mnemonic.starts_with("ld") => usize::from(is_vector(operands.trim_start())),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_what_lies_between_a_label_and_the_jump_back_to_it() {
        let text = "_ZN1f:\n\tmov\tx0, x1\n.LBB0_1:\n\tcbz\tx1, .LBB0_9\n.LBB0_2:\n\tldp\tq0, q1, [x0], #32\n\tldr\tx9, [x2]\n\
                    \tsdot\tv2.4s, v0.16b, v1.4b[0]\n\tsubs\tx1, x1, #1\n\tb.ne\t.LBB0_2\n\tb\t.LBB0_1\n";
        let loops = inner_loops(text);
        assert_eq!(loops.len(), 1, "{loops:?}");
        let Loop { multiplies, products, loads, instructions, .. } = loops[0];
        assert_eq!((multiplies, products, loads, instructions), (1, 16, 2, 5));
    }

    #[test]
    fn instructions_of_both_architectures_are_known() {
        for (instruction, expected) in [
            ("vpdpbusd\t%zmm1, %zmm2, %zmm3", (64, false, 0)),
            ("{vex}\tvpdpbusd\t64(%rdi), %ymm2, %ymm3", (32, false, 1)),
            ("vpmaddwd\t%ymm1, %ymm2, %ymm3", (16, false, 0)),
            ("pmaddwd\t%xmm5, %xmm3", (4, false, 0)),
            ("vpaddd\t%ymm1, %ymm2, %ymm3", (0, true, 0)),
            ("vpbroadcastd\t(%r8,%rcx), %zmm5", (0, false, 1)),
            ("movq\t8(%rdi), %rax", (0, false, 0)),
            ("smmla\tv31.4s, v8.16b, v9.16b", (32, false, 0)),
            ("smull2\tv9.8h, v13.16b, v29.16b", (8, false, 0)),
            ("smlal\tv9.4s, v13.4h, v29.4h", (4, false, 0)),
            ("sadalp\tv27.4s, v10.8h", (0, true, 0)),
            ("add\tx0, x0, #1", (0, false, 0)),
            ("ldr\tq1, [x0, x12]", (0, false, 1)),
            ("ldp\tx9, x8, [x0]", (0, false, 0)),
            ("ldp\tq9, q8, [x14, #-64]", (0, false, 2)),
        ] {
            let (mnemonic, operands) = split(instruction);
            let found = (
                products(mnemonic, operands),
                is_vector_add(mnemonic, operands),
                vector_loads(mnemonic, operands),
            );
            assert_eq!(found, expected, "{instruction}");
        }
    }
}
