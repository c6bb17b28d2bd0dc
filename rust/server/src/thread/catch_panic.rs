//! Catches the panic of a request, so that only this request fails.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use headgate_core::error::{Code, Error, Result};

/// Runs a request to its end. The caller pins it, because a future that is passed by value is copied with all its state.
///
/// # Errors
/// The errors of the request; `internal` after a panic.
pub fn catch_panic<T, F: Future<Output = Result<T>>>(request: Pin<&mut F>) -> CatchPanic<'_, F> {
    CatchPanic(request)
}

/// The future of [`catch_panic`].
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
