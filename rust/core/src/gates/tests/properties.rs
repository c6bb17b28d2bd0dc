//! What holds of all evidence.

use proptest::prelude::*;

use super::answers::all_verdicts;
use super::*;
use crate::gates::report::judge_json;

/// Events of both arms in minutes of a trial.
fn any_minutes() -> impl Strategy<Value = Vec<(u64, u8, [u64; 2])>> {
    let events = proptest::array::uniform2(0u64..12);
    proptest::collection::vec((0u64..3, 0u8..3, events), 1..40).prop_map(|minutes| {
        let mut now = 0;
        minutes
            .into_iter()
            .map(|(wait, split, events)| {
                now += wait;
                (now, split, events)
            })
            .collect()
    })
}

fn trial_of(minutes: &[(u64, u8, [u64; 2])]) -> Ledger {
    let mut ledger = trial(&[100, 2_500, 5_000]);
    for (minute, split, bad) in minutes {
        add(&mut ledger, *minute, *split, bad.map(|bad| errors(100, bad)));
    }
    ledger
}

proptest! {
    /// What a ledger says is what its report says.
    #[test]
    fn a_report_is_the_same_evidence_as_its_ledger(minutes in any_minutes(), window in any::<bool>()) {
        let mut ledger = trial_of(&minutes);
        if window {
            ledger.open_window(0, vec![(5, 6), (7, 8)]);
        }
        let run = durations((0..100).map(|run| run * 1_000));
        add(&mut ledger, 1_000, 0, [Minute { ran: 100, run: run.clone(), ..Minute::default() }, Minute { ran: 1, run, ..Minute::default() }]);
        let durations = Durations::from_ledger(&ledger, "v8").unwrap();
        prop_assert_eq!(Evidence::from_json(&told(&ledger), "v8").unwrap(), (evidence(&ledger), durations));
    }

    /// Within a block it makes no difference in which minute, and in how many readings, an event was counted.
    #[test]
    fn the_minutes_of_a_block_make_no_difference(
        champion in 0u64..40, challenger in 0u64..40, places in proptest::collection::vec(0u64..10, 80),
    ) {
        let mut together = trial(&[2_500]);
        add(&mut together, 0, 0, [errors(8_000, champion), errors(2_000, challenger)]);
        let mut apart = trial(&[2_500]);
        let mut places = places;
        places.sort_unstable();
        let (champions, challengers) = (champion as usize, challenger as usize);
        for (event, minute) in places.iter().enumerate() {
            let of = |is_event: bool, ran: u64| errors(ran, u64::from(is_event));
            add(&mut apart, *minute, 0, [of(event < champions, 100), of(event < challengers, 25)]);
        }
        let of = |ledger: &Ledger| decide(&evidence(ledger), error_gate().gates[0], &error_gate());
        let (together, apart) = (of(&together), of(&apart));
        prop_assert_eq!(together.verdict, apart.verdict);
        prop_assert!((together.test.ln_e_value - apart.test.ln_e_value).abs() < 1e-9);
    }

    /// More errors of the challenger never help it.
    #[test]
    fn further_errors_of_the_challenger_never_turn_a_failure_into_a_pass(
        minutes in any_minutes(), place in any::<prop::sample::Index>(), more in 1u64..30,
        strict in any::<bool>(), above in 1.0f64..4.0,
    ) {
        let question = question(json!({"gate": "error_rate", "above": above, "strict": strict}));
        let judged = |minutes: &[(u64, u8, [u64; 2])]| {
            let decision = decide(&evidence(&trial_of(minutes)), question.gates[0], &question);
            (decision.verdict == Verdict::Fail, decision.test.ln_e_value)
        };
        let mut worse = minutes.clone();
        worse[place.index(minutes.len())].2[CHALLENGER] += more;
        let (before, after) = (judged(&minutes), judged(&worse));
        prop_assert!(after.1 >= before.1 - 1e-9);
        prop_assert!(after.0 || !before.0);
    }

    /// Damage never passes for a verdict of its own, and no evidence makes the judge panic.
    #[test]
    fn cut_evidence_is_an_error_and_changed_evidence_is_judged_or_refused(
        minutes in any_minutes(), at in any::<prop::sample::Index>(), byte in 32u8..127,
    ) {
        let asked = r#"{"challenger": "v8", "gates": [{"gate": "error_rate", "above": 1.5}], "false_rollbacks": 0.01}"#;
        let sound = told(&trial_of(&minutes));
        let place = at.index(sound.len());
        for (verdict, reason) in all_verdicts(&judge_json(&sound[..place], asked).unwrap()) {
            prop_assert!(verdict == "error" && !reason.is_empty());
        }
        let mut changed = sound.into_bytes();
        changed[place] = byte;
        let changed = String::from_utf8(changed).unwrap();
        for (verdict, reason) in all_verdicts(&judge_json(&changed, asked).unwrap()) {
            prop_assert!(verdict != "error" || !reason.is_empty());
        }
    }
}
