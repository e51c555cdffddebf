//! Whole models tried in one scheme after the other: the table, the mix, and what is done with what
//! was found.

use std::ops::ControlFlow;

use qkernels::Threads;
use qnn::{
    DynamicConfig, ForwardError, Linear, LinearWorkspace, Method, Mlp, ModelOutput, ObserverChoice,
    PassConfig, StaticConfig, Target, TrialError, TrialProgress, WeightConfig, analyze_sensitivity,
    calibrate_model, compare_schemes, quantize_model,
};

use crate::evidence::{WIDTH, bits, calibrated, config, evaluate, go_on, inputs, methods, model};
use crate::small::{linear, rows};

#[test]
fn schemes_are_compared_in_one_table() {
    let (mut model, x) = (model(), inputs());
    let x = rows(&x, WIDTH);
    let impossible = WeightConfig { scheme: qcore::Scheme::activations_u8(), ..WeightConfig::default() };
    let mut candidates = Method::schemes();
    candidates.push(Method::Dynamic(DynamicConfig { weights: impossible, ..DynamicConfig::default() }));
    let calibration = calibrated(&mut model, x, &candidates);
    let mut seen = Vec::new();
    let progress = |at: TrialProgress| {
        seen.push((at.done, at.expected));
        ControlFlow::Continue(())
    };
    let report = compare_schemes(&mut model, &calibration, |model| evaluate(model, x), progress).unwrap();
    // The f32 model, the plan, and every candidate, also the one that no layer can have.
    let runs = candidates.len() + 2;
    assert_eq!(seen, (1..=runs).map(|done| (done, runs)).collect::<Vec<_>>());
    let (planned, rest) = report.schemes.split_first().unwrap();
    assert!(planned.method.is_none() && planned.cost.as_ref().unwrap().quality.sqnr_db < 15.0, "{report}");
    let (last, rest) = rest.split_last().unwrap();
    assert!(last.cost.as_ref().unwrap_err().to_string().contains("fc1"), "{report}");
    for result in rest {
        let cost = result.cost.as_ref().unwrap();
        // So small a network needs more than 4 bits.
        let four_bits = result.method.is_some_and(|method| method.to_string().ends_with("of 4 bits"));
        let (sqnr, cosine, smaller) = if four_bits { (3.0, 0.7, 5) } else { (20.0, 0.99, 3) };
        assert!(
            cost.quality.sqnr_db > sqnr && cost.quality.cosine > cosine && cost.seconds > 0.0,
            "{report}"
        );
        assert!(smaller * cost.bytes <= report.float_bytes, "{report}");
    }
    let text = report.to_string();
    assert_eq!(text.lines().count(), candidates.len() + 3, "{text}");
    let best = report.best().unwrap();
    let line = text.lines().find(|line| line.starts_with(&best.0.unwrap().to_string())).unwrap();
    assert!(line.contains(&format!("{:.2} *", best.1.sqnr_db)), "{text}");
    assert_eq!(methods(&model), ["float"; 4]);
}

