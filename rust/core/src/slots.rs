//! The slot table: which of 10 000 slots belong to which version, and in which order they were given away.
//!
//! The table is state, not a function of the weights. Slots are given away lowest first and come back last-in first-out. So a higher
//! weight moves the fewest keys that it can, and none off a challenger; the lower weight after it restores the earlier table exactly.
//! A key's slot is a uniform hash of the key. So consecutive slots are as good a sample as any other, and tables of them can be read.
//!
//! Not here: how the salt is made (the control plane does that), the syntax of weights. Next: `route`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh64::{Xxh64, xxh64};

use crate::error::{Error, Result};

/// The number of slots; one slot is 0.01 % of the keys.
pub const SLOTS: usize = 10_000;

/// The slot of a key: `(xxh64(salt || 0x00 || key) * 10000) >> 64`, seed 0.
///
/// Any implementation of xxh64 gives the same slot. A key of any length is hashed whole.
pub fn slot_of(salt: &str, key: &[u8]) -> u16 {
    slot_of_hash(key_hash(salt, key))
}

/// The hash of a key: `xxh64(salt || 0x00 || key)`, seed 0.
pub fn key_hash(salt: &str, key: &[u8]) -> u64 {
    const INLINE: usize = 256;
    let length = salt.len() + 1 + key.len();
    if length <= INLINE {
        let mut buffer = [0u8; INLINE];
        buffer[..salt.len()].copy_from_slice(salt.as_bytes());
        buffer[salt.len() + 1..length].copy_from_slice(key);
        xxh64(&buffer[..length], 0)
    } else {
        let mut hasher = Xxh64::new(0);
        hasher.update(salt.as_bytes());
        hasher.update(&[0]);
        hasher.update(key);
        hasher.digest()
    }
}

/// A hash of a text: `xxh64(text)`, seed 0.
pub fn text_hash(text: &str) -> u64 {
    xxh64(text.as_bytes(), 0)
}

/// A hash of a number: xxh64 of its 8 bytes, little-endian, with a seed. Written out, because a general xxh64 takes four times as long for
/// 8 bytes.
#[inline]
pub fn number_hash(seed: u64, number: u64) -> u64 {
    const PRIMES: [u64; 5] = [
        0x9E37_79B1_85EB_CA87,
        0xC2B2_AE3D_27D4_EB4F,
        0x1656_67B1_9E37_79F9,
        0x85EB_CA77_C2B2_AE63,
        0x27D4_EB2F_1656_67C5,
    ];
    let lane = number.wrapping_mul(PRIMES[1]).rotate_left(31).wrapping_mul(PRIMES[0]);
    let hash = seed.wrapping_add(PRIMES[4]).wrapping_add(8) ^ lane;
    let hash = hash.rotate_left(27).wrapping_mul(PRIMES[0]).wrapping_add(PRIMES[3]);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(PRIMES[1]);
    let hash = (hash ^ (hash >> 29)).wrapping_mul(PRIMES[2]);
    hash ^ (hash >> 32)
}

/// The slot of a uniform 64-bit number: a hash, or a draw for a request without a key.
pub fn slot_of_hash(hash: u64) -> u16 {
    ((u128::from(hash) * SLOTS as u128) >> 64) as u16
}

/// A version and the slots that it was given, from the first to the last, both included. The slots descend if the first is the larger.
type SlotRange = (String, u16, u16);

/// The table as it is stored and sent. The champion has the slots that are not given away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotTable {
    /// Hashed together with the keys. It stays the same as long as any slot is given away.
    pub salt: String,
    /// The slots given away, in the order in which they were given.
    pub given: Vec<SlotRange>,
}

/// A number of slots that moved from one version to another; `None` is the champion.
pub type SlotMove = (Option<String>, Option<String>, u16);

impl SlotTable {
    /// Whether a version has any slot.
    pub fn has_slots(&self, version: &str) -> bool {
        self.given.iter().any(|(name, ..)| name == version)
    }

