//! What follows a version's failure: other versions are asked, and each failure is booked on the version that is at fault.
//!
//! ```text
//! a run failed   --> the champion, for a challenger --it answers--> the challenger is at fault
//!                    then the listed fallbacks      --it answers--> a probe finds the fault; the response does not wait
//!                    no version answers             ------------> the response waits for the probe: 400, or 500
//! a run was late --> the listed fallbacks           ------------> a probe finds the fault; the response does not wait
//! the inputs do not fit, but may fit the champion --> the champion
//! ```
//! A champion that takes what a challenger does not is better evidence than any probe. Other fallbacks may take inputs that are
//! wrong, so their response is no evidence. A constant takes everything, so it is asked only if the version is at fault.
//!
//! Not here: the order of the versions (`fallback`), probes (`attribution`).

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::Signature;
use headgate_core::trial::outcome::PassedOn;
use headgate_engine::Instant;
use http::HeaderValue;

use crate::after::record::RecordHandle;
use crate::after::record::routed_version::RoutedVersion;
use crate::budget::SMALL_REQUEST;
use crate::request::attempt::Attempt;
use crate::request::attribution::{self, Fault};
use crate::request::fallback::{self, Fallback, FallbackCause};
use crate::request::inference::{ParsedRequest, ResponseLayout};
use crate::serving::compatibility::accepts_same_inputs;
use crate::thread::io::Io;

/// A version's attempt that failed.
struct FailedAttempt {
    attempt: Attempt,
    error: Error,
    kind: FailureKind,
}

/// What kind of failure an attempt ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FailureKind {
    /// The request does not fit the version's signature, or has another error that certainly is the client's.
    ClientError,
    /// The response cannot be written in the requested form: NaN in JSON, say.
    Unwritable,
    /// The run failed, and the fault is not attributed yet.
    RunFailed,
    /// The run failed, and the fault is attributed.
    Attributed,
    /// The run went on beyond the time that the document gives, and the fault is not attributed yet.
    Overran,
    /// Anything else: the code says everything.
    Other,
}

impl FailureKind {
    fn of(attempt: &Attempt, code: Code) -> FailureKind {
        match code {
            Code::BackendFailed => FailureKind::RunFailed,
            Code::InvalidArgument if attempt.record.timing.is_decoded() => FailureKind::Unwritable,
            Code::InvalidArgument => FailureKind::ClientError,
            Code::DeadlineExceeded if attempt.overran_within().is_some() => FailureKind::Overran,
            _ => FailureKind::Other,
        }
    }
}

impl FailedAttempt {
    fn new(attempt: Attempt, error: Error) -> FailedAttempt {
        let kind = FailureKind::of(&attempt, error.code);
        FailedAttempt { attempt, error, kind }
    }

    fn routed(&self) -> &RoutedVersion {
        &self.attempt.record.routed
    }

    fn signature(&self) -> &Signature {
        self.routed().version().payload.model.signature()
    }

    /// Why another version may answer.
    fn cause(&self) -> Option<FallbackCause> {
        Some(match (self.kind, self.error.code) {
            (FailureKind::ClientError, _) if self.is_incompatible() => FallbackCause::Incompatible,
            (FailureKind::RunFailed, _) | (_, Code::Internal) => FallbackCause::Failed,
            (FailureKind::Unwritable, _) => FallbackCause::Unwritable,
            (_, Code::ModelNotReady) => FallbackCause::NotReady,
            (_, Code::DeadlineExceeded) => FallbackCause::Late,
            (_, Code::Overloaded) => FallbackCause::Overloaded,
            _ => return None,
        })
    }

    /// The version that is asked next, for a caller that did not name one and while there is time.
    fn next(&self) -> Option<Fallback> {
        let cause = self.cause()?;
        if self.routed().is_direct() || Instant::now() >= self.attempt.deadlines.request {
            return None;
        }
        self.attempt.fallbacks.next(self.routed(), cause)
    }

    /// Whether the champion may take what the version refuses.
    fn is_incompatible(&self) -> bool {
        let champion = fallback::champion(self.routed()).filter(|_| !fallback::is_champion(self.routed()));
        champion.is_some_and(|champion| {
            !accepts_same_inputs(champion.payload.model.signature(), self.signature())
        })
    }

    /// The attempt of the next version, with what this one holds of the request. [`RecordHandle::pass_on`] books this one.
    fn next_attempt(&mut self, next: &Fallback) -> Attempt {
        let old = &mut self.attempt.record;
        let said = format!("{}; cause={}", old.version().name, next.cause.as_str());
        let routed = RoutedVersion { index: next.version, ..old.routed.clone() };
        let fallbacks = self.attempt.fallbacks.after(next, routed.endpoint.champion);
        let (received, request_hash) = (old.timing.received, old.sample.request_hash);
        let mut record = RecordHandle::begin(routed, received, request_hash, std::mem::take(&mut old.memory));
        record.log = old.log.take();
        record.fallback_header = old.fallback_header.take().or_else(|| HeaderValue::from_str(&said).ok());
        let deadlines = self.attempt.deadlines.for_fallback();
        Attempt { record, deadlines, fallbacks, class: self.attempt.class }
    }

