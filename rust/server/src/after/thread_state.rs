//! What only one IO thread touches of what happens after its responses.

use std::cell::{OnceCell, RefCell};
use std::collections::HashSet;
use std::sync::Arc;

use crate::after::access_log::AccessLog;
use crate::after::sketching::Sketcher;
use crate::thread::io::Io;

/// A thread's sketches and its access log.
pub(crate) struct AfterState {
    /// This thread's sketches.
    pub(crate) sketcher: RefCell<Sketcher>,
    /// Where sampled requests are written down.
    log: Option<Arc<AccessLog>>,
}

thread_local! {
    static AFTER: OnceCell<AfterState> = const { OnceCell::new() };
}

/// Prepares the calling IO thread.
///
/// # Panics
/// When it has been prepared already.
pub fn install(log: Option<Arc<AccessLog>>) {
    let after = AfterState { sketcher: RefCell::default(), log };
    AFTER.with(|slot| assert!(slot.set(after).is_ok(), "an IO thread is prepared once"));
}

/// Lends this IO thread's state; `None` on any other thread, and while the thread's locals are being destroyed.
pub(crate) fn try_with<R>(use_it: impl FnOnce(&AfterState) -> R) -> Option<R> {
    AFTER.try_with(|after| after.get().map(use_it)).ok().flatten()
}

/// Lets go of the sketches of versions that are not among `live`.
pub fn retain(live: &HashSet<u64>) {
    try_with(|after| after.sketcher.borrow_mut().retain(|id| live.contains(&id)));
}

/// The access log, for a request that it takes.
pub fn sampled_log(io: &Io) -> Option<Arc<AccessLog>> {
    try_with(|after| after.log.as_ref().filter(|log| log.samples(io.draw())).cloned()).flatten()
}
