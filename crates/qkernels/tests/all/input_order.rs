//! Weights whose k is in another order than the inputs'. Products have the bits of those whose rows
//! were put in that order by hand.

use half::{bf16, f16};
use qcore::{Float, Scheme};
use qkernels::{
    Dynamic, FloatStage, GemmError, Kernel, MatMut, MatRef, ScaleError, ScaledWeights, Threads, WeightScales,
    Workspace, weight_only,
};

use crate::float_rows::scaled_products;
use crate::oracle::in_parts::Layer;
use crate::oracle::{Noise, around, pack};

fn schemes() -> [Dynamic; 4] {
    let [i8s, u8s] = [Scheme::weights_i8(), Scheme::activations_u8()];
    [Dynamic::PerToken(i8s), Dynamic::PerToken(u8s), Dynamic::PerTensor(i8s), Dynamic::PerTensor(u8s)]
}

/// An order of `k` inputs that moves some of them.
fn shuffled(noise: &mut Noise, k: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..k as u32).collect();
    (1..k).for_each(|at| order.swap(at, noise.below(at + 1)));
    if k > 1 && order.is_sorted() {
        order.swap(0, k - 1);
    }
    order
}

/// Rows as they are and with their columns in `order`.
fn rows<F: Float>(noise: &mut Noise, m: usize, order: &[u32]) -> [Vec<F>; 2] {
    let k = order.len();
    let mut x = noise.floats(m * k, 1.0);
    // Rows have ranges of their own.
    x.chunks_mut(k).enumerate().for_each(|(i, row)| row.iter_mut().for_each(|x| *x *= (i + 1) as f32));
    let x: Vec<F> = x.into_iter().map(F::narrow).collect();
    let by_hand = x.chunks(k).flat_map(|row| order.iter().map(|&p| row[p as usize])).collect();
    [x, by_hand]
}

fn check<F: Float, Y: Float>(noise: &mut Noise, m: usize, layer: &Layer) {
    let order = shuffled(noise, layer.k);
    let [x, by_hand] = rows::<F>(noise, m, &order);
    let (x, by_hand) = (MatRef::new(&x, m, layer.k).unwrap(), MatRef::new(&by_hand, m, layer.k).unwrap());
    let mut how = schemes()[noise.below(4)];
    // A single group is one in any order.
    let scheme = Scheme::weights_i8();
    if layer.group_len.is_none_or(|len| len >= layer.k) && noise.below(2) == 0 {
        how = match layer.k {
            ..=32 if noise.below(2) == 0 => Dynamic::GgmlQ8_0,
            _ => Dynamic::PerGroup { scheme, group_len: layer.k.next_multiple_of(16) },
        };
    }
    for kernel in Kernel::available() {
        let plain = layer.packed(kernel);
        let ordered = plain.clone().with_input_order(&order).unwrap();
        let expected = scaled_products::<F, Y>(by_hand, how, (&plain, &layer.bias), Threads::Serial);
        for w in [ordered.clone(), ordered.with_sums()] {
            let y = scaled_products::<F, Y>(x, how, (&w, &layer.bias), Threads::Serial);
            assert!(y == expected, "{kernel}: {m} x {}, {how:?}", layer.form());
        }
    }
}

#[test]
fn products_have_the_bits_of_rows_in_the_order_of_the_weights() {
    let mut noise = Noise::new(180);
    for desc in Kernel::available().map(Kernel::desc) {
        for m in (1..=9).chain([17]) {
            for n in around(desc.nr).chain([2 * desc.nr + 1]) {
                let k = 1 + noise.below(300);
                let layer = Layer::new(&mut noise, n, k);
                check::<f32, f32>(&mut noise, m, &layer);
            }
        }
    }
    for k in 1..=100 {
        let layer = Layer::new(&mut noise, 19, k);
        check::<f16, f32>(&mut noise, 1 + k % 8, &layer);
        check::<bf16, f16>(&mut noise, 1 + k % 8, &layer);
    }
    for (m, n, k) in [(130, 20, 600), (3, 40, 4100)] {
        let layer = Layer::new(&mut noise, n, k);
        check::<f32, f32>(&mut noise, m, &layer);
        check::<f16, f32>(&mut noise, m, &layer);
    }
}

#[test]
fn integer_products_have_the_bits_of_the_definition() {
    let mut noise = Noise::new(181);
    for (n, k) in [(19, 96), (33, 260)] {
        let layer = Layer::new(&mut noise, n, k);
        let order = shuffled(&mut noise, k);
        let [x, by_hand] = rows::<f32>(&mut noise, 5, &order);
        for how in schemes() {
            for kernel in Kernel::available() {
                let w = layer.packed(kernel).with_input_order(&order).unwrap();
                let x = MatRef::new(&x, 5, k).unwrap();
                let [y, of_rows, _] = scaled_products::<f32, f32>(x, how, (&w, &layer.bias), Threads::Serial);
                let expected = layer.expected(&by_hand, how);
                assert!(y == expected && of_rows == expected, "{kernel}: {}", layer.form());
            }
        }
    }
}

