//! Ending a request that panics, and nothing else.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use headgate_core::error::{Code, Error, Result};

/// Runs a request to its end. It is pinned by the caller: a future that is handed on by value is copied, and all its state with it.
///
/// # Errors
/// Those of the request; `internal` after a panic.
pub fn catch_panic<T, F: Future<Output = Result<T>>>(request: Pin<&mut F>) -> CatchPanic<'_, F> {
    CatchPanic(request)
}

/// What [`catch_panic`] waits for.
pub struct CatchPanic<'a, F>(Pin<&'a mut F>);

impl<T, F: Future<Output = Result<T>>> Future for CatchPanic<'_, F> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let future = self.0.as_mut();
        match std::panic::catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
            Ok(polled) => polled,
            Err(_) => Poll::Ready(Err(Error::new(
                Code::Internal,
                "this request hit a defect of Headgate; others are not affected",
            ))),
        }
    }
}
