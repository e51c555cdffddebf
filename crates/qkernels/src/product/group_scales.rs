//! Scales for groups of consecutive k of each row of floats.

use qcore::{CodeRange, Float, GgmlQ8_0, Kind, QParams, Range, Scheme, ZeroScale};

use crate::cpu::vectorize::Task;
use crate::kernel::token::Kernel;
use crate::left::float_rows::FloatRows;
use crate::left::floats::{RowBlocks, RowParams};
use crate::matrix::workspace::Tokens;
use crate::product::dynamic::{Dynamic, DynamicError};
use crate::weights::scaled::ScaledWeights;
use crate::weights::scales::GROUP_STEP;

impl Dynamic {
    /// The codes of activations.
    ///
    /// ```
    /// use qkernels::Dynamic;
    /// assert_eq!(Dynamic::default().codes(), qcore::CodeRange::U8);
    /// assert_eq!(Dynamic::GgmlQ8_0.codes().min(), -127);
    /// ```
    pub fn codes(&self) -> CodeRange {
        match self {
            Dynamic::PerTensor(scheme) | Dynamic::PerToken(scheme) => scheme.codes,
            Dynamic::PerGroup { scheme, .. } => scheme.codes,
            Dynamic::GgmlQ8_0 => GgmlQ8_0::CODES,
        }
    }

    /// Consecutive k of a row that share a scale, if not all of them do.
    ///
    /// ```
    /// use qkernels::Dynamic;
    /// assert_eq!((Dynamic::default().group_len(), Dynamic::GgmlQ8_0.group_len()), (None, Some(32)));
    /// ```
    pub fn group_len(&self) -> Option<usize> {
        match *self {
            Dynamic::PerTensor(_) | Dynamic::PerToken(_) => None,
            Dynamic::PerGroup { group_len, .. } => Some(group_len),
            Dynamic::GgmlQ8_0 => Some(GgmlQ8_0::BLOCK_LEN),
        }
    }

    /// An error if rows of `k` values cannot be quantized in such groups.
    pub(super) fn check_rows(&self, k: usize) -> Result<(), DynamicError> {
        let &Dynamic::PerGroup { scheme, group_len } = self else { return Ok(()) };
        if group_len < k && (group_len == 0 || !group_len.is_multiple_of(GROUP_STEP)) {
            return Err(DynamicError::GroupLength { group_len });
        }
        let Scheme { codes, kind, zero_scale, .. } = scheme;
        // The code of a constant group is 0, wherever the middle of the codes is.
        let constant = matches!(zero_scale, ZeroScale::ConstantIsZero { .. }) && codes.middle() != 0;
        match kind {
            Kind::Symmetric { .. } if !constant => Ok(()),
            kind => Err(DynamicError::GroupScheme { kind, zero_scale }),
        }
    }

    /// An error if a product with one scale for each channel cannot have such activations.
    pub(super) fn check_no_groups(&self) -> Result<(), DynamicError> {
        match self.group_len() {
            None => Ok(()),
            Some(group_len) => Err(DynamicError::Groups { group_len }),
        }
    }
}

impl ScaledWeights {
    /// Checks that activations that are quantized as `how` says can be multiplied by these weights:
    /// where rows have a scale for each group of k, these must be the groups of the weights (of
    /// which parts are no groups), or both must have only one.
    ///
    /// ```
    /// use qcore::Scheme;
    /// use qkernels::{Dynamic, Kernel, MatRef, PackedWeights, ScaledWeights, WeightScales};
    /// let w = PackedWeights::from_nk(MatRef::new(&[1i8; 64], 1, 64)?, Kernel::select()?)?;
    /// let w = ScaledWeights::new(w, WeightScales::per_group(&[0.5, 0.25], 32))?;
    /// assert!(w.check_activations(Dynamic::GgmlQ8_0).is_ok());
    /// let error = w.check_activations(Dynamic::PerGroup { scheme: Scheme::weights_i8(), group_len: 64 });
    /// assert_eq!(error.unwrap_err().to_string(), "activations in groups of 64, but weights in groups of 32 along k");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`DynamicError::GroupMismatch`] with both lengths, [`DynamicError::GroupOrder`] if these
    /// weights have their [inputs in another order](Self::with_input_order), and what else such
    /// activations may not be ([`Dynamic::PerGroup`]).
    pub fn check_activations(&self, how: Dynamic) -> Result<(), DynamicError> {
        how.check_rows(self.k())?;
        self.check_groups(how.group_len())
    }

    /// An error if rows in groups of this length, if there are any, do not fit.
    pub(super) fn check_groups(&self, group_len: Option<usize>) -> Result<(), DynamicError> {
        let (k, of_weights) = (self.k(), self.group_len());
        match group_len {
            Some(group_len) if group_len != of_weights && group_len.min(of_weights) < k => {
                Err(DynamicError::GroupMismatch { group_len, of_weights })
            }
            // Groups of the weights are not groups of the row as it lies.
            Some(group_len) if group_len < k && self.input_order().is_some() => {
                Err(DynamicError::GroupOrder { group_len })
            }
            _ => Ok(()),
        }
    }
}

