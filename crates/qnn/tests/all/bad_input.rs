//! Whatever a caller passes in gives a typed error with names and numbers, never a panic.

use proptest::prelude::*;
use qcore::MinMaxObserver;
use qkernels::{MatMut, MatRef, Threads};
use qnn::{
    ActivationCodes, CalibrateError, ChainError, FloatLinear, FloatLinearError, FloatMlp, ForwardError,
    LayerError, LinearWorkspace, PassLayerError, QuantConfig, QuantMlp, QuantizeModelError, Refusal,
    ReportError, WeightGranularity,
};

use crate::small::{float_model, linear, quant_model, rows};

mod layers {
    use super::*;

    #[test]
    fn must_have_elements_that_fit_their_shapes() {
        let new = |n, k, weight: usize, bias: usize| {
            FloatLinear::new("fc1", n, k, vec![0.0; weight], vec![0.0; bias]).unwrap_err()
        };
        assert_eq!(
            new(0, 3, 0, 0).to_string(),
            "layer \"fc1\" has n = 0 outputs and k = 3 inputs; both must be at least 1"
        );
        assert!(matches!(new(3, 0, 0, 3), FloatLinearError::Empty { n: 3, k: 0, .. }));
        assert_eq!(new(2, 3, 5, 2).to_string(), "fc1.weight of shape [2, 3] needs 6 elements, got 5");
        assert_eq!(new(2, 3, 6, 3).to_string(), "fc1.bias of shape [2] needs 2 elements, got 3");
        let huge = new(usize::MAX, 3, 6, 3);
        assert!(huge.to_string().contains("needs 55340232221128654845 elements"), "{huge}");
    }

    #[test]
    fn must_be_finite() {
        let new = |weight, bias| FloatLinear::new("fc1", 1, 2, weight, bias).unwrap_err().to_string();
        assert_eq!(
            new(vec![1.0, f32::NAN], vec![0.0]),
            "fc1.weight is NaN at index 1; weights and biases must be finite"
        );
        assert!(new(vec![1.0, 2.0], vec![f32::NEG_INFINITY]).starts_with("fc1.bias is -inf at index 0"));
    }

    #[test]
    fn must_make_a_chain() {
        assert_eq!(FloatMlp::new(vec![]).unwrap_err(), ChainError::NoLayers);
        let error = FloatMlp::new(vec![linear("fc1", 3, 2), linear("fc2", 2, 4)]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "layer \"fc2\" takes k = 4 inputs, but \"fc1\" before it has n = 3 outputs"
        );
        let error = FloatMlp::new(vec![linear("a", 2, 2), linear("b", 2, 2), linear("a", 2, 2)]).unwrap_err();
        assert_eq!(error.to_string(), "layers 0 and 2 are both named \"a\"");
    }

    #[test]
    fn keep_their_functions_or_say_that_they_cannot() {
        use qcore::ActivationFunction::{Gelu, Identity, Relu};
        let model = |first, last| {
            let layers = [("fc1", first), ("fc2", last)];
            FloatMlp::new(layers.map(|(name, f)| linear(name, 1, 1).with_activation(f)).to_vec())
        };
        for first in [Identity, Relu] {
            let model = model(first, Identity).unwrap();
            assert_eq!((model.layers()[0].activation(), model.layers()[1].activation()), (Relu, Identity));
        }
        let error = model(Gelu, Identity).unwrap_err();
        assert_eq!(
            error.to_string(),
            "layer \"fc1\" has the activation function gelu, but here it would have relu"
        );
        let error = model(Relu, Relu).unwrap_err();
        assert!(matches!(&error, ChainError::Activation { layer, .. } if layer == "fc2"), "{error}");
    }
}

mod forward {
    use super::*;

