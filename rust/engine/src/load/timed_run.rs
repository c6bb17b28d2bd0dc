//! A run with a time limit: a model may run for ever on synthetic inputs.
//!
//! Next: back to `warm_up`.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use headgate_core::error::{Code, Error, Result};
use headgate_runtime::Binding;
use headgate_runtime::cancel::{self, CancelScope};

use crate::models::LoadedModel;
use crate::time::Instant;

/// How often it is checked that the load was not cancelled.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// How long a run may go on after it was cancelled before its thread is detached.
const CANCEL_GRACE: Duration = Duration::from_secs(2);

/// Runs a model on a thread of its own, and cancels the run at `until`.
///
/// # Errors
/// `backend_failed` if the run takes longer; `cancelled` if the load is cancelled; or as the run.
pub(super) fn run_until(model: &LoadedModel, mut binding: Binding, until: Instant) -> Result<()> {
    let (model, (token_sender, token_receiver), (result_sender, outcome)) =
        (model.clone(), channel(), channel());
    let run = move || {
        let scope = CancelScope::begin();
        // The receivers live until the run is over or given up.
        let _ = token_sender.send(scope.token());
        let result = model.executable().execute_first(&mut binding);
        drop((binding, model));
        let _ = result_sender.send(result);
    };
    let thread = std::thread::Builder::new().name("hg-warm".to_owned()).spawn(run);
    thread.map_err(|error| Error::new(Code::Internal, format!("no thread to warm a model: {error}")))?;
    let lost = |_| Error::new(Code::Internal, "a thread that warms a model gave no outcome");
    let token = token_receiver.recv().map_err(lost)?;
    loop {
        match outcome.recv_timeout(POLL_INTERVAL) {
            Ok(result) => return result,
            Err(RecvTimeoutError::Timeout) if Instant::now() < until && cancel::check().is_ok() => {}
            Err(_) => break,
        }
    }
    token.cancel();
    // One long node may go on. Its thread ends with it.
    let _ = outcome.recv_timeout(CANCEL_GRACE);
    cancel::check()?;
    Err(Error::new(Code::BackendFailed, "the run takes too long"))
}