#[test]
fn what_was_found_is_applied_with_the_same_calibration() {
    let (mut model, x) = (model(), inputs());
    let x = rows(&x, WIDTH);
    let dynamic = Method::Dynamic(DynamicConfig::default());
    let candidates = [dynamic, bits(8), Method::Float, dynamic];
    let config = PassConfig { candidates: candidates.to_vec(), ..config() }.with_rule("fc1", Method::Float);
    let calibration = calibrate_model(&mut model, &config, [x], Mlp::run_batch, |_| {}).unwrap();
    let report = compare_schemes(&mut model, &calibration, |model| evaluate(model, x), go_on).unwrap();
    assert_eq!(report.schemes.len(), 3, "each candidate once, f32 not at all: {report}");
    let measured = |scheme: usize| report.schemes[scheme].cost.as_ref().unwrap();
    let float = evaluate(&model, x).unwrap();
    let sqnr = |model: &Mlp| qcore::sqnr_db(&float.values, &evaluate(model, x).unwrap().values).unwrap();
    for (scheme, form) in [(1, "dynamic"), (2, "static")] {
        let mut quantized = model.clone();
        let method = report.schemes[scheme].method.unwrap();
        let report = calibration.quantize_as(&mut quantized, &method).unwrap();
        assert_eq!(methods(&quantized), ["float", form, form, form]);
        assert_eq!(
            report.layers.iter().map(|layer| layer.decision.to_string()).collect::<Vec<_>>(),
            ["rule fc1", "scheme", "scheme", "scheme"]
        );
        assert!((sqnr(&quantized) - measured(scheme).quality.sqnr_db).abs() < 1e-9);
    }
    let target = Some(Target::SqnrDb(25.0));
    let found =
        analyze_sensitivity(&mut model, &calibration, target, |model| evaluate(model, x), go_on).unwrap();
    let mix = found.mix.as_ref().unwrap();
    let mut quantized = model.clone();
    let report = calibration.quantize_mix(&mut quantized, mix).unwrap();
    assert_eq!(report.layers[1].decision, qnn::Decision::Mix, "{report}");
    assert!((sqnr(&quantized) - mix.quality.sqnr_db).abs() < 1e-9);
    // It is not quantized twice, and no mix of another model is applied.
    let error = calibration.quantize_as(&mut quantized, &dynamic).unwrap_err();
    assert!(error.to_string().contains("by now, and was in f32 when it was calibrated"), "{error}");
    let mut other: Mlp = qnn::FloatMlp::new(vec![linear("other", WIDTH, WIDTH)]).unwrap().into();
    let watched = calibrate_model(&mut other, &PassConfig::default(), [x], Mlp::run_batch, |_| {}).unwrap();
    let error = watched.quantize_mix(&mut other, mix).unwrap_err();
    assert_eq!(
        error.to_string(),
        "layer \"fc2\": the mix names it, and the model that was calibrated does not have it"
    );
    // What calibration did not watch for has no range.
    let percentile = StaticConfig { observer: ObserverChoice::Percentile(99.0), ..StaticConfig::default() };
    let error = calibration.quantize_as(&mut model, &Method::Static(percentile)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "layer \"fc2\": static u8, percentile 99 is neither what calibration planned for the layer nor among \
         its candidates"
    );
    assert_eq!(methods(&model), ["float"; 4]);
}

#[test]
fn without_a_layer_to_quantize_there_is_nothing_to_try() {
    let (mut model, x) = (model(), inputs());
    let x = rows(&x, WIDTH);
    let config = PassConfig { method: Method::Float, ..PassConfig::default() };
    let calibration = calibrate_model(&mut model, &config, [x], Mlp::run_batch, |_| {}).unwrap();
    let error = compare_schemes(&mut model, &calibration, |model| evaluate(model, x), go_on).unwrap_err();
    assert!(matches!(error, TrialError::NothingToTry));
    quantize_model(&mut model, &PassConfig::default(), [x], Mlp::run_batch, |_| {}).unwrap();
    let calibration = calibrated(&mut model, x, &Method::schemes());
    let error = analyze_sensitivity(&mut model, &calibration, None, |model| evaluate(model, x), go_on);
    assert_eq!(
        error.unwrap_err().to_string(),
        "no layer is in f32 and planned to be quantized, so there is nothing to try"
    );
}

#[test]
fn a_layer_that_vanishes_is_no_scheme_that_is_refused() {
    let layers: Vec<Linear> = (1..=2).map(|i| linear(&format!("fc{i}"), WIDTH, WIDTH).into()).collect();
    let (mut model, x) = (layers, inputs());
    let run = |model: &mut Vec<Linear>, x| {
        let mut workspace = LinearWorkspace::new();
        model.iter().try_for_each(|layer| layer.forward_vec(x, Threads::Serial, &mut workspace).map(drop))
    };
    let config =
        PassConfig { candidates: vec![Method::Dynamic(DynamicConfig::default())], ..PassConfig::default() };
    let calibration = calibrate_model(&mut model, &config, [rows(&x, WIDTH)], run, |_| {}).unwrap();
    let evaluate = |model: &mut Vec<Linear>| {
        model.truncate(1);
        Ok::<_, ForwardError>(ModelOutput { values: vec![1.0; 4], cols: 2 })
    };
    let error = compare_schemes(&mut model, &calibration, evaluate, go_on).unwrap_err();
    assert!(matches!(error, TrialError::Layer(_)), "{error}");
}

