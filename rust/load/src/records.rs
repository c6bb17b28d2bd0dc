//! What became of each request of a run, one column each, and the codes that durations are kept as.
//!
//! A code is the index of a duration in an HDR histogram with 3 significant digits over 1 ns to 1 h
//! (Tene, HdrHistogram: 1024 linear parts for each power of two above 2048). Codes are ordered as the durations are, resolve 0.1 %
//! and take two bytes. Not here: who writes while a run lasts (`ledger`), and what is computed from the columns (`summary`).

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Outcome {
    /// Answered as it should be: 2xx over HTTP, OK over gRPC.
    Good,
    /// Refused for load: 429 and 503, `RESOURCE_EXHAUSTED` and `UNAVAILABLE`.
    Shed,
    /// Any other status, a wrong answer, or a broken connection.
    Failed,
    /// Not answered within the timeout.
    TimedOut,
    /// Not sent, because the most requests were in flight.
    Unsent,
}

/// One entry a request in each column, in the order of the due times: 10 bytes a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// Microseconds from the anchor of the run to when the request was due.
    pub due_us: Vec<u32>,
    /// The code of the time from due to the last byte; [`SLOWER_THAN_ANY`] for all that is not [`Outcome::Good`].
    pub response: Vec<u16>,
    /// The code of the time from sending to the last byte; [`SLOWER_THAN_ANY`] if there was none.
    pub service: Vec<u16>,
    /// What became of it.
    pub outcome: Vec<Outcome>,
    /// The index of the group of the request.
    pub kind: Vec<u8>,
}

impl Records {
    /// The number of requests.
    pub fn len(&self) -> usize {
        self.due_us.len()
    }

    /// Whether there is no request.
    pub fn is_empty(&self) -> bool {
        self.due_us.is_empty()
    }

    /// Columns without a request that have room for `requests`.
    pub fn with_capacity(requests: usize) -> Records {
        Records {
            due_us: Vec::with_capacity(requests),
            response: Vec::with_capacity(requests),
            service: Vec::with_capacity(requests),
            outcome: Vec::with_capacity(requests),
            kind: Vec::with_capacity(requests),
        }
    }

    /// Appends a request; the caller keeps the order of the due times.
    pub fn push(&mut self, record: Record) {
        self.due_us.push(record.due_us);
        self.response.push(record.response);
        self.service.push(record.service);
        self.outcome.push(record.outcome);
        self.kind.push(record.kind);
    }
}

/// One row of [`Records`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// See [`Records::due_us`].
    pub due_us: u32,
    /// See [`Records::response`].
    pub response: u16,
    /// See [`Records::service`].
    pub service: u16,
    /// See [`Records::outcome`].
    pub outcome: Outcome,
    /// See [`Records::kind`].
    pub kind: u8,
}

/// The response of everything that is not [`Outcome::Good`]: slower than any answer.
pub const SLOWER_THAN_ANY: u16 = u16::MAX;

/// The longest duration with a code of its own; longer ones have the code of this one.
pub const LONGEST_NS: u64 = 3_600_000_000_000;

/// Linear parts for each power of two, as a power of two.
const PARTS_LOG2: u32 = 10;
/// Durations below this have codes of 1 ns.
const EXACT_BELOW: u64 = 2 << PARTS_LOG2;

/// The number of codes: [`code_of`] is below it.
pub const CODES: usize = code_of(LONGEST_NS) as usize + 1;

/// The code of a duration.
pub const fn code_of(ns: u64) -> u16 {
    let ns = if ns > LONGEST_NS { LONGEST_NS } else { ns };
    let octave = (ns | (EXACT_BELOW - 1)).ilog2() - PARTS_LOG2;
    // At most 31 octaves of 1024 parts and 2048 exact ones: below 2^16.
    ((octave << PARTS_LOG2) as u64 + (ns >> octave)) as u16
}

/// The octave of a code: its durations are a range of 2 to this power.
const fn octave_of(code: u16) -> u32 {
    ((code as u32) >> PARTS_LOG2).saturating_sub(1)
}

/// The shortest duration of a code.
pub const fn lowest_ns(code: u16) -> u64 {
    let octave = octave_of(code);
    (code as u64 - ((octave as u64) << PARTS_LOG2)) << octave
}

/// The longest duration of a code: what a quantile prints.
pub const fn highest_ns(code: u16) -> u64 {
    lowest_ns(code) + (1 << octave_of(code)) - 1
}

#[cfg(test)]
mod tests {
    use hdrhistogram::Histogram;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_code_is_the_index_of_the_crate_that_exports_the_histograms() {
        let other = Histogram::<u32>::new_with_bounds(1, LONGEST_NS, 3).unwrap();
        assert_eq!(highest_ns(code_of(12_345_678)), 12_353_535);
        proptest!(|(ns in prop_oneof![0..5000u64, 1..LONGEST_NS])| {
            let code = code_of(ns);
            prop_assert_eq!(lowest_ns(code), other.lowest_equivalent(ns));
            prop_assert_eq!(highest_ns(code), other.highest_equivalent(ns));
        });
    }

    #[test]
    fn codes_are_ordered_and_leave_no_gap() {
        for code in 0..(CODES - 1) as u16 {
            assert_eq!(highest_ns(code) + 1, lowest_ns(code + 1));
            assert_eq!((code_of(lowest_ns(code)), code_of(highest_ns(code))), (code, code));
        }
        assert_eq!(code_of(u64::MAX) as usize, CODES - 1);
        assert!(CODES < SLOWER_THAN_ANY as usize);
    }
}