    /// Attributes the fault of a failed run.
    async fn attribute(&mut self) {
        if self.kind != FailureKind::RunFailed {
            return;
        }
        self.kind = FailureKind::Attributed;
        let (code, words) = match attribution::find_fault(&self.attempt).await {
            Fault::Version => return,
            Fault::Request => (Code::InvalidArgument, "the model does not take these inputs"),
            Fault::Unknown => {
                self.attempt.record.excuse_version();
                (Code::BackendFailed, "the run failed, and no input is known that the model takes")
            }
            Fault::TimedOut => {
                (Code::DeadlineExceeded, "the run failed, and the deadline passed before it was known why")
            }
        };
        self.error = Error::new(code, format!("{words}: {}", self.error.message));
    }

    /// Whether the request is at fault for what this version did.
    fn is_request_fault(&self) -> bool {
        self.error.code == Code::InvalidArgument && self.kind != FailureKind::ClientError
    }

    /// Books the failed attempt of a request that `answered` answered.
    fn answered_by(mut self, io: &Io, answered: &RoutedVersion) {
        let champion_took_it = fallback::is_champion(answered)
            && !answered.version().payload.is_constant
            && !fallback::is_champion(self.routed());
        match self.kind {
            FailureKind::RunFailed | FailureKind::Unwritable if champion_took_it => {
                self.error.code = Code::BackendFailed
            }
            FailureKind::RunFailed | FailureKind::Overran => {
                attribution::report_when_known(io, &mut self.attempt)
            }
            _ => {}
        }
        self.pass_on(io, PassedOn::Answered);
    }

    fn pass_on(self, io: &Io, passed_on: PassedOn) {
        self.attempt.record.pass_on(io, self.error.code, passed_on);
    }
}

/// Goes on after a version's failure: the attempt of the version that the response names, and its response or the failure that the
/// client reads.
pub async fn serve_by_fallback(
    io: &Io,
    attempt: Attempt,
    error: Error,
    request: &ParsedRequest<'_>,
    out: &mut Vec<u8>,
) -> (Attempt, Result<ResponseLayout>) {
    let (mut last, mut earlier) = (FailedAttempt::new(attempt, error), Vec::new());
    while let Some(next) = next(&mut last, &mut earlier).await {
        last.attempt.record.release_run();
        let (size, memory) = (request.body.len(), &mut last.attempt.record.memory);
        // A run that goes on has taken the memory of the body with it. Without memory for another there is no further attempt.
        if size >= SMALL_REQUEST && memory.is_small() && memory.add_body(io, size).is_err() {
            break;
        }
        let mut attempt = last.next_attempt(&next);
        earlier.push(last);
        out.clear();
        match attempt.serve(io, request, out).await {
            Ok(sent) => {
                let answered = &attempt.record.routed;
                earlier.into_iter().for_each(|attempt| attempt.answered_by(io, answered));
                return (attempt, Ok(sent));
            }
            Err(error) => last = FailedAttempt::new(attempt, error),
        }
    }
    let error = book_failures(io, &mut last, earlier).await;
    (last.attempt, Err(error))
}

/// The version that is asked next. A constant is asked only if no attempt failed by the request's fault.
async fn next(last: &mut FailedAttempt, earlier: &mut [FailedAttempt]) -> Option<Fallback> {
    let next = last.next()?;
    if next.is_constant(last.routed()) {
        for attempt in earlier.iter_mut().chain([last]) {
            attempt.attribute().await;
            if attempt.is_request_fault() {
                return None;
            }
        }
    }
    Some(next)
}

/// Books the earlier attempts of a request that no version answered, and reports the last one to its breaker; the error that the client
/// reads.
async fn book_failures(io: &Io, last: &mut FailedAttempt, mut earlier: Vec<FailedAttempt>) -> Error {
    for attempt in earlier.iter_mut().chain([&mut *last]) {
        attempt.attribute().await;
        if attempt.kind == FailureKind::Overran {
            attribution::report_when_known(io, &mut attempt.attempt);
        }
    }
    // The breaker hears of the version's own failure, whatever the client reads.
    last.attempt.record.report(io, Some(last.error.code));
    let last = &*last;
    let first = earlier.first().unwrap_or(last);
    // A version with another signature refuses what was right for the first one.
    let misfit = last.kind == FailureKind::ClientError
        && first.kind != FailureKind::ClientError
        && !accepts_same_inputs(first.signature(), last.signature());
    let requests = earlier.iter().chain([last]).find(|attempt| attempt.is_request_fault());
    let error = requests.unwrap_or(if misfit { first } else { last }).error.clone();
    let is_mistake = last.kind == FailureKind::ClientError && !misfit;
    let passed_on = if is_mistake { PassedOn::Mistaken } else { PassedOn::Unanswered };
    earlier.into_iter().for_each(|attempt| attempt.pass_on(io, passed_on));
    error
}