#[test]
fn strides_and_threads_change_nothing() {
    let mut noise = Noise::new(182);
    let pools =
        [1, 2, 5].map(|threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap());
    for (m, n, k) in [(7, 100, 300), (40, 33, 520), (1, 500, 64)] {
        let layer = Layer::new(&mut noise, n, k);
        let order = shuffled(&mut noise, k);
        let [x, _] = rows::<f32>(&mut noise, m, &order);
        for kernel in Kernel::available() {
            let w = layer.packed(kernel).with_input_order(&order).unwrap();
            for how in schemes() {
                let run = |x: MatRef<'_, f32>, threads: Threads<'_>| {
                    scaled_products::<f32, f32>(x, how, (&w, &layer.bias), threads)
                };
                let serial = run(MatRef::new(&x, m, k).unwrap(), Threads::Serial);
                for pool in &pools {
                    assert!(run(MatRef::new(&x, m, k).unwrap(), Threads::Pool(pool)) == serial, "{kernel}");
                }
                for (row_stride, col_stride) in [(k + 1, 1), (1, m), (2 * k, 2)] {
                    let mut laid_out = vec![f32::NAN; (m - 1) * row_stride + (k - 1) * col_stride + 1];
                    for (at, &x) in x.iter().enumerate() {
                        laid_out[at / k * row_stride + at % k * col_stride] = x;
                    }
                    let x = MatRef::with_strides(&laid_out, m, k, row_stride, col_stride).unwrap();
                    assert!(
                        run(x, Threads::Serial) == serial,
                        "{kernel}, strides ({row_stride}, {col_stride})"
                    );
                }
            }
        }
    }
}

#[test]
fn values_are_in_the_order_of_inputs_and_codes_as_they_were_packed() {
    let mut noise = Noise::new(183);
    for k in [1, 2, 40, 130] {
        let layer = Layer::new(&mut noise, 5, k);
        let order = shuffled(&mut noise, k);
        let plain = layer.packed(Kernel::select().unwrap());
        let ordered = plain.clone().with_input_order(&order).unwrap();
        let (packed, by_input) = (plain.dequantize(), ordered.dequantize());
        for (at, value) in packed.iter().enumerate() {
            let (j, p) = (at / k, at % k);
            assert_eq!(by_input[j * k + order[p] as usize].to_bits(), value.to_bits());
        }
        assert_eq!((ordered.unpack(), ordered.scales()), (plain.unpack(), plain.scales()));
        if k > 1 {
            assert_eq!(ordered.input_order(), Some(&order[..]));
            assert_eq!(ordered.bytes(), plain.bytes() + 4 * k);
        }
        // Each input in its place is no order.
        let in_place: Vec<u32> = (0..k as u32).collect();
        let again = ordered.with_input_order(&in_place).unwrap();
        assert_eq!((again.input_order(), again.bytes()), (None, plain.bytes()));
    }
}

#[test]
fn orders_that_are_none_are_refused_with_numbers() {
    let kernel = Kernel::select().unwrap();
    let w = pack(kernel, MatRef::new(&[1i8; 2 * 4], 2, 4).unwrap());
    let w = ScaledWeights::new(w, WeightScales::per_channel(&[1.0, 2.0])).unwrap();
    let error = |order: &[u32]| w.clone().with_input_order(order).unwrap_err();
    assert_eq!(error(&[0, 1, 2]), ScaleError::OrderLength { k: 4, len: 3 });
    assert_eq!(error(&[0, 1, 2, 3, 4]).to_string(), "expected an order of k = 4 inputs, got 5");
    assert_eq!(error(&[3, 1, 4, 0]).to_string(), "input 4 at position 2 of the order is none of 0..4");
    assert_eq!(error(&[3, u32::MAX, 0, 1]), ScaleError::NoInput { position: 1, input: u32::MAX, k: 4 });
    let twice = error(&[3, 1, 2, 1]);
    assert_eq!(twice, ScaleError::SameInput { position: 3, input: 1 });
    assert_eq!(twice.to_string(), "input 1 is in the order twice, the second time at position 3");
    // Without depth there is nothing to order.
    let none = pack(kernel, MatRef::new(&[0i8; 0], 3, 0).unwrap());
    let none = ScaledWeights::new(none, WeightScales::per_group(&[], 32)).unwrap();
    assert_eq!(none.clone().with_input_order(&[]).unwrap().input_order(), None);
    assert_eq!(none.with_input_order(&[0]).unwrap_err(), ScaleError::OrderLength { k: 0, len: 1 });
}

#[test]
fn sums_that_leave_the_range_of_floats_are_found_in_any_order() {
    // Inputs that cancel each other, of which the packed order has the positive ones first. Where a
    // result is infinite as it should be, the weights of the inputs decide, not those of columns.
    let kernel = Kernel::select().unwrap();
    let codes: Vec<i8> = (0..64).map(|p| if p < 32 { 127 } else { 1 }).collect();
    let order: Vec<u32> = (0..64).map(|p| if p < 32 { 2 * p } else { 2 * (p - 32) + 1 }).collect();
    let w = ScaledWeights::new(
        pack(kernel, MatRef::new(&codes, 1, 64).unwrap()),
        WeightScales::per_channel(&[1.0]),
    );
    let w = w.unwrap().with_input_order(&order).unwrap();
    let product = |a: &[f32]| {
        let mut y = [7.0f32];
        let (a, out) = (MatRef::new(a, 1, 64).unwrap(), MatMut::new(&mut y, 1, 1).unwrap());
        let stage = FloatStage::new();
        weight_only(a, &w, &stage, out, Threads::Serial, &mut Workspace::new()).map(|()| y[0])
    };
    // Even inputs have weights of 127, odd ones of 1.
    let mut large: Vec<f32> = (0..64).map(|i| if i % 2 == 0 { 2e36 } else { 0.0 }).collect();
    assert_eq!(product(&large).unwrap(), f32::INFINITY);
    large[0] = -2e36 * 31.0;
    assert_eq!(product(&large).unwrap_err(), GemmError::FloatRange { row: 0, channel: 0 });
    // Odd inputs as large as that stay in range.
    let small: Vec<f32> = (0..64).map(|i| if i % 2 == 1 { 2e36 } else { 0.0 }).collect();
    assert!((product(&small).unwrap() / 6.4e37 - 1.0).abs() < 1e-6);
}
