//! A request's share of the memory for requests in progress: what it is counted as, and when that is given back.
//!
//! Not here: the memory that there is (`budget`).

use std::any::Any;
use std::rc::Rc;

use headgate_core::error::Result;

use crate::budget::{Holding, Reserved, SMALL};
use crate::thread::io;

/// A request's share of the memory for requests in progress, given back when it is over.
#[derive(Default)]
pub struct Counted {
    small: usize,
    large: Option<Reserved>,
    /// What its connection holds of the part of small requests, where it may have others.
    holding: Option<Rc<Holding>>,
    /// Whether it has its connection to itself: connections bound what such requests hold while they are small.
    alone: bool,
}

impl Counted {
    /// Counts `bytes` for nobody's connection.
    ///
    /// # Errors
    /// As [`Counted::add`].
    pub fn of(bytes: usize) -> Result<Counted> {
        let mut counted = Counted::default();
        counted.hold(bytes)?;
        Ok(counted)
    }

    /// Counts a body that is here, and the tensors made of it, for a request that has its connection to itself.
    pub fn alone(length: usize) -> Counted {
        let mut counted = Counted { small: 0, large: None, holding: None, alone: true };
        // Such a body is small, and one that is alone is never refused.
        let _ = counted.add(length);
        counted
    }

    /// Counts a body of `length` bytes and the tensors made of it.
    ///
    /// # Errors
    /// `overloaded`; `payload_too_large` for what can never have room.
    pub fn add(&mut self, length: usize) -> Result<()> {
        if length < SMALL { self.add_small(2 * length) } else { self.add_large(length.saturating_mul(2)) }
    }

    /// Counts `bytes`, and nothing made of them.
    ///
    /// # Errors
    /// As [`Counted::add`].
    pub fn hold(&mut self, bytes: usize) -> Result<()> {
        if bytes < SMALL { self.add_small(bytes) } else { self.add_large(bytes) }
    }

    fn add_small(&mut self, bytes: usize) -> Result<()> {
        io::with(|io| match &self.holding {
            Some(holding) => io.shared.small_requests.take_share(io.thread, bytes, holding),
            None => io.shared.small_requests.take(io.thread, bytes, !self.alone),
        })?;
        self.small += bytes;
        Ok(())
    }

    fn add_large(&mut self, bytes: usize) -> Result<()> {
        let more = io::with(|io| io.shared.large_requests.reserve(bytes))?;
        self.join(Some(more));
        Ok(())
    }

    /// Takes what another one counts over.
    pub fn take(&mut self, mut other: Counted) {
        self.small += std::mem::take(&mut other.small);
        self.alone |= other.alone;
        // What was taken before was nothing: a request has its body first.
        self.holding = self.holding.take().or_else(|| other.holding.take());
        self.join(other.large.take());
    }

    /// Hands what is counted and large over, in a box for somebody who only keeps it; nothing, which is usual, needs no box.
    pub fn hand_over(&mut self) -> Option<Box<dyn Any + Send + Sync>> {
        self.large.take().map(|reserved| -> Box<dyn Any + Send + Sync> { Box::new(reserved) })
    }

    /// Lends what is counted and large to somebody who may give it back.
    pub fn lend(&mut self) -> Option<Reserved> {
        self.large.take()
    }

    /// Takes back what was lent.
    pub fn take_back(&mut self, lent: Option<Reserved>) {
        self.join(lent);
    }

    /// Whether nothing large is counted.
    pub fn is_small(&self) -> bool {
        self.large.is_none()
    }

    fn join(&mut self, more: Option<Reserved>) {
        match (&mut self.large, more) {
            (Some(held), Some(more)) => held.join(more),
            (held @ None, more) => *held = more,
            (Some(_), None) => {}
        }
    }

    fn give_small(&mut self) {
        let small = std::mem::take(&mut self.small);
        if small > 0 {
            if let Some(holding) = &self.holding {
                holding.gave(small);
            }
            // Requests end on IO threads; without one the gateway is gone.
            io::try_with(|io| io.shared.small_requests.give(io.thread, small));
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.give_small();
    }
}

/// Counts a body as it comes: its sender takes room from others with bytes, not with claims.
#[derive(Default)]
pub struct Counting {
    counted: Counted,
    bytes: usize,
}

impl Counting {
    /// Counts a body of a connection that may have others.
    pub fn on(holding: &Rc<Holding>) -> Counting {
        let counted = Counted { small: 0, large: None, holding: Some(holding.clone()), alone: false };
        Counting { counted, bytes: 0 }
    }

    /// Bytes that are counted at a time.
    pub const STEP: usize = SMALL;

    /// What a body of `length` bytes is counted as.
    pub fn rounded(length: usize) -> usize {
        if length < Self::STEP { length } else { length.next_multiple_of(Self::STEP) }
    }

    /// Sees to it that `length` bytes of a body are counted.
    ///
    /// # Errors
    /// As [`Counted::add`].
    pub fn upto(&mut self, length: usize) -> Result<()> {
        if length <= self.bytes {
            return Ok(());
        }
        let bytes = Self::rounded(length);
        if bytes < Self::STEP {
            self.counted.add_small(2 * (bytes - self.bytes))?;
        } else {
            let before = if self.bytes < Self::STEP { 0 } else { self.bytes };
            self.counted.add_large(2 * (bytes - before))?;
            self.counted.give_small();
        }
        self.bytes = bytes;
        Ok(())
    }

    /// What was counted.
    pub fn finish(self) -> Counted {
        self.counted
    }
}
