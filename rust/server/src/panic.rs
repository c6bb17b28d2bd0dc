//! Ending a request that panics, and nothing else.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use headgate_core::error::{Code, Error, Result};

/// Runs a request to its end.
///
/// # Errors
/// Those of the request; `internal` after a panic.
pub async fn catching<T>(request: impl Future<Output = Result<T>>) -> Result<T> {
    CatchPanic(pin!(request)).await?
}

struct CatchPanic<'a, F>(Pin<&'a mut F>);

impl<F: Future> Future for CatchPanic<'_, F> {
    type Output = Result<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let future = self.0.as_mut();
        match std::panic::catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
            Ok(polled) => polled.map(Ok),
            Err(_) => Poll::Ready(Err(Error::new(
                Code::Internal,
                "this request hit a defect of Headgate; others are not affected",
            ))),
        }
    }
}
