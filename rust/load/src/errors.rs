//! What went wrong, by kind, with one example each.

/// Kinds that are told apart; what comes later is counted together.
const MOST_KINDS: usize = 64;
const OTHERS: &str = "others";

/// Counts of what went wrong, in the order in which it first happened.
#[derive(Clone, Debug, Default)]
pub(crate) struct ErrorTable {
    rows: Vec<ErrorRow>,
}

/// A kind of error.
#[derive(Clone, Debug)]
pub(crate) struct ErrorRow {
    pub(crate) what: String,
    pub(crate) count: u64,
    pub(crate) example: String,
}

impl ErrorTable {
    /// Counts an error; the first example of a kind is kept.
    pub(crate) fn count(&mut self, what: &str, example: &[u8]) {
        self.add(what, 1, || String::from_utf8_lossy(example).into_owned());
    }

    fn add(&mut self, what: &str, count: u64, example: impl FnOnce() -> String) {
        let known = self.rows.iter().position(|row| row.what == what);
        let what = if known.is_none() && self.rows.len() >= MOST_KINDS { OTHERS } else { what };
        match known.or_else(|| self.rows.iter().position(|row| row.what == what)) {
            Some(at) => self.rows[at].count += count,
            None => self.rows.push(ErrorRow { what: what.to_owned(), count, example: example() }),
        }
    }

    /// Adds the counts of another table.
    pub(crate) fn merge(&mut self, other: &ErrorTable) {
        for row in &other.rows {
            self.add(&row.what, row.count, || row.example.clone());
        }
    }

    /// The kinds, the most frequent first.
    pub(crate) fn into_rows(mut self) -> Vec<ErrorRow> {
        self.rows.sort_by_key(|row| std::cmp::Reverse(row.count));
        self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_bounded_and_keep_their_first_example() {
        let mut table = ErrorTable::default();
        (0..200).for_each(|at| table.count(&format!("kind {at}"), b"first"));
        table.count("kind 3", b"second");
        let mut sum = ErrorTable::default();
        sum.merge(&table);
        sum.merge(&table);
        let rows = sum.into_rows();
        assert_eq!(rows.len(), MOST_KINDS + 1);
        assert_eq!((&*rows[0].what, rows[0].count), (OTHERS, 272));
        assert_eq!((&*rows[1].what, rows[1].count, &*rows[1].example), ("kind 3", 4, "first"));
    }
}