    /// The slots given away, one by one, in the order in which they were given.
    ///
    /// # Errors
    /// `invalid_argument` for a slot that is out of range or given twice.
    pub fn entries(&self) -> Result<Vec<(u16, &str)>> {
        let mut seen = [false; SLOTS];
        let mut entries = Vec::new();
        for (version, from, to) in &self.given {
            let mut slot = *from;
            loop {
                let taken = seen
                    .get_mut(slot as usize)
                    .ok_or_else(|| Error::invalid(format!("slot {slot} is not below {SLOTS}")))?;
                if std::mem::replace(taken, true) {
                    return Err(Error::invalid(format!("slot {slot} is given away twice")));
                }
                entries.push((slot, version.as_str()));
                match slot.cmp(to) {
                    std::cmp::Ordering::Less => slot += 1,
                    std::cmp::Ordering::Equal => break,
                    std::cmp::Ordering::Greater => slot -= 1,
                }
            }
        }
        Ok(entries)
    }

    /// The number of slots of each version that has any.
    ///
    /// # Errors
    /// As [`SlotTable::entries`].
    pub fn weights(&self) -> Result<BTreeMap<&str, u16>> {
        let mut weights = BTreeMap::new();
        for (_, version) in self.entries()? {
            *weights.entry(version).or_insert(0) += 1;
        }
        Ok(weights)
    }

    /// The table with the weights `wanted`, and the moves to it. Weights are in slots; a version that is not named has none.
    ///
    /// Versions that lose slots give back their newest first. Versions that gain take those slots, then the champion's lowest, in the
    /// order of their names.
    ///
    /// # Errors
    /// `invalid_argument` if the weights exceed 100 %, or if this table is not sound.
    pub fn with_weights(&self, wanted: &BTreeMap<String, u16>) -> Result<(SlotTable, Vec<SlotMove>)> {
        let total: usize = wanted.values().map(|&slots| slots as usize).sum();
        if total > SLOTS {
            return Err(Error::invalid(format!(
                "the weights add up to {} slots of {SLOTS}; leave the champion at least 0 %",
                total
            )));
        }
        let have = self.weights()?;
        let mut entries = self.entries()?;
        let mut freed = give_back(&mut entries, &have, wanted);
        let mut moves = BTreeMap::new();
        let mut champion = ChampionSlots::new(&entries, &freed);
        for (version, &slots) in wanted {
            let missing = slots.saturating_sub(have.get(version.as_str()).copied().unwrap_or(0));
            for _ in 0..missing {
                let (slot, from) = match freed.pop_front() {
                    Some((slot, from)) => (slot, Some(from)),
                    None => (champion.next().expect("weights add up to at most all slots"), None),
                };
                entries.push((slot, version));
                *moves.entry((from, Some(version.as_str()))).or_insert(0u16) += 1;
            }
        }
        for (_, from) in &freed {
            *moves.entry((Some(*from), None)).or_insert(0) += 1;
        }
        let moves = moves
            .into_iter()
            .map(|((from, to), slots)| (from.map(str::to_owned), to.map(str::to_owned), slots))
            .collect();
        Ok((SlotTable { salt: self.salt.clone(), given: ranges(&entries) }, moves))
    }
}

/// Takes the slots from `entries` that versions lose, newest first.
fn give_back<'a>(
    entries: &mut Vec<(u16, &'a str)>,
    have: &BTreeMap<&str, u16>,
    wanted: &BTreeMap<String, u16>,
) -> std::collections::VecDeque<(u16, &'a str)> {
    let mut surplus: BTreeMap<&str, u16> = have
        .iter()
        .map(|(version, &slots)| (*version, slots.saturating_sub(wanted.get(*version).copied().unwrap_or(0))))
        .collect();
    let mut freed = std::collections::VecDeque::new();
    let mut remaining: Vec<(u16, &str)> = Vec::with_capacity(entries.len());
    for &(slot, version) in entries.iter().rev() {
        match surplus.get_mut(version) {
            Some(left) if *left > 0 => {
                *left -= 1;
                freed.push_back((slot, version));
            }
            _ => remaining.push((slot, version)),
        }
    }
    remaining.reverse();
    *entries = remaining;
    freed
}

/// The champion's slots in ascending order, without those that were just given back.
struct ChampionSlots {
    taken: [bool; SLOTS],
    next: usize,
}

impl ChampionSlots {
    fn new(entries: &[(u16, &str)], freed: &std::collections::VecDeque<(u16, &str)>) -> Self {
        let mut taken = [false; SLOTS];
        for (slot, _) in entries.iter().chain(freed) {
            taken[*slot as usize] = true;
        }
        Self { taken, next: 0 }
    }

