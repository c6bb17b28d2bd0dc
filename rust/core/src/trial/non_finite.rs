//! What is known of the NaN and the infinities in the outputs of an answer.
//!
//! Next: `arm`.

/// Outputs that are looked at one by one. The last bit stands for all further ones.
pub const OUTPUT_BITS: usize = 64;

/// The outputs that have a NaN or an infinity. Bit `i` is that of output `i`; the last one is that of all further outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NonFiniteOutputs {
    /// Outputs with a NaN.
    pub nan: u64,
    /// Outputs with an infinity.
    pub infinite: u64,
    /// Whether only the beginning of an output was looked at.
    pub is_partial: bool,
}
