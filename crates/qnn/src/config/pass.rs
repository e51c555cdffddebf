//! Which layer becomes what.

use qkernels::Kernel;

use super::method::Method;
use super::pattern::matches;

/// How [`quantize_model`](crate::quantize_model) treats the layers of a model.
///
/// ```
/// use qnn::{Method, PassConfig, StaticConfig, WeightConfig};
/// let four_bits = StaticConfig { weights: WeightConfig::with_bits(4)?, ..StaticConfig::default() };
/// let config = PassConfig { last_in_float: true, min_weights: 1024, ..PassConfig::default() }
///     .with_rule("embed*", Method::Float)
///     .with_rule("*.mlp.*", Method::Static(four_bits));
/// assert_eq!(config.rules.len(), 2);
/// # Ok::<(), qcore::CodeRangeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct PassConfig {
    /// What becomes of layers that no other field decides about.
    pub method: Method,
    /// What becomes of layers by name. The first rule that matches decides, before any other field.
    /// A rule that matches no layer is refused, because it is probably a typing error.
    pub rules: Vec<Rule>,
    /// Whether the first layer stays in f32.
    pub first_in_float: bool,
    /// Whether the last layer stays in f32.
    pub last_in_float: bool,
    /// Layers with fewer weights (n * k) than this stay in f32.
    pub min_weights: usize,
    /// Whether a layer that cannot be quantized as asked (it never ran in calibration, its scales
    /// leave f32) is an error. If not, it stays in f32 and the report says why.
    pub require_integer: bool,
    /// How many rows of each layer's input are kept to measure what quantizing the layer costs.
    /// They are spread over all batches and take rows * k * 4 bytes for each layer. 0 means that
    /// nothing is measured.
    pub evidence_rows: usize,
    /// Other methods to watch for, so that [`compare_schemes`](crate::compare_schemes) and
    /// [`analyze_sensitivity`](crate::analyze_sensitivity) can try them on every layer that is to
    /// be quantized: for instance [`Method::schemes`]. Those that take the least time come first.
    /// One that is here twice is tried once, and f32 not at all: every comparison begins with it.
    pub candidates: Vec<Method>,
    /// The kernel to pack for; `None` is [`Kernel::select`].
    pub kernel: Option<Kernel>,
}

impl Default for PassConfig {
    /// All layers static, with per-channel i8 weights and u8 activations; nothing falls back to
    /// f32.
    fn default() -> Self {
        Self {
            method: Method::default(),
            rules: Vec::new(),
            first_in_float: false,
            last_in_float: false,
            min_weights: 0,
            require_integer: true,
            evidence_rows: 64,
            candidates: Vec::new(),
            kernel: None,
        }
    }
}

/// What becomes of the layers whose names match a pattern.
#[derive(Clone, Debug)]
pub struct Rule {
    /// A name, or a pattern: `*` stands for any characters, `?` for one, and `\*`, `\?` and `\\`
    /// for themselves.
    pub pattern: String,
    /// What becomes of them.
    pub method: Method,
}

impl Rule {
    /// Whether the rule applies to the layer `name`.
    ///
    /// ```
    /// use qnn::{Method, Rule};
    /// let rule = Rule { pattern: "*.layers.?.attn.*".to_owned(), method: Method::Float };
    /// assert!(rule.matches("model.layers.3.attn.q") && !rule.matches("model.layers.31.attn.q"));
    /// ```
    pub fn matches(&self, name: &str) -> bool {
        matches(&self.pattern, name)
    }
}

impl PassConfig {
    /// Adds a rule after the others.
    #[must_use]
    pub fn with_rule(mut self, pattern: impl Into<String>, method: Method) -> Self {
        self.rules.push(Rule { pattern: pattern.into(), method });
        self
    }
}
