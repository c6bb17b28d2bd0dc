//! Answers that are compared with the first answer to the same request.
//!
//! On the sending path only bytes are compared, which costs as much as copying them. Answers whose bytes differ (in an id, say) are kept
//! until all work that is due is done, and then read. Read next: `checks/values`.

mod values;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use crate::reply::{BodyForm, Reply};

/// Bytes of first answers, of all requests together.
const MOST_FIRST_BYTES: usize = 24 << 20;
/// Bytes of answers that a thread keeps for a comparison.
const MOST_KEPT_BYTES: usize = 8 << 20;

/// An answer that was kept.
#[derive(Debug)]
struct Kept {
    body: Box<[u8]>,
    form: BodyForm,
}

/// The first answer to each request, of all threads.
pub(crate) struct FirstAnswers {
    by_request: Box<[OnceLock<Kept>]>,
    bytes: AtomicUsize,
}

impl FirstAnswers {
    pub(crate) fn new(requests: usize) -> FirstAnswers {
        FirstAnswers {
            by_request: (0..requests).map(|_| OnceLock::new()).collect(),
            bytes: AtomicUsize::new(0),
        }
    }
}

/// What a comparison of bytes found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    /// The answer is the same as the first.
    Same,
    /// Nothing is known: it is the first, it is compared later, or there is no room for it.
    Unknown,
}

/// The outcome of a comparison that was put off.
#[derive(Debug)]
pub(crate) struct Compared {
    pub(crate) row: u32,
    /// The beginning of an answer that differs.
    pub(crate) difference: Option<String>,
}

/// The comparisons of one thread.
pub(crate) struct Checks {
    first: Arc<FirstAnswers>,
    put_off: Vec<(u32, u32, Kept)>,
    put_off_bytes: usize,
}

impl Checks {
    pub(crate) fn new(first: Arc<FirstAnswers>) -> Checks {
        Checks { first, put_off: Vec::new(), put_off_bytes: 0 }
    }

    /// Compares the bytes of an answer with those of the first to the same request.
    pub(crate) fn check(&mut self, row: u32, request: u32, reply: &Reply<'_>) -> Checked {
        if !reply.whole {
            return Checked::Unknown;
        }
        let kept = || Kept { body: reply.body.into(), form: reply.form };
        let place = &self.first.by_request[request as usize];
        match place.get() {
            Some(first) if *first.body == *reply.body => return Checked::Same,
            Some(_) if self.put_off_bytes + reply.body.len() <= MOST_KEPT_BYTES => {
                self.put_off_bytes += reply.body.len();
                self.put_off.push((row, request, kept()));
            }
            Some(_) => {}
            None if self.first.bytes.fetch_add(reply.body.len(), Relaxed) + reply.body.len()
                <= MOST_FIRST_BYTES =>
            {
                // Another thread may have been first in between; its answer stays.
                let _ = place.set(kept());
            }
            None => {
                self.first.bytes.fetch_sub(reply.body.len(), Relaxed);
            }
        }
        Checked::Unknown
    }

    /// Compares the values of all answers that were put off.
    pub(crate) fn compare_the_rest(&mut self) -> Vec<Compared> {
        self.put_off_bytes = 0;
        let put_off = std::mem::take(&mut self.put_off).into_iter();
        let compared = put_off.filter_map(|(row, request, kept)| {
            let first = self.first.by_request[request as usize].get()?;
            let same = values::same((&first.body, first.form), (&kept.body, kept.form));
            Some(Compared { row, difference: (!same).then(|| example(&kept)) })
        });
        compared.collect()
    }
}

/// The beginning of an answer as text.
fn example(kept: &Kept) -> String {
    let beginning = &kept.body[..kept.body.len().min(crate::http1::parser::EXAMPLE_BYTES)];
    match kept.form {
        BodyForm::Json => String::from_utf8_lossy(beginning).into_owned(),
        _ => beginning.escape_ascii().to_string(),
    }
}
