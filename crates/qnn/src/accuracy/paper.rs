//! GPTQ as the paper has it (tests): the inverse, its Cholesky factor, and after each column an
//! update of all later ones. Its codes are compared with those of `gptq.rs`.

use qcore::{
    AffineRange, ChannelAxis, CodeRange, Groups, Kind, QParams, Range, Scheme, channel_params, group_params,
};
use qkernels::Threads;

use super::gptq::{GptqScales, gptq};
use super::hessian::Hessian;
use super::random::Random;
use crate::config::gptq::{GptqConfig, GptqOrder};

/// A matrix of f64, row after row.
type Matrix = Vec<Vec<f64>>;

/// The inverse, by Gauss-Jordan elimination with pivots from the largest of a column.
fn inverse(mut a: Matrix) -> Matrix {
    let k = a.len();
    let mut inverse: Matrix = (0..k).map(|i| (0..k).map(|j| f64::from(i == j)).collect()).collect();
    for col in 0..k {
        let pivot = (col..k).max_by(|&i, &j| a[i][col].abs().total_cmp(&a[j][col].abs())).unwrap();
        a.swap(col, pivot);
        inverse.swap(col, pivot);
        let scale = 1.0 / a[col][col];
        for j in 0..k {
            a[col][j] *= scale;
            inverse[col][j] *= scale;
        }
        for i in (0..k).filter(|&i| i != col) {
            let factor = a[i][col];
            for j in 0..k {
                a[i][j] -= factor * a[col][j];
                inverse[i][j] -= factor * inverse[col][j];
            }
        }
    }
    inverse
}

/// U, upper triangular, of `U^T U`.
fn upper_factor(a: &Matrix) -> Matrix {
    let k = a.len();
    let mut u = vec![vec![0.0; k]; k];
    for i in 0..k {
        for j in i..k {
            let rest: f64 = a[i][j] - (0..i).map(|p| u[p][i] * u[p][j]).sum::<f64>();
            u[i][j] = if i == j { rest.sqrt() } else { rest / u[i][i] };
        }
    }
    u
}

/// The code of a value, and whether it lies so close to a tie that rounding errors decide it.
fn code(params: &QParams, value: f64) -> (i32, bool) {
    let quotient = value / f64::from(params.scale());
    let (zero_point, codes) = (f64::from(params.zero_point()), params.codes());
    let code = (quotient.round_ties_even() + zero_point).clamp(codes.min().into(), codes.max().into());
    (code as i32, (quotient - quotient.floor() - 0.5).abs() < 1e-9)
}

/// The codes of one channel and, for each, the parameters it was rounded by, up to a value that is
/// close to a tie. Weights, factor and `given` are in the order of rounding. Dynamic groups have
/// `len` columns; otherwise all parameters are given.
fn row(
    mut w: Vec<f64>,
    u: &Matrix,
    scheme: &Scheme,
    len: usize,
    given: Option<&[QParams]>,
) -> Vec<(i32, QParams)> {
    let k = w.len();
    let mut codes: Vec<(i32, QParams)> = Vec::new();
    for i in 0..k {
        let params = match given {
            Some(given) => given[i],
            None if i % len == 0 => {
                let group: Vec<f32> = w[i..k.min(i + len)].iter().map(|&w| w as f32).collect();
                scheme.choose(Range::of(&group).unwrap()).unwrap()
            }
            None => codes[i - 1].1,
        };
        let (code, tie) = code(&params, w[i]);
        if tie {
            break;
        }
        codes.push((code, params));
        let restored = f64::from(params.scale()) * f64::from(code - params.zero_point());
        let error = (w[i] - restored) / u[i][i];
        for j in i + 1..k {
            w[j] -= error * u[i][j];
        }
    }
    codes
}

