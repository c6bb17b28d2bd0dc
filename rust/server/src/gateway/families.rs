//! The families of metrics of the whole data plane.

use std::sync::atomic::Ordering::Relaxed;

use headgate_engine::Instant;
use serde_json::Value;

use super::Gateway;
use crate::metrics::rendering::{Gauges, families};
use crate::serving::{limit_registry, load_tracker, probes, residency, run_monitor, status};
use crate::{budget, capture, feedback, shadow};

impl Gateway {
    /// Every metric family.
    pub(super) fn families(&self) -> Vec<Value> {
        let gauges = Gauges {
            generation: self.shared.snapshot.load().generation,
            waiting: self.shared.pool.waiting_tasks(),
            sketch_bytes: self.sketches.bytes(),
            log_dropped: self.access_log.as_ref().map_or(0, |log| log.dropped.load(Relaxed)),
        };
        let mut families = families(&self.shared.metrics, &gauges, Instant::now());
        families.extend(limit_registry::families(&self.shared.limit_registry));
        families.extend(capture::families::families(&self.shared.captures));
        families.extend(budget::families(&self.shared.large_requests, &self.shared.small_requests));
        families.extend(residency::families(&self.engine, &self.shared.fetcher));
        families.extend(residency::device_families(&self.engine));
        families.extend(probes::families(&self.shared.snapshot.load()));
        families.extend(status::families(&self.shared.snapshot.load()));
        let loads = [("apply", self.publisher.load_counts()), ("request", self.shared.fetcher.load_counts())];
        families.extend(load_tracker::families(&loads));
        families.extend(self.trial_families());
        families.extend(feedback::families::families(&self.shared.feedback));
        families.extend(run_monitor::families(&self.shared, &self.shared.snapshot.load()));
        families.extend(shadow::families::families(&self.shared.shadows));
        families
    }
}
