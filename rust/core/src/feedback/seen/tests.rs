use std::collections::BTreeSet;

use super::*;
use proptest::prelude::*;

const ROOMY: usize = 1 << 20;

fn written(set: &SeenSet) -> Vec<u8> {
    let mut bytes = Vec::new();
    set.write_to(&mut bytes);
    bytes
}

fn restarted(set: &SeenSet) -> SeenSet {
    let bytes = written(set);
    let mut rest = &bytes[..];
    let read = SeenSet::read_from(&mut rest, set.most_bytes).unwrap();
    assert!(rest.is_empty());
    read
}

#[test]
fn the_newest_time_of_issue_is_known_of_what_was_forgotten_too() {
    let mut set = SeenSet::forgetting(ROOMY, 30);
    assert_eq!((set.newest_s(), set.insert(1, 30)), (30, Insertion::Forgotten));
    assert_eq!(
        (set.insert(1, 40), set.insert(CHUNK, 50), set.newest_s()),
        (Insertion::New, Insertion::New, 50)
    );
    set.forget_before(60);
    assert_eq!((set.len(), set.newest_s(), set.forgotten_s()), (0, 50, 50));
    assert_eq!(set, restarted(&set));
}

#[test]
fn a_list_becomes_a_bitmap_and_keeps_its_serials() {
    let mut set = SeenSet::new(ROOMY);
    for serial in 0..6_000u64 {
        assert_eq!(set.insert(serial * 7, 10), Insertion::New);
    }
    assert_eq!((set.len(), set.bytes()), (6_000, 8 * WORDS + OVERHEAD));
    for set in [&mut set.clone(), &mut restarted(&set)] {
        assert!((0..6_000u64).all(|serial| set.insert(serial * 7, 10) == Insertion::Duplicate));
        assert_eq!(set.insert(1, 10), Insertion::New);
    }
    // A full list takes what it has for a duplicate, and stays a list.
    let mut full = SeenSet::new(ROOMY);
    (0..MOST_LISTED as u64).for_each(|serial| assert_eq!(full.insert(serial, 1), Insertion::New));
    assert_eq!(full.insert(0, 1), Insertion::Duplicate);
    assert_eq!(full.bytes(), 2 * MOST_LISTED + OVERHEAD);
    assert_eq!(full, restarted(&full));
}

#[test]
fn what_is_forgotten_is_not_taken_again() {
    let mut set = SeenSet::new(ROOMY);
    set.insert(1, 100);
    set.insert(CHUNK + 1, 200);
    set.forget_before(100);
    assert_eq!((set.forgotten_s(), set.len()), (0, 2));
    set.forget_before(101);
    assert_eq!((set.forgotten_s(), set.len()), (100, 1));
    let mut set = restarted(&set);
    assert_eq!(set.insert(1, 100), Insertion::Forgotten);
    assert_eq!(set.insert(2, 101), Insertion::New);
    assert_eq!(set.insert(CHUNK + 1, 200), Insertion::Duplicate);
}

#[test]
fn bytes_that_no_set_wrote_are_refused() {
    let mut set = SeenSet::new(ROOMY);
    (0..5_000u64).for_each(|serial| assert_eq!(set.insert(serial, 1), Insertion::New));
    set.insert(CHUNK * 3, 2);
    let bytes = written(&set);
    for cut in [0, 3, 4, 7, 8, 20, 23, 24, bytes.len() - 1] {
        assert!(SeenSet::read_from(&mut &bytes[..cut], ROOMY).is_none(), "{cut}");
    }
}

/// What is done to a set.
#[derive(Clone, Debug)]
enum Act {
    /// A receipt is used: how many serials ago it was issued.
    Use(u64),
    /// So many receipts are issued, and so many seconds pass.
    Issue(u64, u32),
    Forget(u32),
    Restart,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => prop_oneof![0u64..50, 0u64..400_000].prop_map(Act::Use),
        2 => (1u64..90_000, 0u32..50).prop_map(|(count, seconds)| Act::Issue(count, seconds)),
        1 => (0u32..300).prop_map(Act::Forget),
        1 => Just(Act::Restart),
    ];
    proptest::collection::vec(act, 1..200)
}

proptest! {
    #[test]
    fn any_bytes_are_a_set_or_refused(place in any::<u16>(), byte in any::<u8>(), other in proptest::collection::vec(any::<u8>(), 0..64)) {
        let mut set = SeenSet::new(ROOMY);
        (0..5_000u64).for_each(|serial| assert_eq!(set.insert(serial, 1), Insertion::New));
        (0..9u64).for_each(|serial| assert_eq!(set.insert(CHUNK * 3 + serial, 2), Insertion::New));
        let mut changed = written(&set);
        let place = usize::from(place) % changed.len();
        changed[place] = byte;
        for mut bytes in [&changed[..], &other] {
            if let Some(read) = SeenSet::read_from(&mut bytes, ROOMY) {
                prop_assert_eq!(&read, &restarted(&read));
            }
        }
    }

    /// Over any history of uses, issues, forgetting and restarts: no serial is new twice, the bound holds, and as long as nothing is
    /// forgotten each serial is new once.
    #[test]
    fn no_serial_counts_twice(acts in acts(), most in prop_oneof![Just(300usize), Just(ROOMY)]) {
        let mut set = SeenSet::new(most);
        let mut used = BTreeSet::new();
        // When each serial was issued: the last serial of each moment, in order.
        let mut moments = vec![(0u64, 1u32)];
        for act in acts {
            let &(next, now) = moments.last().unwrap();
            match act {
                Act::Issue(count, seconds) => moments.push((next + count, now + seconds)),
                Act::Forget(ago) => set.forget_before(now.saturating_sub(ago)),
                Act::Restart => set = restarted(&set),
                Act::Use(ago) => {
                    let serial = next.saturating_sub(ago);
                    let issued_s = moments[moments.partition_point(|(last, _)| *last < serial)].1;
                    let found = set.insert(serial, issued_s);
                    let is_first = used.insert(serial);
                    match found {
                        Insertion::New => prop_assert!(is_first, "{serial} was used before"),
                        Insertion::Duplicate => prop_assert!(!is_first),
                        Insertion::Forgotten => {
                            prop_assert!(issued_s <= set.forgotten_s());
                            if is_first {
                                used.remove(&serial);
                            }
                        }
                    }
                }
            }
            prop_assert!(set.bytes() <= most || set.chunks.len() == 1);
            let counted: usize = set.chunks.values().map(|chunk| OVERHEAD + chunk.serials.bytes()).sum();
            prop_assert_eq!(set.bytes(), counted);
        }
    }
}
