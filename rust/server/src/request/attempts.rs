//! What follows a version's failure: others are asked, whose mistake it was is found out, and each version gets what is its own.
//!
//! ```text
//! a run failed --> the champion, for a challenger --answered--> the failure is the challenger's
//!                  then the fallbacks            --answered--> a probe tells, apart from the answer
//!                  nobody answered               -----------> the request waits for what a probe tells: 400, or 500
//! a run was late --> the fallbacks               -----------> a probe tells, apart from the answer
//! it takes no such inputs, but the champion does --> the champion
//! ```
//! A champion that takes what a challenger does not is better evidence than any probe. Other fallbacks may take what is not for
//! them to take, so their answer is no evidence, and a constant, which takes everything, is asked only where the version is
//! at fault.
//!
//! Not here: the order of the versions (`taps::fallback`), probes (`attribution`).

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::Signature;

use crate::after::taps::Tap;
use crate::after::taps::fallback::{Cause, Next};
use crate::budget::SMALL_REQUEST;
use crate::request::attribution::{self, Mistake};
use crate::request::inference::Sent;
use crate::serving::compatibility::accepts_same_inputs;
use crate::thread::io::{self, Io};

/// A version that was asked and did not answer.
struct Attempt {
    tap: Tap,
    error: Error,
    kind: Kind,
}

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The request does not fit the version's signature, or another mistake that is the client's for certain.
    Mistake,
    /// The answer cannot be written as it was asked for: NaN in JSON, say.
    Unwritable,
    /// The run failed, and whose mistake that is is not known yet.
    Run,
    /// The run failed, and whose mistake that is has been asked.
    Judged,
    /// The run was going on when the time was over that the document gives it, and whose mistake that is is not known yet.
    Late,
    /// Anything else: its code says everything.
    Other,
}

impl Kind {
    fn of(tap: &Tap, code: Code) -> Kind {
        match code {
            Code::BackendFailed => Kind::Run,
            Code::InvalidArgument if tap.is_decoded() => Kind::Unwritable,
            Code::InvalidArgument => Kind::Mistake,
            Code::DeadlineExceeded if tap.overran_within().is_some() => Kind::Late,
            _ => Kind::Other,
        }
    }
}

impl Attempt {
    fn new(tap: Tap, error: Error) -> Attempt {
        let kind = Kind::of(&tap, error.code);
        Attempt { tap, error, kind }
    }

    fn signature(&self) -> &Signature {
        self.tap.version().payload.model.signature()
    }

    /// Why another version may answer.
    fn cause(&self) -> Option<Cause> {
        Some(match (self.kind, self.error.code) {
            (Kind::Mistake, _) if self.is_incompatible() => Cause::Incompatible,
            (Kind::Run, _) | (_, Code::Internal) => Cause::Failed,
            (Kind::Unwritable, _) => Cause::Unwritable,
            (_, Code::ModelNotReady) => Cause::NotReady,
            (_, Code::DeadlineExceeded) => Cause::Late,
            (_, Code::Overloaded) => Cause::Overloaded,
            _ => return None,
        })
    }

    /// Whether the champion may take what the version refuses.
    fn is_incompatible(&self) -> bool {
        let champion = self.tap.champion().filter(|_| !self.tap.is_champion());
        champion.is_some_and(|champion| {
            !accepts_same_inputs(champion.payload.model.signature(), self.signature())
        })
    }

    /// Finds out whose mistake a failed run is.
    async fn judge(&mut self) {
        if self.kind != Kind::Run {
            return;
        }
        self.kind = Kind::Judged;
        let (code, words) = match attribution::judge(&self.tap).await {
            Mistake::Versions => return,
            Mistake::Requests => (Code::InvalidArgument, "the model does not take these inputs"),
            Mistake::Unknown => {
                self.tap.excuse();
                (Code::BackendFailed, "the run failed, and no input is known that the model takes")
            }
            Mistake::Untold => {
                (Code::DeadlineExceeded, "the run failed, and the deadline passed before it was known why")
            }
        };
        self.error = Error::new(code, format!("{words}: {}", self.error.message));
    }