    #[test]
    fn wrong_shapes_and_values_write_nothing() {
        let (float, quant) = (float_model(), quant_model());
        let run = |x: MatRef<'_, f32>, rows, cols| {
            let mut out = vec![7.0; 4096];
            let error = {
                let out = MatMut::new(&mut out[..rows * cols], rows, cols).unwrap();
                quant.forward(x, out, Threads::Serial, &mut LinearWorkspace::new()).unwrap_err()
            };
            if !matches!(error, ForwardError::NonFinite { .. }) {
                let out = MatMut::new(&mut out[..rows * cols], rows, cols).unwrap();
                let float = float.forward(x, out, Threads::Serial, &mut LinearWorkspace::new());
                assert_eq!(float.unwrap_err(), error);
            }
            assert!(out.iter().all(|&v| v == 7.0), "something was written");
            error.to_string()
        };
        let x = vec![0.5; 2000];
        assert_eq!(run(rows(&x[..6], 3), 2, 2), "expected k = 2 columns of input, got 3");
        assert_eq!(run(rows(&x[..4], 2), 3, 2), "expected a 2 x 2 output, got 3 x 2");
        assert_eq!(run(rows(&x[..4], 2), 2, 1), "expected a 2 x 2 output, got 2 x 1");
        for (bad, text) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
            let mut x = x.clone();
            x[1999] = bad; // the last of the last block
            let message = format!("input value {text} at row 999, column 1 is not finite");
            assert_eq!(run(rows(&x, 2), 1000, 2), message);
        }
    }

    #[test]
    fn no_rows_are_fine() {
        let none = MatRef::new(&[], 0, 2).unwrap();
        let out = || MatMut::new(&mut [], 0, 2).unwrap();
        let quant = quant_model().forward(none, out(), Threads::Serial, &mut LinearWorkspace::new());
        let float = float_model().forward(none, out(), Threads::Serial, &mut LinearWorkspace::new());
        assert_eq!((quant, float), (Ok(()), Ok(())));
    }

    #[test]
    fn extreme_inputs_saturate() {
        let x = [f32::MAX, -f32::MAX, f32::from_bits(1), -0.0];
        let mut out = [0.0; 4];
        let view = MatMut::new(&mut out, 2, 2).unwrap();
        quant_model().forward(rows(&x, 2), view, Threads::Serial, &mut LinearWorkspace::new()).unwrap();
        assert!(out.iter().all(|v| v.is_finite()));
    }
}

mod calibration {
    use super::*;

    fn error(batches: &[MatRef<'_, f32>]) -> CalibrateError {
        float_model().calibrate(batches.iter().copied()).unwrap_err()
    }

    #[test]
    fn needs_rows() {
        assert_eq!(error(&[]), CalibrateError::Empty { batches: 0 });
        let none = MatRef::new(&[], 0, 2).unwrap();
        assert_eq!(error(&[none, none]).to_string(), "the calibration set is empty: 2 batches without a row");
        let calibrated = float_model();
        let calibrated = calibrated.calibrate([none, rows(&[1.0, 2.0], 2)]).unwrap();
        assert_eq!(calibrated.rows(), 1);
    }

    #[test]
    fn needs_the_right_width() {
        let error = error(&[rows(&[0.0; 2], 2), rows(&[0.0; 3], 3)]);
        assert_eq!(error.to_string(), "batch 1: layer \"fc1\" takes k = 2 inputs, the batch has 3 columns");
    }

    #[test]
    fn needs_finite_values() {
        let bad = [0.0, 1.0, 2.0, f32::INFINITY];
        let error = error(&[rows(&[0.0; 2], 2), rows(&bad, 2)]);
        assert_eq!(
            error.to_string(),
            "batch 1: input value inf of layer \"fc1\" at row 1, column 1 is not finite"
        );
    }

    #[test]
    fn names_the_layer_that_overflows() {
        let layer = |name, weight| FloatLinear::new(name, 1, 1, vec![weight], vec![0.0]).unwrap();
        let model = FloatMlp::new(vec![layer("a", 1e30), layer("b", 1e30), layer("c", 1.0)]).unwrap();
        let error = model.calibrate([rows(&[0.0, 1.0], 1)]).unwrap_err();
        assert_eq!(error.to_string(), "batch 0: output inf of layer \"b\" at row 1, channel 0 is not finite");
    }

    #[test]
    fn an_observer_without_a_range_is_named() {
        struct Blind(MinMaxObserver);
        impl qcore::Observer for Blind {
            fn observe(&mut self, _: &[f32]) {}
            fn range(&self) -> Result<qcore::Range, qcore::ObserverError> {
                self.0.range()
            }
            fn finite(&self) -> u64 {
                0
            }
            fn non_finite(&self) -> u64 {
                0
            }
        }
        let float = float_model();
        let calibrated = float.calibrate_with([rows(&[0.0; 2], 2)], || Blind(MinMaxObserver::default()));
        assert!(calibrated.unwrap_err().to_string().starts_with("input of layer \"fc1\": no finite value"));
    }
}

mod quantizing {
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Weights, biases and inputs of any finite magnitude: a model or a typed error, and a
        /// model runs.
        #[test]
        fn any_finite_model_quantizes_or_says_why_not(
            weight in proptest::collection::vec(any_finite(), 6 + 6),
            bias in proptest::collection::vec(any_finite(), 3 + 2),
            x in proptest::collection::vec(any_finite(), 6),
            (i8_activations, per_tensor) in (any::<bool>(), any::<bool>()),
        ) {
            let fc1 = FloatLinear::new("fc1", 3, 2, weight[..6].to_vec(), bias[..3].to_vec()).unwrap();
            let fc2 = FloatLinear::new("fc2", 2, 3, weight[6..].to_vec(), bias[3..].to_vec()).unwrap();
            let float = FloatMlp::new(vec![fc1, fc2]).unwrap();
            let config = QuantConfig {
                activations: if i8_activations { ActivationCodes::I8 } else { ActivationCodes::U8 },
                weights: if per_tensor { WeightGranularity::PerTensor } else { WeightGranularity::PerChannel },
                ..QuantConfig::default()
            };
            let Ok(calibrated) = float.calibrate([rows(&x, 2)]) else { return Ok(()) };
            let Ok(model) = calibrated.quantize(&config) else { return Ok(()) };
            let mut out = [f32::NAN; 6];
            let view = MatMut::new(&mut out, 3, 2).unwrap();
            model.forward(rows(&x, 2), view, Threads::Serial, &mut LinearWorkspace::new()).unwrap();
            prop_assert!(out.iter().all(|v| !v.is_nan()), "{:?}", out);
            let report = model.report(&float, rows(&x, 2)).unwrap();
            prop_assert!(!report.to_string().is_empty());
            let restored = QuantMlp::from_bytes(&model.to_bytes().unwrap(), None).unwrap();
            prop_assert_eq!(restored.to_bytes().unwrap(), model.to_bytes().unwrap());
        }
    }

