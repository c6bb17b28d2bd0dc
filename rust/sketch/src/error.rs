//! The errors of this crate. Only fitting, reading and compiling can fail; the update path cannot.
//!
//! Next: `edges`.

/// An error. The text says what is wrong and what would be right. It is not an interface.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The columns or values given to a fit contradict themselves.
    #[error("cannot fit a baseline: {0}")]
    Fit(String),
    /// The bytes are not a baseline, or contradict themselves.
    #[error("the baseline cannot be used: {0}")]
    Baseline(String),
    /// The tensors given for a plan contradict themselves.
    #[error("cannot plan the sketches: {0}")]
    Plan(String),
}

/// The result of a function that can fail.
pub type Result<T> = std::result::Result<T, Error>;
