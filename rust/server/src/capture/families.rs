//! The metrics of capture.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use headgate_capture::counters::{CaptureCounters, DropReason};
use serde_json::{Value, json};

use crate::capture::registry::CaptureRegistry;
use crate::metrics::rendering::family;

/// The metrics of capture.
#[rustfmt::skip]
pub fn families(registry: &CaptureRegistry) -> Vec<Value> {
    let endpoints = registry.counters.all();
    let per_endpoint = |name: &str, help: &str, kind: &str, read: fn(&CaptureCounters) -> u64| {
        family(name, help, kind, endpoints.iter().map(|(endpoint, counters)| json!([{"endpoint": endpoint}, read(counters)])))
    };
    vec![
        per_endpoint("headgate_capture_rows_total", "Captured requests that were written (capture).", "counter", |c| c.rows.load(Relaxed)),
        per_endpoint("headgate_capture_bytes_total", "Bytes of captured requests that were written.", "counter", |c| c.bytes.load(Relaxed)),
        per_endpoint("headgate_capture_files_total", "Files of captured requests that were closed.", "counter", |c| c.files.load(Relaxed)),
        per_endpoint("headgate_capture_files_deleted_total", "Files of captured requests that were deleted: for their age, or because newer ones need the room.", "counter", |c| c.deleted.load(Relaxed)),
        dropped(&endpoints),
        per_endpoint("headgate_capture_errors_total", "Errors of the disk that stopped capture for a while; `headgate get` shows the last one.", "counter", |c| c.errors.load(Relaxed)),
        per_endpoint("headgate_capture_failing", "1 from such an error until a captured request is written again.", "gauge", |c| u64::from(c.failure().is_some())),
        per_endpoint("headgate_capture_disk_bytes", "Bytes of captured requests on the disk.", "gauge", |c| c.disk_bytes.load(Relaxed)),
        per_endpoint("headgate_capture_disk_files", "Files of captured requests on the disk.", "gauge", |c| c.disk_files.load(Relaxed)),
        family("headgate_capture_queue_requests", "Captured requests that wait to be written.", "gauge", [json!([{}, registry.queue.length()])].into_iter()),
        family("headgate_capture_queue_bytes", "Memory of captured requests that wait to be written or are being written.", "gauge", [json!([{}, registry.queue.bytes()])].into_iter()),
    ]
}

fn dropped(endpoints: &[(String, Arc<CaptureCounters>)]) -> Value {
    let samples = endpoints.iter().flat_map(|(endpoint, counters)| {
        DropReason::ALL.iter().map(move |&reason| {
            json!([{"endpoint": endpoint, "reason": reason.as_str()}, counters.dropped(reason)])
        })
    });
    let help = "Requests that were drawn for capture and are in no file: queue_full, too_large, stopped (after an error), failed (the write failed), unreadable, late (the writer took nothing for 30 s, because the disk hangs).";
    family("headgate_capture_dropped_total", help, "counter", samples)
}
