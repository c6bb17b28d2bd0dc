//! Histograms for other tools, in the compressed format of HdrHistogram, version 2.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
use serde_json::{Value, json};

use crate::histogram::Counts;
use crate::records::{LONGEST_NS, Records, SLOWER_THAN_ANY, lowest_ns};

/// The histograms of a run in base64: response and service times of good answers, and lateness, in nanoseconds.
pub(crate) fn hdr_v2(records: &Records, lateness: &Counts) -> Value {
    let good = |codes: &[u16]| {
        let good = codes.iter().zip(&records.response).filter(|(_, response)| **response != SLOWER_THAN_ANY);
        encode(&Counts::of_codes(good.map(|(&code, _)| code)))
    };
    json!({
        "response": good(&records.response),
        "service": good(&records.service),
        "lateness": encode(lateness),
    })
}

/// `None` if the format has no room for it, which no histogram of these bounds needs.
fn encode(counts: &Counts) -> Option<String> {
    let mut histogram = Histogram::<u64>::new_with_bounds(1, LONGEST_NS, 3).ok()?;
    for (code, count) in counts.by_code() {
        histogram.record_n(lowest_ns(code), count).ok()?;
    }
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(&histogram, &mut bytes).ok()?;
    Some(STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::Deserializer;

    use super::*;
    use crate::records::code_of;

    #[test]
    fn an_export_is_read_back_by_the_crate() {
        let counts = Counts::of_codes((1..=1000u64).map(|ms| code_of(ms * 1_000_000)));
        let bytes = STANDARD.decode(encode(&counts).unwrap()).unwrap();
        let read: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
        assert_eq!(read.len(), 1000);
        assert_eq!(Some(read.value_at_quantile(0.99)), counts.quantile_ns(0.99));
    }
}
