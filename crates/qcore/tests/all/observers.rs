//! Tests by proptest that merging observers equals one pass, whatever the values, the batches and
//! their order.

use proptest::prelude::*;
use qcore::{
    CodeRange, EntropyObserver, HistogramObserver, MergeObserver, MinMaxObserver, MseObserver, Observer,
    PercentileObserver, Range, Scheme,
};

/// Values like those of networks, or any values at all.
fn values() -> impl Strategy<Value = Vec<f32>> {
    prop_oneof![
        prop::collection::vec(-10.0..10.0_f32, 1..300),
        prop::collection::vec(any::<u32>().prop_map(f32::from_bits), 1..300),
        prop::collection::vec(
            prop::sample::select(vec![0.0, -0.0, 5.0, 1e38, -1e38, 1e-40, f32::NAN]),
            1..20
        ),
    ]
}

/// One pass over everything, and two merged observers that each see their batches in reverse.
fn both_ways<O: Observer>(
    new: impl Fn() -> O,
    merge: impl Fn(O, O) -> O,
    values: &[f32],
    cut: usize,
    batch: usize,
) -> [O; 2] {
    let mut whole = new();
    whole.observe(values);
    let (mut a, mut b) = (new(), new());
    let (first, second) = values.split_at(cut % (values.len() + 1));
    first.chunks(batch).rev().for_each(|batch| a.observe(batch));
    second.chunks(batch).rev().for_each(|batch| b.observe(batch));
    [whole, merge(b, a)]
}

fn agree<O: Observer>([a, b]: [O; 2]) -> Result<(), TestCaseError> {
    prop_assert_eq!(a.range(), b.range());
    prop_assert_eq!((a.finite(), a.non_finite()), (b.finite(), b.non_finite()));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn merging_equals_one_pass(values in values(), cut: usize, batch in 1..40_usize) {
        let (x, n) = (&values[..], batch);
        agree(both_ways(MinMaxObserver::default, MinMaxObserver::merge, x, cut, n))?;
        agree(both_ways(|| PercentileObserver::new(99.0).unwrap(), PercentileObserver::merge, x, cut, n))?;
        agree(both_ways(|| PercentileObserver::symmetric(90.0).unwrap(), PercentileObserver::merge, x, cut, n))?;
        agree(both_ways(|| MseObserver::new(Scheme::activations_u8()), MseObserver::merge, x, cut, n))?;
        agree(both_ways(|| EntropyObserver::new(CodeRange::I8), EntropyObserver::merge, x, cut, n))?;
        // The histogram rebins, so only its counts agree.
        let [a, b] = both_ways(HistogramObserver::default, HistogramObserver::merge, x, cut, n);
        prop_assert_eq!((a.finite(), a.non_finite()), (b.finite(), b.non_finite()));
        let total = |o: &HistogramObserver| o.histogram().iter().sum::<f64>();
        prop_assert!((total(&a) - total(&b)).abs() < 1e-6);
    }

    #[test]
    fn a_range_lies_within_what_was_seen(values in values()) {
        let Some(whole) = Range::of_finite(&values) else { return Ok(()) };
        let observers: [Box<dyn Observer>; 4] = [
            Box::new(PercentileObserver::new(99.0).unwrap()),
            Box::new(HistogramObserver::default()),
            Box::new(EntropyObserver::new(CodeRange::I8)),
            Box::new(MseObserver::new(Scheme::activations_u8())),
        ];
        for mut observer in observers {
            observer.observe(&values);
            let range = observer.range().unwrap();
            // A share of a range that does not contain 0 lies nearer to 0.
            let hull = whole.extended_to_zero();
            prop_assert!(range.min() >= hull.min() && range.max() <= hull.max(), "{range:?} {whole:?}");
        }
    }

    #[test]
    fn the_squared_error_is_no_larger_than_with_the_whole_range(
        values in prop::collection::vec(-10.0..10.0_f32, 1..300),
    ) {
        let scheme = Scheme { codes: CodeRange::signed(4).unwrap(), ..Scheme::activations_i8() };
        let mut observer = MseObserver::new(scheme);
        observer.observe(&values);
        let cost = |range: Range| {
            let p = scheme.choose(range).unwrap();
            values.iter().map(|&v| f64::from(p.fake_quantize(v) - v).powi(2)).sum::<f64>() / values.len() as f64
        };
        let (found, whole) = (cost(observer.range().unwrap()), cost(Range::of(&values).unwrap()));
        // It never exceeds it on the binned values. A bin is 2^-8 of a value of at most 10.
        prop_assert!(found.sqrt() <= whole.sqrt() + 10.0 / 256.0, "{found} {whole}");
    }
}