    fn any_finite() -> impl Strategy<Value = f32> {
        let bits = any::<u32>().prop_map(f32::from_bits).prop_filter("finite", |v| v.is_finite());
        prop_oneof![-1_f32..1.0, -1e-9_f32..1e-9, -1e12_f32..1e12, Just(0.0), bits]
    }

    #[test]
    fn the_impossible_is_named() {
        // The weights near one end of f32 and the inputs near the other never met in the sample.
        let float =
            FloatMlp::new(vec![FloatLinear::new("fc1", 1, 2, vec![1e38, 0.0], vec![0.0]).unwrap()]).unwrap();
        let calibrated = float.calibrate([rows(&[0.0, 3e38], 2)]).unwrap();
        let error = calibrated.quantize(&QuantConfig::default()).unwrap_err();
        assert!(
            matches!(
                &error,
                QuantizeModelError::Layer(Refusal {
                    layer,
                    error: PassLayerError::Quantize(LayerError::NoScale { channel: 0, .. }),
                    ..
                }) if layer == "fc1"
            ),
            "{error}"
        );
    }
}

mod reports {
    use super::*;

    #[test]
    fn need_the_same_layers_and_rows() {
        let (float, quant) = (float_model(), quant_model());
        let x = rows(&[0.0; 4], 2);
        assert_eq!(quant.report(&float, MatRef::new(&[], 0, 2).unwrap()), Err(ReportError::NoRows));
        let error = quant.report(&float, rows(&[0.0; 3], 3)).unwrap_err();
        assert_eq!(error, ReportError::Forward(ForwardError::Width { expected: 2, got: 3 }));
        let error = quant.report(&float, rows(&[0.0, 0.0, 0.0, f32::NAN], 2)).unwrap_err();
        assert_eq!(error.to_string(), "input value NaN at row 1, column 1 is not finite");
        let short = FloatMlp::new(vec![linear("fc1", 3, 2)]).unwrap();
        assert_eq!(quant.report(&short, x), Err(ReportError::LayerCount { quantized: 2, float: 1 }));
        let other = FloatMlp::new(vec![linear("fc1", 3, 2), linear("head", 2, 3)]).unwrap();
        let error = quant.report(&other, x).unwrap_err().to_string();
        assert_eq!(error, "layer 1 is \"fc2\" (n = 2, k = 3) in int8, \"head\" (n = 2, k = 3) in f32");
    }
}
