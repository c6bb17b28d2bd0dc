//! What this crate refuses, in sentences. Nothing on the update path can fail: only fitting, reading and compiling do.
//!
//! Next: `edges`.

/// A refusal; the text says what was wrong, where, and what would be right. It is not an interface.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The columns or values given to a fit contradict themselves.
    #[error("cannot fit a baseline: {0}")]
    Fit(String),
    /// The bytes of a baseline are not one, or contradict themselves.
    #[error("the baseline cannot be used: {0}")]
    Baseline(String),
    /// The tensors given for a plan contradict themselves.
    #[error("cannot plan the sketches: {0}")]
    Plan(String),
}

/// The result of everything here that can be refused.
pub type Result<T> = std::result::Result<T, Error>;
