//! How weights are rounded by GPTQ.

/// The order in which GPTQ rounds the weights of a channel. Those that come later make up for the
/// errors of those before them, so the inputs that matter most had better come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GptqOrder {
    /// The inputs as they are. Groups get their scale when they are reached, from weights that make
    /// up for the errors of the groups before.
    #[default]
    Inputs,
    /// By descending size of the inputs (act-order, `desc_act`), the first of equals first. Groups
    /// are of inputs in this order, so that layers with groups keep it and sort their inputs by it.
    Activations,
    /// By descending size of the inputs, but groups are of the inputs as they are and have the
    /// scales of the weights before rounding (`static_groups`), so layers need no order.
    ActivationsStaticGroups,
}

/// How GPTQ (Frantar, Ashkboos, Hoefler, Alistarh, 2022) rounds weights.
///
/// ```
/// use qnn::{GptqConfig, GptqOrder};
/// let config = GptqConfig { order: GptqOrder::ActivationsStaticGroups, ..GptqConfig::default() };
/// assert_eq!(config.damping, 0.01);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GptqConfig {
    /// What is added to the sum of squares of each input, as a share of their mean: 0.01 by
    /// default. It keeps weights from making up for errors by more than the inputs that were seen
    /// can tell. Where it is too little for the arithmetic, it is raised tenfold, and again.
    pub damping: f64,
    /// In which order weights are rounded.
    pub order: GptqOrder,
}

impl Default for GptqConfig {
    fn default() -> Self {
        Self { damping: 0.01, order: GptqOrder::default() }
    }
}
