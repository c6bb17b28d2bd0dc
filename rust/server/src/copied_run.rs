//! The tensors of a request after its response, with one owner for all that want them: shadows and the capture.

use std::time::SystemTime;

use headgate_core::error::Code;
use headgate_engine::Instant;
use headgate_engine::RunResult;
use http::HeaderValue;

/// What a request asked, and what its version made of it. The last owner may be any thread.
pub struct CopiedRun {
    /// The inputs and, if the version answered, the outputs.
    pub run: RunResult,
    /// Whether there are outputs.
    pub answer: Answer,
    /// The bytes that `run` keeps in memory.
    pub bytes: usize,
    /// When the response was out.
    pub at: Instant,
    /// `x-request-id` of the request.
    pub request_id: Option<HeaderValue>,
}

impl CopiedRun {
    /// When the response was out, by the clock of the system.
    pub fn time(&self) -> SystemTime {
        SystemTime::now() - self.at.elapsed()
    }
}

/// What a version made of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has outputs, whether or not a response could be written from them.
    Outputs,
    /// It failed. The outputs of the run are not valid.
    Failed(Code),
}
