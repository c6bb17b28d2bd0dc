use proptest::prelude::*;

use super::*;
use crate::plan::Stage;
use crate::records::{code_of, highest_ns};

const SECOND: u64 = 1_000_000_000;
const ALONE: Part = Part { first: 0, of: 1 };

fn open(arrivals: Arrivals, stages: &[(f64, f64, u64)]) -> Open {
    let stages = stages.iter().map(|&(from, to, for_ns)| Stage { from, to, for_ns }).collect();
    Open { arrivals, stages }
}

fn times(arrivals: Arrivals, stages: &[(f64, f64, u64)], seed: u64) -> Vec<u64> {
    Schedule::new(&open(arrivals, stages), seed, ALONE).of_host().map(|due| due.due_ns).collect()
}

#[test]
fn poisson_times_are_those_of_the_reference() {
    let due = times(Arrivals::Poisson {}, &[(1000.0, 1000.0, SECOND)], 42);
    assert_eq!(due[..5], [1_353_110, 1_527_357, 1_853_920, 2_275_805, 2_314_577]);
}

#[test]
fn constant_times_are_exact_and_do_not_drift() {
    let due = times(Arrivals::Constant {}, &[(3.0, 3.0, 10 * SECOND)], 42);
    assert_eq!(due[..4], [0, 333_333_333, 666_666_666, SECOND]);
    assert_eq!((due.len(), due[29]), (30, 9_666_666_666));
    let uneven = times(Arrivals::Constant {}, &[(2.5, 2.5, 2 * SECOND)], 42);
    assert_eq!(uneven, [0, 400_000_000, 800_000_000, 1_200_000_000, 1_600_000_000]);
}

#[test]
fn stages_follow_each_other_and_a_ramp_has_the_area_below_it() {
    let due = times(
        Arrivals::Constant {},
        &[(100.0, 100.0, SECOND), (100.0, 300.0, 2 * SECOND), (300.0, 300.0, SECOND)],
        1,
    );
    let until = |seconds: f64| due.iter().filter(|&&at| (at as f64) < seconds * 1e9).count();
    // Half way through the ramp the rate is 200: 100·1 + 200·1/2 more have been due.
    assert_eq!([until(1.0), until(2.0), until(3.0), until(4.0)], [100, 250, 500, 800]);
    let down = times(Arrivals::Constant {}, &[(300.0, 100.0, 2 * SECOND)], 1);
    assert_eq!(down.len(), 400);
    assert!(down.is_sorted());
}

#[test]
fn a_trace_is_sorted_and_begins_at_the_anchor() {
    let arrivals =
        Arrivals::Trace { due_ns: vec![9_000, 5_000, 7_000, 5_000], requests: Some(vec![3, 0, 2, 1]) };
    let schedule = Schedule::new(&open(arrivals, &[]), 1, ALONE);
    let found: Vec<(u64, Option<u32>)> = schedule.of_host().map(|due| (due.due_ns, due.request)).collect();
    assert_eq!(found, [(0, Some(0)), (0, Some(1)), (2_000, Some(2)), (4_000, Some(3))]);
    assert_eq!(schedule.length_ns(), 4_001);
}

fn any_arrivals() -> impl Strategy<Value = Arrivals> {
    prop_oneof![
        Just(Arrivals::Constant {}),
        Just(Arrivals::Poisson {}),
        (0.2..4.0f64).prop_map(|cv| Arrivals::Gamma { cv })
    ]
}

proptest! {
    #[test]
    fn the_schedule_is_the_same_however_many_threads_and_hosts_share_it(
        arrivals in any_arrivals(), seed: u64, threads in 1..6usize, hosts in 1..4u64,
    ) {
        let open = open(arrivals, &[(500.0, 2000.0, SECOND), (900.0, 900.0, SECOND / 2)]);
        let whole: Vec<Due> = Schedule::new(&open, seed, ALONE).of_host().collect();
        prop_assert!(whole.is_sorted_by_key(|due| due.due_ns));
        let mut shared: Vec<Due> = (0..hosts)
            .map(|first| Schedule::new(&open, seed, Part { first, of: hosts }))
            .flat_map(|host| (0..threads).flat_map(move |thread| host.of_thread(thread, threads)).collect::<Vec<_>>())
            .collect();
        shared.sort_by_key(|due| due.index);
        prop_assert_eq!(whole, shared);
    }

    #[test]
    fn a_window_has_the_requests_that_its_rates_promise(
        seed: u64, from in 200.0..3000.0f64, to in 200.0..3000.0f64, part in 0.1..1.0f64,
    ) {
        let stages = [(from, to, 4 * SECOND)];
        let end = part * 4.0;
        let wanted = from * end + (to - from) / 4.0 * end * end / 2.0;
        let count = |due: &[u64]| due.iter().filter(|&&at| (at as f64) < end * 1e9).count() as f64;
        let constant = count(&times(Arrivals::Constant {}, &stages, seed));
        prop_assert!((constant - wanted).abs() <= 1.5, "{} of {}", constant, wanted);
        // Five standard deviations of a Poisson count.
        let poisson = count(&times(Arrivals::Poisson {}, &stages, seed));
        prop_assert!((poisson - wanted).abs() <= 5.0 * wanted.sqrt() + 5.0, "{} of {}", poisson, wanted);
    }
}

