use proptest::prelude::*;

use super::*;

fn good(response: u16) -> Ending {
    Ending { outcome: Outcome::Good, response, service: response }
}

#[test]
fn a_full_ledger_takes_no_more() {
    let ledger = Ledger::new(2, Memory::WhenNeeded);
    assert_eq!([ledger.begin(1, 0), ledger.begin(2, 0), ledger.begin(3, 0)], [Some(0), Some(1), None]);
}

#[test]
fn a_look_ends_before_the_first_request_in_flight() {
    let ledger = Ledger::new(10, Memory::Now);
    for due_us in 0..5 {
        ledger.begin(due_us, 7);
    }
    for row in [0, 1, 3, 4] {
        ledger.end(row, good(9));
    }
    assert_eq!(collect(&[(&ledger, true)], 100).due_us, [0, 1]);
    ledger.end(2, Ending { outcome: Outcome::TimedOut, response: SLOWER_THAN_ANY, service: SLOWER_THAN_ANY });
    // A running thread may still begin requests that are due with its last.
    assert_eq!(collect(&[(&ledger, true)], 100).due_us, [0, 1, 2, 3]);
    let all = collect(&[(&ledger, false)], 100);
    assert_eq!((all.due_us, all.outcome[2], all.kind[0]), (vec![0, 1, 2, 3, 4], Outcome::TimedOut, 7));
    assert_eq!(collect(&[(&ledger, false)], 2).due_us, [3, 4]);
}

#[test]
fn a_thread_that_lags_holds_the_look_back() {
    let [fast, slow] = [Ledger::new(10, Memory::Now), Ledger::new(10, Memory::Now)];
    for due_us in [0, 2, 4, 6] {
        let row = fast.begin(due_us, 0).unwrap();
        fast.end(row, good(1));
    }
    assert!(collect(&[(&fast, true), (&slow, true)], 100).is_empty());
    let row = slow.begin(3, 0).unwrap();
    slow.end(row, good(1));
    assert_eq!(collect(&[(&fast, true), (&slow, true)], 100).due_us, [0, 2]);
    assert_eq!(collect(&[(&fast, true), (&slow, false)], 100).due_us, [0, 2, 3, 4]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn all_requests_of_all_threads_come_out_in_order(
        mut due in prop::collection::vec(prop::collection::vec(0..200_000u32, 0..40_000), 1..4),
    ) {
        let ledgers: Vec<Ledger> = due.iter_mut().map(|due| {
            due.sort_unstable();
            let ledger = Ledger::new(due.len(), Memory::WhenNeeded);
            for &due_us in due.iter() {
                let row = ledger.begin(due_us, 1).unwrap();
                ledger.end(row, good(due_us as u16));
            }
            ledger
        }).collect();
        let mut wanted = due.concat();
        wanted.sort_unstable();
        let pairs: Vec<(&Ledger, bool)> = ledgers.iter().map(|ledger| (ledger, false)).collect();
        let looked = collect(&pairs, usize::MAX);
        let records = into_records(ledgers);
        prop_assert_eq!(&records, &looked);
        prop_assert!(records.response.iter().zip(&wanted).all(|(&code, &due_us)| code == due_us as u16));
        prop_assert_eq!(records.due_us, wanted);
    }
}
