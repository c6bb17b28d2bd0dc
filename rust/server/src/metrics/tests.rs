use serde_json::{Value, json};

use super::rendering::{Gauges, families};
use super::*;

fn named<'a>(families: &'a [Value], name: &str) -> &'a Value {
    families.iter().find(|family| family["name"] == name).unwrap()
}

const GAUGES: Gauges = Gauges { generation: 3, waiting: 0, sketch_bytes: 0, log_dropped: 0 };

#[test]
fn shards_add_up_and_series_live_as_long_as_they_are_used() {
    let (metrics, now) = (Metrics::new(2), Instant::now());
    let version = metrics.version("digits", "v1");
    assert!(Arc::ptr_eq(&version, &metrics.version("digits", "v1")));
    for thread in 0..2 {
        let shard = version.shard(thread);
        shard.started.add(1);
        shard.count_outcome(None);
        shard.total.record(3_000);
    }
    version.shard(0).count_outcome(Some(Code::InvalidArgument));
    metrics.thread(1).count_refusal(Code::ModelNotFound);
    let all = families(&metrics, &GAUGES, now);
    let requests = named(&all, "headgate_requests_total");
    assert_eq!(requests["samples"][0], json!([{"endpoint": "digits", "version": "v1", "code": "ok"}, 2]));
    assert_eq!(requests["samples"][1][0]["code"], "invalid_argument");
    assert_eq!(named(&all, "headgate_requests_in_flight")["samples"][0][1], 2);
    assert_eq!(named(&all, "headgate_requests_refused_total")["samples"][0][0]["code"], "model_not_found");
    let total = &named(&all, "headgate_request_duration_seconds")["samples"][0][1];
    assert_eq!((total["count"].as_u64(), total["sum"].as_f64()), (Some(2), Some(6e-6)));
    let buckets = total["buckets"].as_array().unwrap();
    assert!(buckets.windows(2).all(|pair| pair[0][1].as_u64() <= pair[1][1].as_u64()));
    drop(version);
    // The last counts are shown to every scraper within five minutes of the first.
    let shown = |now| families(&metrics, &GAUGES, now);
    assert_eq!(named(&shown(now), "headgate_requests_total")["samples"][0][1], 2);
    assert_eq!(named(&shown(now + Duration::from_secs(299)), "headgate_requests_total")["samples"][0][1], 2);
    assert_eq!(named(&shown(now + DEPARTED_SHOWN_FOR), "headgate_requests_total")["samples"], json!([]));
}

#[test]
fn a_version_that_comes_back_in_time_goes_on_with_its_counts() {
    let (metrics, now) = (Metrics::new(1), Instant::now());
    metrics.version("digits", "v1").shard(0).count_outcome(None);
    let shown = |now| families(&metrics, &GAUGES, now);
    assert_eq!(named(&shown(now), "headgate_requests_total")["samples"][0][1], 1);
    let version = metrics.version("digits", "v1");
    version.shard(0).count_outcome(None);
    assert_eq!(named(&shown(now + 2 * DEPARTED_SHOWN_FOR), "headgate_requests_total")["samples"][0][1], 2);
}

#[test]
fn series_without_a_scraper_are_bounded() {
    let metrics = Metrics::new(1);
    for number in 0..3 * MAX_DEPARTED {
        drop(metrics.version("digits", &number.to_string()));
    }
    assert!(metrics.visible(Instant::now()).len() <= MAX_DEPARTED);
    // Series that were shown make room for those that were not.
    drop(metrics.version("digits", "new"));
    let versions: Vec<_> = metrics.visible(Instant::now()).iter().map(|of| of.version.to_string()).collect();
    assert!(versions.len() <= MAX_DEPARTED && versions.contains(&"new".to_owned()));
}
