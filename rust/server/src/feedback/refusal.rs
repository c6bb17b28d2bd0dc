//! Why feedback is refused, in a word and in a sentence.
//!
//! Next: `endpoint`.

/// Why feedback is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is no JSON of a feedback.
    Unreadable,
    /// The receipt has not the form of one.
    Malformed,
    /// The receipt was not issued here for this endpoint.
    Forged,
    /// The endpoint has no such feedback.
    UnknownKind,
    /// The value is none of the feedback.
    BadValue,
    /// It comes after the time that the document gives, or the receipt is forgotten.
    Late,
    /// The receipt has been used for this feedback.
    Duplicate,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Refusal; 7] = [
        Refusal::Unreadable,
        Refusal::Malformed,
        Refusal::Forged,
        Refusal::UnknownKind,
        Refusal::BadValue,
        Refusal::Late,
        Refusal::Duplicate,
    ];

    /// The word in answers and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Refusal::Unreadable => "unreadable",
            Refusal::Malformed => "malformed",
            Refusal::Forged => "forged",
            Refusal::UnknownKind => "unknown_kind",
            Refusal::BadValue => "bad_value",
            Refusal::Late => "late",
            Refusal::Duplicate => "duplicate",
        }
    }
}

/// Feedback that is refused, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedFeedback {
    /// Why.
    pub refusal: Refusal,
    /// The same in words.
    pub words: String,
}

impl RefusedFeedback {
    /// With its words.
    pub fn new(refusal: Refusal, words: impl Into<String>) -> RefusedFeedback {
        RefusedFeedback { refusal, words: words.into() }
    }
}
