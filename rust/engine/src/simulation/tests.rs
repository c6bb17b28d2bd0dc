use proptest::prelude::*;

use super::*;

const MS: f64 = 1e6;

/// A load on one version, without batches.
fn load(rate: f64, instances: usize) -> BatchSimulation {
    BatchSimulation {
        seed: 1,
        rate,
        requests: 100_000,
        arrivals: Arrivals::Poisson,
        rows: vec![(1, 1.0)],
        setting: SimulatedSetting {
            instances,
            max_batch: 1,
            max_delay_ns: 0,
            max_queue: 1_000_000,
            buckets: Vec::new(),
            timeout_ns: None,
        },
        curve: CostLine { base_ns: 2.5 * MS, row_ns: 0.0 },
        run_ns: None,
    }
}

/// Batches on one instance, as large as they get.
fn batched(rate: f64, base_ns: f64, row_ns: f64) -> BatchSimulation {
    let mut question = BatchSimulation { curve: CostLine { base_ns, row_ns }, ..load(rate, 1) };
    question.setting.max_batch = 4_096;
    question
}

/// Exponential run times of that mean, as two thousand equally likely ones.
fn exponential(mean_ns: f64) -> Option<Vec<(u64, f64)>> {
    Some(
        (0..2_000)
            .map(|at| ((-mean_ns * (1.0 - (f64::from(at) + 0.5) / 2_000.0).ln()) as u64, 1.0))
            .collect(),
    )
}

fn mean_ms(question: &BatchSimulation) -> f64 {
    question.run().unwrap().mean_ns.unwrap() / MS
}

fn close(found: f64, wanted: f64, relative: f64) {
    assert!((found - wanted).abs() <= relative * wanted, "found {found}, wanted {wanted}");
}

/// The mean wait in M/M/k (Erlang C), in units of the mean run.
fn erlang_wait(offered: f64, servers: usize) -> f64 {
    let blocked = (1..=servers).fold(1.0, |b, i| offered * b / (i as f64 + offered * b));
    let rho = offered / servers as f64;
    blocked / (1.0 - rho * (1.0 - blocked)) / (servers as f64 - offered)
}

#[test]
fn exponential_runs_wait_as_erlang_says() {
    close(erlang_wait(3.0, 4) * 2.5, 1.273_585, 1e-6);
    for (rate, servers) in [(240.0, 1), (1_200.0, 4), (2_560.0, 8)] {
        let question = BatchSimulation { run_ns: exponential(2.5 * MS), ..load(rate, servers) };
        close(mean_ms(&question), 2.5 * (1.0 + erlang_wait(rate * 2.5e-3, servers)), 0.03);
    }
}

#[test]
fn equal_runs_wait_half_as_long_on_one_instance() {
    // Pollaczek and Khinchine: rho / (2 (1 - rho)) runs.
    for rate in [120.0, 240.0, 300.0] {
        let rho: f64 = rate * 2.5e-3;
        close(mean_ms(&load(rate, 1)), 2.5 * (1.0 + rho / (2.0 * (1.0 - rho))), 0.03);
    }
    // Four instances: Cosmetatos' approximation.
    close(mean_ms(&load(1_200.0, 4)), 2.5 + 0.665_637, 0.02);
    let regular = BatchSimulation { arrivals: Arrivals::Constant, ..load(390.0, 1) };
    close(mean_ms(&regular), 2.5, 1e-9);
}

#[test]
fn two_kinds_of_runs_take_as_long_as_kimura_says() {
    for (rate, p99) in [(800.0, 7.545), (1_000.0, 8.535), (1_200.0, 10.574), (1_400.0, 17.779)] {
        let run_ns = Some(vec![(2_000_000, 0.9), (7_000_000, 0.1)]);
        let found = BatchSimulation { run_ns, ..load(rate, 4) }.run().unwrap();
        close(found.p99_ns.unwrap() as f64 / MS, p99, 0.12);
        close(found.busy_share, rate * 2.5e-3 / 4.0, 0.02);
    }
}