    fn next(&mut self) -> Option<u16> {
        while *self.taken.get(self.next)? {
            self.next += 1;
        }
        self.next += 1;
        Some((self.next - 1) as u16)
    }
}

/// The entries as ranges, in the same order.
fn ranges(entries: &[(u16, &str)]) -> Vec<SlotRange> {
    let mut ranges: Vec<SlotRange> = Vec::new();
    for &(slot, version) in entries {
        if let Some((last, from, to)) = ranges.last_mut()
            && last == version
            && extends(*from, *to, slot)
        {
            *to = slot;
            continue;
        }
        ranges.push((version.to_owned(), slot, slot));
    }
    ranges
}

fn extends(from: u16, to: u16, slot: u16) -> bool {
    (from <= to && slot == to + 1) || (from >= to && slot + 1 == to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn weights(pairs: &[(&str, u16)]) -> BTreeMap<String, u16> {
        pairs.iter().map(|(version, slots)| ((*version).to_owned(), *slots)).collect()
    }

    fn owners(table: &SlotTable) -> Vec<Option<String>> {
        let mut owners = vec![None; SLOTS];
        for (slot, version) in table.entries().unwrap() {
            owners[slot as usize] = Some(version.to_owned());
        }
        owners
    }

    fn changed(a: &SlotTable, b: &SlotTable) -> usize {
        owners(a).iter().zip(&owners(b)).filter(|(a, b)| a != b).count()
    }

    #[test]
    fn the_hash_agrees_with_other_implementations() {
        // Values from the xxhash reference implementation, seed 0.
        assert_eq!(xxh64(b"fraud/r7\0user-0", 0), 6_065_308_119_671_357_422);
        assert_eq!(slot_of("fraud/r7", b"user-0"), 3288);
        assert_eq!(slot_of("fraud/r7", b"user-1"), 5464);
        assert_eq!(slot_of("fraud/r7", b"user-2"), 9600);
        let long = vec![b'x'; 5000];
        let mut whole = b"fraud/r7\0".to_vec();
        whole.extend_from_slice(&long);
        assert_eq!(slot_of("fraud/r7", &long), slot_of_hash(xxh64(&whole, 0)));
    }

    #[test]
    fn one_hundredth_of_a_percent_is_one_slot() {
        let (table, moves) = SlotTable::default().with_weights(&weights(&[("v2", 1)])).unwrap();
        assert_eq!(table.given, vec![("v2".to_owned(), 0, 0)]);
        assert_eq!(moves, vec![(None, Some("v2".to_owned()), 1)]);
    }

    #[test]
    fn all_slots_may_go_and_none_more() {
        let (table, _) = SlotTable::default().with_weights(&weights(&[("v2", 10_000)])).unwrap();
        assert_eq!(table.weights().unwrap()["v2"], 10_000);
        assert!(table.with_weights(&weights(&[("v2", 9_999), ("v3", 2)])).is_err());
    }

    #[test]
    fn a_trade_between_challengers_moves_no_slot_of_the_champion() {
        let (before, _) = SlotTable::default().with_weights(&weights(&[("b", 1000), ("c", 1000)])).unwrap();
        let (after, moves) = before.with_weights(&weights(&[("b", 400), ("c", 1600)])).unwrap();
        assert_eq!(moves, vec![(Some("b".to_owned()), Some("c".to_owned()), 600)]);
        assert_eq!(changed(&before, &after), 600);
    }

    #[test]
    fn unsound_tables_are_refused() {
        let twice = SlotTable { salt: String::new(), given: vec![("a".into(), 0, 5), ("b".into(), 5, 9)] };
        assert!(twice.entries().is_err());
        let outside = SlotTable { salt: String::new(), given: vec![("a".into(), 9_999, 10_000)] };
        assert!(outside.entries().is_err());
    }

    fn any_weights() -> impl Strategy<Value = BTreeMap<String, u16>> {
        (0u16..5000, 0u16..3000, 0u16..2000).prop_map(|(a, b, c)| weights(&[("a", a), ("b", b), ("c", c)]))
    }

    /// A table after a few changes of weights.
    fn any_table() -> impl Strategy<Value = SlotTable> {
        proptest::collection::vec(any_weights(), 0..5).prop_map(|changes| {
            let start = SlotTable { salt: "e/d/1".into(), given: vec![] };
            changes.iter().fold(start, |table, wanted| table.with_weights(wanted).unwrap().0)
        })
    }

    proptest! {
        #[test]
        fn a_number_has_the_hash_of_its_bytes(seed: u64, number: u64) {
            prop_assert_eq!(number_hash(seed, number), xxh64(&number.to_le_bytes(), seed));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn weights_become_those_that_are_wanted(table in any_table(), wanted in any_weights()) {
            let (after, _) = table.with_weights(&wanted).unwrap();
            let have = after.weights().unwrap();
            for (version, slots) in &wanted {
                prop_assert_eq!(have.get(version.as_str()).copied().unwrap_or(0), *slots);
            }
        }

        #[test]
        fn the_fewest_slots_move(table in any_table(), wanted in any_weights()) {
            let (after, moves) = table.with_weights(&wanted).unwrap();
            let have = table.weights().unwrap();
            let gained: usize = wanted.iter()
                .map(|(v, &s)| s.saturating_sub(have.get(v.as_str()).copied().unwrap_or(0)) as usize).sum();
            let lost: usize = have.iter()
                .map(|(v, &s)| s.saturating_sub(wanted.get(*v).copied().unwrap_or(0)) as usize).sum();
            prop_assert_eq!(changed(&table, &after), gained.max(lost));
            prop_assert_eq!(moves.iter().map(|(_, _, slots)| *slots as usize).sum::<usize>(), gained.max(lost));
        }

        #[test]
        fn a_higher_weight_moves_no_slot_off_a_challenger(table in any_table(), more in 0u16..500) {
            let mut wanted: BTreeMap<String, u16> =
                table.weights().unwrap().iter().map(|(v, &s)| ((*v).to_owned(), s)).collect();
            let total: u16 = wanted.values().sum();
            *wanted.entry("a".into()).or_insert(0) += more.min(SLOTS as u16 - total);
            let (after, _) = table.with_weights(&wanted).unwrap();
            for (before, after) in owners(&table).iter().zip(&owners(&after)) {
                prop_assert!(before.is_none() || before == after);
            }
        }

        #[test]
        fn a_lower_weight_after_a_higher_one_restores_the_table(table in any_table(), steps in proptest::collection::vec(0u16..700, 1..4)) {
            let start: BTreeMap<String, u16> =
                table.weights().unwrap().iter().map(|(v, &s)| ((*v).to_owned(), s)).collect();
            let mut raised = (table.clone(), start.clone());
            for step in steps {
                let total: u16 = raised.1.values().sum();
                *raised.1.entry("new".into()).or_insert(0) += step.min(SLOTS as u16 - total);
                raised.0 = raised.0.with_weights(&raised.1).unwrap().0;
            }
            prop_assert_eq!(raised.0.with_weights(&start).unwrap().0, table);
        }

        #[test]
        fn the_stored_form_keeps_the_order(table in any_table()) {
            let json = serde_json::to_vec(&table).unwrap();
            let back: SlotTable = serde_json::from_slice(&json).unwrap();
            prop_assert_eq!(back.entries().unwrap(), table.entries().unwrap());
        }
    }

    #[test]
    fn draws_with_other_salts_are_independent() {
        // 2x2 contingency of "in the split's 10 %" against "in the shadow's 10 %" over 100 000 keys:
        // chi-square with one degree of freedom stays under its 99.99 % point, 15.14.
        let mut cells = [[0f64; 2]; 2];
        for key in 0..100_000u32 {
            let key = format!("user-{key}");
            let split = slot_of("split/e/1", key.as_bytes()) < 1000;
            let shadow = slot_of("shadow/e/1", key.as_bytes()) < 1000;
            cells[usize::from(split)][usize::from(shadow)] += 1.0;
        }
        let total: f64 = cells.iter().flatten().sum();
        let mut chi = 0.0;
        for row in 0..2 {
            for column in 0..2 {
                let expected =
                    (cells[row][0] + cells[row][1]) * (cells[0][column] + cells[1][column]) / total;
                chi += (cells[row][column] - expected).powi(2) / expected;
            }
        }
        assert!(chi < 15.14, "chi-square {chi}");
    }
}
