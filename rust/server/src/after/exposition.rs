//! Metric families as text, in Prometheus' format or OpenMetrics', without Python: a page of a thousand endpoints is 15 MB, and
//! a thread that holds Python's lock for it holds up every call of the admin API.
//!
//! Numbers are written as Prometheus' Python client writes them, so that a bound of a bucket keeps its name.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::{Map, Value, json};

/// What a page has to be like.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExpositionFormat {
    /// OpenMetrics instead of Prometheus' own format; its end mark is the caller's.
    pub open_metrics: bool,
    /// Histograms of an endpoint instead of its versions: the whole time with every other bucket, its parts with none.
    pub compact: bool,
}

/// The histogram that keeps buckets in the compact form.
const WHOLE_TIME: &str = "headgate_request_duration_seconds";

/// The families, as the metrics' declarations make them, as text.
pub fn text(families: &[Value], form: ExpositionFormat) -> Vec<u8> {
    let mut out = Vec::new();
    for family in families {
        let kind = string(family, "type");
        let compacted;
        let samples = family["samples"].as_array().map_or(&[][..], Vec::as_slice);
        let samples = if form.compact && kind == "histogram" {
            compacted = of_endpoints(samples, string(family, "name") == WHOLE_TIME);
            compacted.as_slice()
        } else {
            samples
        };
        let name = string(family, "name");
        begin(&mut out, name, kind, string(family, "help"), form);
        for sample in samples {
            let (labels, value) = (&sample[0], &sample[1]);
            match kind {
                "histogram" => histogram(&mut out, name, labels, value),
                _ => line(&mut out, SampleName { family: name, suffix: "" }, labels, None, value),
            }
        }
    }
    out
}

fn string<'a>(family: &'a Value, key: &str) -> &'a str {
    family[key].as_str().unwrap_or_default()
}

fn begin(out: &mut Vec<u8>, name: &str, kind: &str, help: &str, form: ExpositionFormat) {
    // OpenMetrics names a counter without the end that its samples have.
    let name = if form.open_metrics { name.strip_suffix("_total").unwrap_or(name) } else { name };
    let help = help.replace('\\', "\\\\").replace('\n', "\\n");
    let help = if form.open_metrics { help.replace('"', "\\\"") } else { help };
    // Writing to memory does not fail.
    let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

fn histogram(out: &mut Vec<u8>, name: &str, labels: &Value, value: &Value) {
    for bucket in value["buckets"].as_array().into_iter().flatten() {
        let bound = number(&bucket[0]);
        line(out, SampleName { family: name, suffix: "_bucket" }, labels, Some(&bound), &bucket[1]);
    }
    line(out, SampleName { family: name, suffix: "_bucket" }, labels, Some("+Inf"), &value["count"]);
    line(out, SampleName { family: name, suffix: "_count" }, labels, None, &value["count"]);
    line(out, SampleName { family: name, suffix: "_sum" }, labels, None, &value["sum"]);
}

/// The name of a sample: its family's, and what a part of a histogram has behind it.
#[derive(Clone, Copy)]
struct SampleName<'a> {
    family: &'a str,
    suffix: &'a str,
}

/// One sample; `bound` is the label `le`, in its place among the others.
fn line(out: &mut Vec<u8>, name: SampleName<'_>, labels: &Value, bound: Option<&str>, value: &Value) {
    out.extend_from_slice(name.family.as_bytes());
    out.extend_from_slice(name.suffix.as_bytes());
    let mut labels: Vec<(&str, &str)> = labels
        .as_object()
        .into_iter()
        .flat_map(Map::iter)
        .map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
        .chain(bound.map(|bound| ("le", bound)))
        .collect();
    labels.sort_unstable();
    for (place, (key, value)) in labels.iter().enumerate() {
        out.extend_from_slice(if place == 0 { b"{" } else { b"," });
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(b"=\"");
        escaped(out, value);
        out.push(b'"');
    }
    if !labels.is_empty() {
        out.push(b'}');
    }
    out.push(b' ');
    out.extend_from_slice(number(value).as_bytes());
    out.push(b'\n');
}

fn escaped(out: &mut Vec<u8>, value: &str) {
    for &byte in value.as_bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'"' => out.extend_from_slice(b"\\\""),
            b'\n' => out.extend_from_slice(b"\\n"),
            _ => out.push(byte),
        }
    }
}

/// A number as Python writes it: with a point, and with an exponent of two digits below a ten-thousandth.
fn number(value: &Value) -> String {
    if let Some(count) = value.as_u64() {
        return format!("{count}.0");
    }
    let value = value.as_f64().unwrap_or_default();
    if value == 0.0 || value.abs() >= 1e-4 {
        return format!("{value:?}");
    }
    let text = format!("{value:e}");
    match text.split_once("e-") {
        Some((digits, exponent)) => format!("{digits}e-{exponent:0>2}"),
        None => text,
    }
}