impl Tokens {
    /// Parameters for each group of each row of `x`, which is longer than a group.
    pub(super) fn choose_groups<F: Float>(
        &mut self,
        x: &FloatRows<'_, F>,
        scheme: &Scheme,
        group_len: usize,
        kernel: Kernel,
    ) -> Result<(), DynamicError> {
        let groups = self.start_groups(x, group_len)?;
        let (rows, memory) = (x.rows(), DynamicError::Memory { rows: x.rows(), cols: x.cols() });
        self.params.try_reserve(rows * groups).map_err(|_| memory)?;
        self.ranges.try_reserve(groups).map_err(|_| memory)?;
        for row in 0..rows {
            self.ranges.clear();
            self.ranges.resize(groups, None);
            kernel.vectorize(GroupRanges { x, row, group_len, ranges: &mut self.ranges });
            for (group, range) in self.ranges.iter().enumerate() {
                let params = scheme.choose(range.unwrap_or_default());
                let of_group = |error| DynamicError::Scheme { row, group: Some(group), error };
                let params = params.map_err(of_group)?;
                self.factors[group * rows + row] = params.scale();
                self.params.push(params);
            }
        }
        let zero_point = self.params.first().map_or(0, QParams::zero_point);
        self.zero_points.extend((zero_point != 0).then_some(zero_point));
        Ok(())
    }

    /// The blocks of each row of `x`.
    pub(super) fn choose_blocks<F: Float>(
        &mut self,
        x: &FloatRows<'_, F>,
        kernel: Kernel,
    ) -> Result<(), DynamicError> {
        let groups = self.start_groups(x, GgmlQ8_0::BLOCK_LEN)?;
        let (rows, memory) = (x.rows(), DynamicError::Memory { rows: x.rows(), cols: x.cols() });
        self.blocks.try_reserve(rows * groups).map_err(|_| memory)?;
        self.blocks.resize(rows * groups, GgmlQ8_0::default());
        for row in 0..rows {
            let blocks = &mut self.blocks[row * groups..][..groups];
            kernel.vectorize(RowOfBlocks { x, row, blocks });
            for (group, block) in blocks.iter().enumerate() {
                let scale = block.scale();
                if !scale.is_finite() {
                    return Err(DynamicError::HalfScale { row, group, scale: block.d() });
                }
                self.factors[group * rows + row] = scale;
            }
        }
        Ok(())
    }

    /// Makes room for the scales of groups. How many groups a row has.
    fn start_groups<F: Float>(
        &mut self,
        x: &FloatRows<'_, F>,
        group_len: usize,
    ) -> Result<usize, DynamicError> {
        self.clear();
        let (rows, cols) = (x.rows(), x.cols());
        let (groups, memory) = (cols.div_ceil(group_len), DynamicError::Memory { rows, cols });
        let count = rows.checked_mul(groups).ok_or(memory)?;
        self.factors.try_reserve(count).map_err(|_| memory)?;
        self.factors.resize(count, 0.0);
        (self.group_len, self.factor_stride) = (group_len, rows);
        Ok(groups)
    }

    /// Forgets all rows.
    pub(super) fn clear(&mut self) {
        self.params.clear();
        self.blocks.clear();
        self.zero_points.clear();
        self.factors.clear();
        (self.group_len, self.factor_stride) = (0, 0);
    }

    /// How the rows are quantized that were given to [`choose_as`](Self::choose_as) last.
    pub(super) fn row_params(&self, how: Dynamic) -> RowParams<'_> {
        match (how, &self.params[..]) {
            (Dynamic::PerTensor(_), &[params]) => RowParams::Same(params),
            (Dynamic::GgmlQ8_0, _) => RowParams::Blocks(&self.blocks),
            (_, params) if self.group_len > 0 => RowParams::Groups(params, self.group_len),
            (_, params) => RowParams::Own(params),
        }
    }

    /// The row of a scale, and the group if rows have them.
    pub(super) fn place(&self, factor: usize) -> (usize, Option<usize>) {
        match factor.checked_div(self.factor_stride) {
            None => (factor, None),
            Some(group) => (factor % self.factor_stride, Some(group)),
        }
    }
}

/// The ranges of the finite values of each group of a row.
struct GroupRanges<'t, 'x, F> {
    x: &'t FloatRows<'x, F>,
    row: usize,
    group_len: usize,
    /// `None` for each group before.
    ranges: &'t mut [Option<Range>],
}

impl<F: Float> Task for GroupRanges<'_, '_, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let mut wide = None;
        let mut blocks = RowBlocks::new(self.x, self.row, &mut wide);
        while let Some((group, block)) = blocks.next_of_group(self.group_len) {
            let Some(whole) = self.ranges.get_mut(group) else { return };
            *whole = match (*whole, Range::of_finite(block)) {
                (Some(whole), Some(range)) => Some(whole.merge(range)),
                (whole, range) => whole.or(range),
            };
        }
    }
}

/// The blocks of a row.
struct RowOfBlocks<'t, 'x, F> {
    x: &'t FloatRows<'x, F>,
    row: usize,
    blocks: &'t mut [GgmlQ8_0],
}

impl<F: Float> Task for RowOfBlocks<'_, '_, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let mut wide = None;
        let mut values = RowBlocks::new(self.x, self.row, &mut wide);
        // A block is not so long that its values would come in several pieces.
        while let Some((group, values)) = values.next_of_group(GgmlQ8_0::BLOCK_LEN) {
            let Some(block) = self.blocks.get_mut(group) else { return };
            *block = GgmlQ8_0::of(values);
        }
    }
}