    /// Whether the request is at fault for what this version did.
    fn is_the_requests(&self) -> bool {
        self.error.code == Code::InvalidArgument && self.kind != Kind::Mistake
    }

    /// Books it, `answered` by another version.
    fn answered_by(mut self, io: &Io, answered: &Tap) {
        let champion_took_it =
            answered.is_champion() && !answered.version().payload.is_constant && !self.tap.is_champion();
        match self.kind {
            Kind::Run | Kind::Unwritable if champion_took_it => self.error.code = Code::BackendFailed,
            Kind::Run | Kind::Late => attribution::report_in_time(io, &mut self.tap),
            _ => {}
        }
        self.tap.pass_on(io, self.error.code);
    }
}

/// Goes on after a version's failure: the tap of the version that is to be named in the answer, and what it answers.
///
/// `again` has another version serve the request, whose body is `size` bytes, into the buffer.
///
/// # Errors
/// The failure that is told.
pub async fn go_on(
    (tap, error): (Tap, Error),
    size: usize,
    out: &mut Vec<u8>,
    mut again: impl AsyncFnMut(&mut Tap, &mut Vec<u8>) -> Result<Sent>,
) -> (Tap, Result<Sent>) {
    let (mut last, mut earlier) = (Attempt::new(tap, error), Vec::new());
    while let Some(next) = next(&mut last, &mut earlier).await {
        let counted = last.tap.counted();
        // A run that goes on has taken the body's share with it. Without room for another there is no further attempt.
        if size >= SMALL_REQUEST && counted.is_small() && io::with(|io| counted.add_body(io, size)).is_err() {
            break;
        }
        let mut tap = last.tap.hand_on(&next);
        earlier.push(last);
        out.clear();
        match again(&mut tap, out).await {
            Ok(sent) => {
                io::with(|io| earlier.into_iter().for_each(|attempt| attempt.answered_by(io, &tap)));
                return (tap, Ok(sent));
            }
            Err(error) => last = Attempt::new(tap, error),
        }
    }
    let error = conclude(&mut last, earlier).await;
    (last.tap, Err(error))
}

/// Who is asked next.
async fn next(last: &mut Attempt, earlier: &mut [Attempt]) -> Option<Next> {
    let next = last.tap.next(last.cause()?)?;
    if last.tap.is_constant(&next) {
        for attempt in earlier.iter_mut().chain([last]) {
            attempt.judge().await;
            if attempt.is_the_requests() {
                return None;
            }
        }
    }
    Some(next)
}

/// Nobody answered: books what the earlier versions did, and tells the breaker of the last one; the error that is told.
async fn conclude(last: &mut Attempt, mut earlier: Vec<Attempt>) -> Error {
    for attempt in earlier.iter_mut().chain([&mut *last]) {
        attempt.judge().await;
        if attempt.kind == Kind::Late {
            io::with(|io| attribution::report_in_time(io, &mut attempt.tap));
        }
    }
    // What the version did, whatever the answer will be.
    io::with(|io| last.tap.report(io, Some(last.error.code)));
    let told = {
        let last = &*last;
        let first = earlier.first().unwrap_or(last);
        // A version that takes something else refuses what was right for the one that was asked.
        let misfit = last.kind == Kind::Mistake
            && first.kind != Kind::Mistake
            && !accepts_same_inputs(first.signature(), last.signature());
        let requests = earlier.iter().chain([last]).find(|attempt| attempt.is_the_requests());
        requests.unwrap_or(if misfit { first } else { last }).error.clone()
    };
    io::with(|io| earlier.into_iter().for_each(|attempt| attempt.tap.pass_on(io, attempt.error.code)));
    told
}
