//! The words of a verdict.

/// What a gate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is data, and no harm was shown.
    Pass,
    /// Harm was shown.
    Fail,
    /// There is no data to decide on.
    Undecided,
    /// The evidence cannot be judged.
    Error,
}

impl Verdict {
    /// The word in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::Undecided => "undecided",
            Verdict::Error => "error",
        }
    }
}