/// The mean response if all that waits is run together at t(n) = b + a n, where a share `idle` of runs is followed by no request.
///
/// A batch is followed by the Poisson arrivals of its run, or by one request if there are none. So the moments of its size n solve
/// E(n) (1 - ra) = rb + idle and E(n^2) (1 - r^2 a^2) = r E(t) + r^2 (2 a b E(n) + b^2) + idle at the rate r. A request waits for half of
/// the run that it comes in, and for its own (r E(t^2) / 2 + E(n t(n)) for all of a batch).
fn batch_mean_ns(rate_per_ns: f64, base_ns: f64, row_ns: f64, idle: f64) -> f64 {
    let (r, b, a) = (rate_per_ns, base_ns, row_ns);
    let rows = (r * b + idle) / (1.0 - r * a);
    let squared = (r * (a * rows + b) + r * r * (2.0 * a * b * rows + b * b) + idle) / (1.0 - r * r * a * a);
    let run_squared = a * a * squared + 2.0 * a * b * rows + b * b;
    (r * run_squared / 2.0 + a * squared + b * rows) / rows
}

#[test]
fn batches_take_as_long_as_their_moments_say() {
    for (rate, base_ns, row_ns) in [(500.0, MS, 0.2 * MS), (3_000.0, MS, 0.2 * MS), (4_500.0, MS, 0.1 * MS)] {
        let found = batched(rate, base_ns, row_ns).run().unwrap();
        let (mean, rows, r) = (found.mean_ns.unwrap(), found.mean_batch_rows.unwrap(), rate / 1e9);
        // The share of runs without a request after them follows from the mean size.
        let idle = rows * (1.0 - r * row_ns) - r * base_ns;
        close(mean, batch_mean_ns(r, base_ns, row_ns, idle), 0.02);
        // It is at most that after the shortest run; the mean is monotone in it.
        let most_idle = (-r * (base_ns + row_ns)).exp();
        let bound = [0.0, most_idle].map(|idle| batch_mean_ns(r, base_ns, row_ns, idle));
        assert!(
            mean <= 1.02 * bound[0].max(bound[1]) && mean >= 0.98 * bound[0].min(bound[1]),
            "{mean} {bound:?}"
        );
    }
}

/// The smaller the batches, the more their sizes vary.
#[test]
fn the_slowest_of_batches_take_two_to_three_runs_of_the_usual_size() {
    for (rate, base_ns, row_ns, least, most) in [
        (3_000.0, MS, 0.2 * MS, 2.8, 3.2),
        (4_500.0, 2.0 * MS, 0.1 * MS, 2.2, 2.6),
        (8_000.0, 5.0 * MS, 0.05 * MS, 2.0, 2.2),
    ] {
        let found = batched(rate, base_ns, row_ns).run().unwrap();
        let usual = rate / 1e9 * base_ns / (1.0 - rate / 1e9 * row_ns);
        let ratio = found.p99_ns.unwrap() as f64 / (base_ns + row_ns * usual);
        assert!((least..most).contains(&ratio), "{ratio} for batches of {usual}");
    }
}

#[test]
fn a_delay_makes_batches_larger_and_is_not_waited_for_in_vain() {
    let question = |max_delay_ns| {
        let mut question = batched(1_000.0, 2.0 * MS, 0.01 * MS);
        (question.setting.max_delay_ns, question.setting.max_batch, question.setting.instances) =
            (max_delay_ns, 8, 2);
        question.run().unwrap()
    };
    let (none, some) = (question(0), question(3_000_000));
    assert!(some.mean_batch_rows.unwrap() > 1.1 * none.mean_batch_rows.unwrap(), "{none:?} {some:?}");
    assert!(some.busy_share < none.busy_share);
    // A row comes every 200 ms, and a run costs 2 ms: no batch waits.
    let mut rare = batched(5.0, 2.0 * MS, 0.01 * MS);
    (rare.setting.max_delay_ns, rare.setting.max_batch, rare.requests) = (50_000_000, 8, 10_000);
    assert!(rare.run().unwrap().p50_ns.unwrap() < 2_100_000);
}

#[test]
fn a_request_with_more_rows_than_a_batch_runs_alone_and_padding_costs_its_rows() {
    let mut question = batched(10.0, MS, MS);
    (question.setting.max_batch, question.rows, question.requests) = (4, vec![(6, 1.0)], 1_000);
    close(question.run().unwrap().p50_ns.unwrap() as f64, 7.0 * MS, 1e-9);
    (question.rows, question.setting.buckets) = (vec![(3, 1.0)], vec![1, 4]);
    let found = question.run().unwrap();
    close(found.p50_ns.unwrap() as f64, 5.0 * MS, 1e-9);
    assert_eq!(found.mean_batch_rows.map(f64::round), Some(3.0));
}

