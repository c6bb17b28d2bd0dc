//! The records of several threads or load hosts as those of one run.

use crate::records::{Record, Records};

/// The records of all parts in the order of due times; those of an earlier part first if they were due together. Each part
/// is in that order already, and all count from the same anchor.
#[must_use]
pub fn merged(parts: &[Records]) -> Records {
    let mut all = Records::with_capacity(parts.iter().map(Records::len).sum());
    let mut next = vec![0; parts.len()];
    let due = |part: usize, next: &[usize]| parts[part].due_us.get(next[part]).map(|&due_us| (due_us, part));
    while let Some((_, part)) = (0..parts.len()).filter_map(|part| due(part, &next)).min() {
        let (from, at) = (&parts[part], next[part]);
        all.push(Record {
            due_us: from.due_us[at],
            response: from.response[at],
            service: from.service[at],
            outcome: from.outcome[at],
            kind: from.kind[at],
        });
        next[part] += 1;
    }
    all
}