/// Histograms of versions added up to those of their endpoints, with every other bucket or none.
fn of_endpoints(samples: &[Value], with_buckets: bool) -> Vec<Value> {
    let mut endpoints = BTreeMap::<&str, (Vec<(Value, u64)>, f64, u64)>::new();
    for sample in samples {
        let value = &sample[1];
        let endpoint = sample[0]["endpoint"].as_str().unwrap_or_default();
        let (buckets, sum, count) = endpoints.entry(endpoint).or_default();
        let thinned = value["buckets"].as_array().filter(|_| with_buckets);
        let thinned = thinned.into_iter().flatten().skip(1).step_by(2);
        for (place, bucket) in thinned.enumerate() {
            let below = bucket[1].as_u64().unwrap_or_default();
            match buckets.get_mut(place) {
                Some((_, all)) => *all += below,
                None => buckets.push((bucket[0].clone(), below)),
            }
        }
        *sum += value["sum"].as_f64().unwrap_or_default();
        *count += value["count"].as_u64().unwrap_or_default();
    }
    let sample = |(endpoint, (buckets, sum, count))| {
        let buckets: Vec<_> = Vec::from_iter(buckets);
        json!([{"endpoint": endpoint}, {"buckets": buckets, "sum": sum, "count": count}])
    };
    endpoints.into_iter().map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(families: &Value, form: ExpositionFormat) -> String {
        String::from_utf8(text(families.as_array().unwrap(), form)).unwrap()
    }

    fn histograms(name: &str) -> Value {
        let value = |n: u64| json!({"buckets": [[0.000065536, n], [0.25, 2 * n], [1.0, 3 * n], [2.0, 4 * n]], "sum": 0.5, "count": 5 * n});
        let samples = json!([
            [{"endpoint": "a", "version": "1"}, value(1)], [{"endpoint": "a", "version": "2"}, value(2)],
        ]);
        json!([{"name": name, "help": "Time.", "type": "histogram", "samples": samples}])
    }

    #[test]
    fn names_labels_and_numbers_are_as_prometheus_client_writes_them() {
        let families = json!([
            {"name": "seen_total", "help": "A \\ and\na \"line\".", "type": "counter",
             "samples": [[{"version": "v\"1\\\n", "endpoint": "e"}, 3], [{}, 0.00001]]},
            {"name": "open", "help": "Open.", "type": "gauge", "samples": [[{}, 0.5]]},
        ]);
        assert_eq!(
            page(&families, ExpositionFormat::default()),
            "# HELP seen_total A \\\\ and\\na \"line\".\n# TYPE seen_total counter\n\
             seen_total{endpoint=\"e\",version=\"v\\\"1\\\\\\n\"} 3.0\nseen_total 1e-05\n\
             # HELP open Open.\n# TYPE open gauge\nopen 0.5\n"
        );
        let open = page(&families, ExpositionFormat { open_metrics: true, compact: false });
        assert!(
            open.starts_with("# HELP seen A \\\\ and\\na \\\"line\\\".\n# TYPE seen counter\nseen_total{")
        );
    }

    #[test]
    fn a_histogram_keeps_its_cumulative_buckets_and_gains_the_infinite_one() {
        let page = page(&histograms("took_seconds"), ExpositionFormat::default());
        let first: Vec<_> = page.lines().skip(2).take(7).collect();
        assert_eq!(first[0], "took_seconds_bucket{endpoint=\"a\",le=\"6.5536e-05\",version=\"1\"} 1.0");
        assert_eq!(first[4], "took_seconds_bucket{endpoint=\"a\",le=\"+Inf\",version=\"1\"} 5.0");
        assert_eq!(first[5], "took_seconds_count{endpoint=\"a\",version=\"1\"} 5.0");
        assert_eq!(first[6], "took_seconds_sum{endpoint=\"a\",version=\"1\"} 0.5");
    }

    #[test]
    fn the_compact_form_adds_up_what_an_endpoints_versions_took() {
        let lines = |name| {
            let page = page(&histograms(name), ExpositionFormat { open_metrics: false, compact: true });
            page.lines().skip(2).map(|line| line.replace(name, "took")).collect::<Vec<_>>()
        };
        let ends = [
            "took_bucket{endpoint=\"a\",le=\"+Inf\"} 15.0",
            "took_count{endpoint=\"a\"} 15.0",
            "took_sum{endpoint=\"a\"} 1.0",
        ];
        let whole = lines(WHOLE_TIME);
        assert_eq!(
            whole[..2],
            ["took_bucket{endpoint=\"a\",le=\"0.25\"} 6.0", "took_bucket{endpoint=\"a\",le=\"2.0\"} 12.0"]
        );
        assert_eq!(whole[2..], ends);
        assert_eq!(lines("part_seconds"), ends);
    }
}