#[test]
fn what_is_too_much_is_rejected() {
    let mut full = load(800.0, 1);
    (full.setting.max_queue, full.requests) = (10, 20_000);
    let found = full.run().unwrap();
    close(found.rejected as f64 / found.requests as f64, 0.5, 0.03);
    assert_eq!((found.p50_ns.is_some(), found.p99_ns, found.requests), (true, None, 20_000));
    assert!(found.busy_share > 0.99);
    // With a timeout, the queue sheds as it does for requests: as many are answered as the instance can run.
    let mut shed = load(800.0, 1);
    (shed.setting.timeout_ns, shed.requests) = (Some(200_000_000), 20_000);
    let found = shed.run().unwrap();
    assert!((0.48..0.56).contains(&(found.rejected as f64 / found.requests as f64)), "{found:?}");
}

#[test]
fn bursts_are_slower_than_independent_requests_at_the_same_rate() {
    let of = |arrivals| {
        let found = BatchSimulation { arrivals, ..load(280.0, 1) }.run().unwrap();
        close(found.busy_share, 0.7, 0.04);
        found.p99_ns.unwrap()
    };
    let mmpp = Arrivals::Mmpp { burst: 3.0, share: 0.2, burst_ns: 2e8 };
    let [constant, poisson, gamma, bursts] =
        [Arrivals::Constant, Arrivals::Poisson, Arrivals::Gamma { cv: 2.0 }, mmpp].map(of);
    assert!(constant < poisson && poisson < gamma && gamma < bursts, "{constant} {poisson} {gamma} {bursts}");
}

#[test]
fn a_question_that_cannot_be_is_refused() {
    let refused = |change: fn(&mut BatchSimulation), wrong: &str| {
        let mut question = load(100.0, 1);
        change(&mut question);
        let error = question.run().unwrap_err();
        assert!(error.message.contains(wrong), "{}", error.message);
    };
    refused(|of| of.rate = f64::NAN, "rate: from 0.001");
    refused(|of| of.requests = 0, "requests: from 1");
    refused(|of| of.setting.instances = 0, "setting.instances");
    refused(|of| of.setting.max_batch = 0, "setting.max_batch");
    refused(|of| of.setting.buckets = vec![4, 2], "setting.buckets: in ascending order");
    refused(|of| of.setting.timeout_ns = Some(0), "setting.timeout_ns");
    refused(|of| of.curve.row_ns = -1.0, "curve: ");
    refused(|of| of.rows = vec![(0, 1.0)], "rows: from 1");
    refused(|of| of.rows = vec![(1, 0.0)], "rows: weights");
    refused(|of| of.run_ns = Some(Vec::new()), "run_ns: weights");
    refused(|of| of.arrivals = Arrivals::Gamma { cv: 0.0 }, "arrivals.cv");
    refused(
        |of| of.arrivals = Arrivals::Mmpp { burst: 3.0, share: 0.5, burst_ns: 1e6 },
        "share of at most 1 / burst",
    );
    assert!(BatchSimulation::parse("{}").unwrap_err().message.contains("missing field `seed`"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever the settings: each request is answered or rejected, none faster than a run, and the same question has the same answer.
    #[test]
    fn every_request_is_accounted_for(
        seed in any::<u64>(), rate in 10.0..5_000.0, instances in 1_usize..5, max_batch in 1_usize..20,
        max_delay_ns in prop_oneof![Just(0_u64), 0..5_000_000_u64], max_queue in 1_usize..100, timeout_ns in prop::option::of(1_000_000_u64..100_000_000),
    ) {
        let mut question = load(rate, instances);
        let rows = vec![(1, 0.8), (3, 0.15), (25, 0.05)];
        (question.seed, question.requests, question.rows) = (seed, 2_000, rows);
        question.curve = CostLine { base_ns: 0.5 * MS, row_ns: 0.1 * MS };
        question.setting = SimulatedSetting { max_batch, max_delay_ns, max_queue, timeout_ns, ..question.setting };
        let found = question.run().unwrap();
        prop_assert_eq!(found.requests, 2_000);
        prop_assert!(found.p50_ns.is_none_or(|ns| ns >= 600_000) && found.busy_share <= 1.01, "{:?}", found);
        prop_assert!(found.mean_batch_rows.is_none_or(|rows| (1.0..=25.0).contains(&rows)));
        prop_assert_eq!(found, question.run().unwrap());
    }
}
