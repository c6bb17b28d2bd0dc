//! The fields that a peer has added to the table of its connection.

use std::collections::VecDeque;

/// What a field is counted as beside its name and value, in bytes (RFC 7541, 4.1).
pub(super) const OVERHEAD: usize = 32;

/// The fields that were added last. They are dropped from the oldest one on when there is no room.
pub(super) struct DynamicTable {
    fields: VecDeque<Entry>,
    size: usize,
    most: usize,
    changes: u64,
}

/// A name with its value behind it.
struct Entry {
    text: Box<[u8]>,
    name_length: usize,
}

impl Entry {
    fn size(&self) -> usize {
        self.text.len() + OVERHEAD
    }
}

impl DynamicTable {
    /// A table for `most` bytes.
    pub(super) fn new(most: usize) -> DynamicTable {
        DynamicTable { fields: VecDeque::new(), size: 0, most, changes: 0 }
    }

    /// Name and value of a field; the newest one has number 0.
    pub(super) fn get(&self, number: usize) -> Option<(&[u8], &[u8])> {
        let entry = self.fields.get(number)?;
        Some(entry.text.split_at(entry.name_length))
    }

    /// Adds a field. One that is larger than the table empties it.
    pub(super) fn add(&mut self, name: &[u8], value: &[u8]) {
        self.changes += 1;
        let size = name.len() + value.len() + OVERHEAD;
        self.shrink_to(self.most.saturating_sub(size));
        if size <= self.most {
            self.size += size;
            self.fields.push_front(Entry { text: [name, value].concat().into(), name_length: name.len() });
        }
    }

    /// Changes the room of the table.
    pub(super) fn resize(&mut self, most: usize) {
        self.changes += 1;
        self.most = most;
        self.shrink_to(most);
    }

    /// How often the table was changed: the same block of fields has the same meaning while it stays the same.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    fn shrink_to(&mut self, most: usize) {
        while self.size > most {
            let Some(oldest) = self.fields.pop_back() else { return };
            self.size -= oldest.size();
        }
    }
}