#[test]
fn layers_that_the_closure_changes_are_noticed() {
    let (mut model, x) = (model(), inputs());
    let x = rows(&x, WIDTH);
    let calibration = calibrated(&mut model, x, &[bits(8)]);
    let mut layers: Vec<Linear> = model.layers().to_vec();
    let output = || Ok::<_, ForwardError>(ModelOutput { values: vec![1.0; 4], cols: 2 });
    let swaps = |model: &mut Vec<Linear>| {
        model.swap(0, 1);
        output()
    };
    let error = analyze_sensitivity(&mut layers, &calibration, None, swaps, go_on).unwrap_err();
    assert!(error.to_string().contains("fc1") && error.to_string().contains("fc2"), "{error}");
    let mut layers: Vec<Linear> = model.layers().to_vec();
    let mut done = false;
    let quantizes = |model: &mut Vec<Linear>| {
        if !core::mem::replace(&mut done, true) {
            calibration.quantize(model).unwrap();
        }
        output()
    };
    let error = analyze_sensitivity(&mut layers, &calibration, None, quantizes, go_on).unwrap_err();
    assert_eq!(
        error.to_string(),
        "layer \"fc1\": it is static by now, and was in f32 when it was calibrated"
    );
}

/// A better form for all layers, at a quarter of the bytes, goes before f32 for some.
#[test]
fn a_mix_is_proposed_from_all_candidates() {
    let (mut model, x) = (model(), inputs());
    let x = rows(&x, WIDTH);
    let config = PassConfig { method: bits(4), ..PassConfig::default() };
    let candidates = vec![bits(4), Method::Dynamic(DynamicConfig::default())];
    let target = Some(Target::SqnrDb(25.0));
    let mut bytes = |candidates: &[Method]| {
        let config = PassConfig { candidates: candidates.to_vec(), ..config.clone() };
        let calibration = calibrate_model(&mut model, &config, [x], Mlp::run_batch, |_| {}).unwrap();
        let report =
            analyze_sensitivity(&mut model, &calibration, target, |model| evaluate(model, x), go_on).unwrap();
        let mix = report.mix.as_ref().unwrap();
        assert!(mix.quality.sqnr_db >= 25.0, "{report}");
        (mix.layers_in_float(), mix.stored_bytes, report.to_string())
    };
    let (in_float, most, text) = bytes(&[]);
    assert!((1..4).contains(&in_float) && text.contains("an SQNR of 25 dB takes some f32: "), "{text}");
    let (in_float, least, text) = bytes(&candidates);
    assert!(in_float == 0 && 2 * least < most && text.contains("dynamic u8 per token"), "{text}");
}

#[test]
fn a_target_out_of_reach_is_said_to_be() {
    let (mut model, x) = (model(), inputs());
    let x = rows(&x, WIDTH);
    let calibration = calibrated(&mut model, x, &[Method::WeightOnly(WeightConfig::default())]);
    let mut analyze = |db| {
        let target = Some(Target::SqnrDb(db));
        analyze_sensitivity(&mut model, &calibration, target, |model| evaluate(model, x), go_on).unwrap()
    };
    let report = analyze(1.0);
    assert!(!report.is_out_of_reach() && !report.to_string().contains("reach"), "{report}");
    let report = analyze(120.0);
    assert!(report.is_out_of_reach(), "{report}");
    assert!(
        report.to_string().contains("an SQNR of 120 dB is out of reach of the schemes tried: 4 of 4"),
        "{report}"
    );
    assert!(report.to_string().contains("the best of them in all layers: weight-only, SQNR "), "{report}");
}

#[test]
fn progress_is_told_and_can_cancel() {
    let (mut model, x) = (model(), inputs());
    let x = rows(&x, WIDTH);
    let calibration = calibrated(&mut model, x, &[bits(8)]);
    let target = Some(Target::SqnrDb(25.0));
    let mut seen = Vec::new();
    let all = |at: TrialProgress| {
        seen.push((at.done, at.expected));
        ControlFlow::Continue(())
    };
    analyze_sensitivity(&mut model, &calibration, target, |model| evaluate(model, x), all).unwrap();
    assert!(
        seen.iter().enumerate().all(|(i, &(done, expected))| done == i + 1 && expected >= done),
        "{seen:?}"
    );
    let runs = seen.len();
    for stop in 1..=runs {
        let until = |at: TrialProgress| match at.done == stop {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        let error = analyze_sensitivity(&mut model, &calibration, target, |model| evaluate(model, x), until);
        assert!(matches!(error, Err(TrialError::Cancelled { done }) if done == stop), "{stop}");
        assert_eq!(methods(&model), ["float"; 4]);
    }
}