#[test]
fn codes_are_those_of_the_paper() {
    let mut random = Random::new(7);
    let (mut compared, mut all) = (0, 0);
    for case in 0..600 {
        let (n, k, rows) = (1 + random.below(6), 1 + random.below(40), 1 + random.below(60));
        let mut x = if case % 2 == 0 { random.values(rows * k) } else { random.correlated_rows(rows, k) };
        for _ in 0..random.below(4) {
            let (from, to) = (random.below(k), random.below(k));
            let dead = random.below(2) == 0;
            for x in x.chunks_exact_mut(k) {
                x[to] = if dead { 0.0 } else { x[from] };
            }
        }
        let weight = random.values(n * k);
        let mut hessian = Hessian::new(k).unwrap();
        hessian.add(&x, Threads::Serial).unwrap();
        let codes = CodeRange::signed([8, 4, 3, 2][random.below(4)]).unwrap();
        let scheme = match random.below(3) {
            0 => Scheme { codes, ..Scheme::weights_i8() },
            1 => Scheme { codes: CodeRange::unsigned(4).unwrap(), ..Scheme::weights_i8() },
            _ => {
                let kind = Kind::Affine { range: AffineRange::ExtendedToZero };
                Scheme { codes, kind, ..Scheme::weights_i8() }
            }
        };
        let len = [8, 16, 32][random.below(3)];
        let groups = Groups::new(n, k, len).unwrap();
        let of_channels = channel_params(&weight, ChannelAxis::rows(n, k).unwrap(), &scheme).unwrap();
        let of_groups = group_params(&weight, groups, &scheme).unwrap();
        for order in [GptqOrder::Inputs, GptqOrder::Activations, GptqOrder::ActivationsStaticGroups] {
            let mut inputs: Vec<usize> = (0..k).collect();
            if order != GptqOrder::Inputs {
                let square = |i: usize| hessian.entry(i, i);
                inputs.sort_by(|&a, &b| square(b).total_cmp(&square(a)).then(a.cmp(&b)));
            }
            let config = GptqConfig { order, damping: [0.01, 0.1][random.below(2)] };
            let mean = hessian.diagonal().sum::<f64>() / k as f64;
            let entry = |i: usize, j: usize| match (i == j, hessian.entry(i, j)) {
                (true, 0.0) => 1.0,
                (true, square) => square + config.damping * mean,
                (false, product) => product,
            };
            let damped = inputs.iter().map(|&i| inputs.iter().map(|&j| entry(i, j)).collect()).collect();
            let u = upper_factor(&inverse(damped));
            let dynamic = GptqScales::DynamicGroups { len, scheme: &scheme };
            let mut forms = vec![GptqScales::Channels(&of_channels), dynamic];
            if order != GptqOrder::Activations {
                forms.push(GptqScales::StaticGroups { len, params: &of_groups });
            }
            for scales in forms {
                let got = gptq(&weight, n, scales, &hessian, &config, Threads::Serial).unwrap();
                assert_eq!(got.damping, config.damping);
                let is_dynamic = matches!(scales, GptqScales::DynamicGroups { .. });
                let sorted = is_dynamic && order == GptqOrder::Activations;
                let in_order = sorted && !inputs.is_sorted();
                let expected: Vec<u32> = inputs.iter().map(|&input| input as u32).collect();
                assert_eq!(got.input_order, in_order.then_some(expected));
                for r in 0..n {
                    let w = inputs.iter().map(|&input| f64::from(weight[r * k + input])).collect();
                    let given: Vec<QParams> = match scales {
                        GptqScales::Channels(_) => vec![of_channels[r]; k],
                        _ => inputs.iter().map(|i| of_groups[r * groups.per_row() + i / len]).collect(),
                    };
                    let chosen = is_dynamic && order != GptqOrder::ActivationsStaticGroups;
                    let expected = row(w, &u, &scheme, len, (!chosen).then_some(&given[..]));
                    all += k;
                    compared += expected.len();
                    for (p, (code, params)) in expected.into_iter().enumerate() {
                        let position = if sorted { p } else { inputs[p] };
                        let got_params = match scales {
                            GptqScales::Channels(_) => got.params[r],
                            _ => got.params[r * groups.per_row() + position / len],
                        };
                        let what = format!("case {case}, {order:?}, {scales:?}, row {r}, column {p}");
                        assert_eq!(got_params, params, "{what}");
                        assert_eq!(i32::from(got.codes[r * k + position]), code, "{what}");
                    }
                }
            }
        }
    }
    // Hardly any value is close to a tie.
    assert!(compared * 100 > all * 99, "{compared} of {all}");
}