/// The distance between the gaps and an exponential distribution, times the root of their number.
fn kolmogorov_smirnov(due: &[u64], rate: f64) -> f64 {
    let mut gaps: Vec<f64> = due.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / 1e9).collect();
    gaps.sort_by(f64::total_cmp);
    let n = gaps.len() as f64;
    let distance = gaps.iter().enumerate().map(|(at, gap)| {
        let expected = 1.0 - (-rate * gap).exp();
        (expected - at as f64 / n).abs().max((expected - (at + 1) as f64 / n).abs())
    });
    distance.fold(0.0, f64::max) * n.sqrt()
}

#[test]
fn poisson_gaps_are_exponential() {
    let missed = |seeds: std::ops::Range<u64>| {
        let distance = |seed| {
            kolmogorov_smirnov(&times(Arrivals::Poisson {}, &[(5000.0, 5000.0, SECOND)], seed), 5000.0)
        };
        // The critical value at 1 % (Smirnov 1948).
        seeds.filter(|&seed| distance(seed) >= 1.628).count()
    };
    assert!(missed(42..62) <= 1);
    // Four are expected; eleven or more have a probability of 0.3 %.
    assert!(missed(1000..1400) <= 10);
    let even = times(Arrivals::Constant {}, &[(5000.0, 5000.0, SECOND)], 0);
    assert!(kolmogorov_smirnov(&even, 5000.0) > 10.0);
}

#[test]
fn a_mix_draws_by_weight() {
    let request = |weight| RequestPlan {
        target: 0,
        group: String::new(),
        weight,
        path: String::new(),
        headers: Vec::new(),
        body: 0,
        rows: 1,
    };
    let mix = Mix::new(&[request(3.0), request(0.0), request(1.0)], 42);
    let mut drawn = [0u32; 3];
    (0..40_000).for_each(|index| drawn[mix.draw(index) as usize] += 1);
    assert_eq!(drawn[1], 0);
    assert!((f64::from(drawn[0]) / 40_000.0 - 0.75).abs() < 0.01, "{drawn:?}");
}

/// The response times of a server that works first come, first served and is stalled in the sixth second.
fn stalled_responses() -> Vec<u64> {
    let mut free_ns = 0;
    let mut responses: Vec<u64> = times(Arrivals::Constant {}, &[(100.0, 100.0, 10 * SECOND)], 42)
        .into_iter()
        .map(|due_ns| {
            let mut begins_ns = due_ns.max(free_ns);
            if (5 * SECOND..6 * SECOND).contains(&begins_ns) {
                begins_ns = 6 * SECOND;
            }
            free_ns = begins_ns + 1_000_000;
            free_ns - due_ns
        })
        .collect();
    responses.sort_unstable();
    responses
}

#[test]
fn a_stall_of_a_second_shows_in_times_from_due() {
    let responses = stalled_responses();
    let quantile = |q: f64| {
        let rank = (q * responses.len() as f64).ceil() as usize;
        highest_ns(code_of(responses[rank - 1])) as f64 / 1e6
    };
    for (q, wanted_ms) in
        [(0.5, 1.0), (0.9, 101.0), (0.95, 551.0), (0.99, 911.0), (0.999, 992.0), (1.0, 1001.0)]
    {
        assert!((quantile(q) / wanted_ms - 1.0).abs() < 0.0011, "{q}: {}", quantile(q));
    }
    assert_eq!(responses.iter().filter(|&&ns| ns > 1_000_000).count(), 112);
}
