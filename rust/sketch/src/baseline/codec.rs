//! A baseline as bytes: canonical JSON, so that the SHA-256 of the bytes identifies it. The reader checks everything.
//!
//! Canonical means: fixed key order, no spaces, shortest round-trip numbers, features in order. Next: `lookup`.

use serde::{Deserialize, Serialize};

use super::types::{Baseline, FeatureBaseline};
use crate::edges::MAX_EDGES;
use crate::error::{Error, Result};

/// The value of `"format"`. Another value is refused.
pub const FORMAT: &str = "headgate.baseline/1";
/// The largest file that is read, in bytes.
pub const MAX_BYTES: usize = 512 << 20;
/// The most features in one baseline.
pub const MAX_FEATURES: usize = 1 << 16;

#[derive(Serialize)]
struct BaselineFileRef<'a> {
    format: &'a str,
    features: &'a [FeatureBaseline],
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BaselineFile {
    format: String,
    features: Vec<FeatureBaseline>,
}

impl Baseline {
    /// The canonical bytes: equal baselines give equal bytes.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(&BaselineFileRef { format: FORMAT, features: &self.features })
            .expect("strings and finite numbers always serialize")
    }

    /// Reads and checks a baseline.
    ///
    /// # Errors
    /// [`Error::Baseline`] if the bytes are too many, are not JSON of this format, or contradict themselves.
    pub fn from_json(bytes: &[u8]) -> Result<Baseline> {
        if bytes.len() > MAX_BYTES {
            return Err(Error::Baseline(format!(
                "it has {} bytes, at most {MAX_BYTES} are read",
                bytes.len()
            )));
        }
        let read: BaselineFile = serde_json::from_slice(bytes)
            .map_err(|error| Error::Baseline(format!("it is not JSON of the format {FORMAT:?}: {error}")))?;
        if read.format != FORMAT {
            return Err(Error::Baseline(format!("its format is {:?}, only {FORMAT:?} is read", read.format)));
        }
        for feature in &read.features {
            check(feature).map_err(|fault| {
                Error::Baseline(format!(
                    "feature {:?} of tensor {:?}: {fault}",
                    feature.column, feature.tensor
                ))
            })?;
        }
        Baseline::ordered(read.features).map_err(Error::Baseline)
    }

    /// A baseline in canonical order.
    pub(super) fn ordered(mut features: Vec<FeatureBaseline>) -> std::result::Result<Baseline, String> {
        if features.len() > MAX_FEATURES {
            return Err(format!("{} features, at most {MAX_FEATURES} are kept", features.len()));
        }
        let key = |f: &FeatureBaseline| (f.direction, f.tensor.clone(), f.index, f.column.clone());
        features.sort_by_key(key);
        if let Some(pair) = features.windows(2).find(|pair| key(&pair[0]) == key(&pair[1])) {
            return Err(format!(
                "feature {:?} of tensor {:?} at index {} occurs twice",
                pair[0].column, pair[0].tensor, pair[0].index
            ));
        }
        Ok(Baseline { features })
    }
}

fn check(feature: &FeatureBaseline) -> std::result::Result<(), String> {
    let FeatureBaseline { edges, counts, sums, moments, .. } = feature;
    if feature.tensor.is_empty() || feature.column.is_empty() {
        return Err("a name is empty".into());
    }
    if edges.len() > MAX_EDGES {
        return Err(format!("{} edges, at most {MAX_EDGES} are allowed", edges.len()));
    }
    if counts.len() != edges.len() + 1 || sums.len() != counts.len() {
        return Err(format!(
            "{} edges need {} counts and sums, not {} and {}",
            edges.len(),
            edges.len() + 1,
            counts.len(),
            sums.len()
        ));
    }
    if !edges.iter().all(|edge| edge.is_finite()) || !edges.is_sorted_by(|a, b| a < b) {
        return Err("edges must be finite and strictly ascending".into());
    }
    if counts.iter().try_fold(0u64, |sum, &count| sum.checked_add(count)) != Some(moments.n) {
        return Err(format!("the counts do not add up to n = {}", moments.n));
    }
    let specials = [feature.missing, feature.positive_infinity, feature.negative_infinity];
    if specials.iter().try_fold(moments.n, |sum, &count| sum.checked_add(count)).is_none() {
        return Err("the row counts overflow".into());
    }
    if counts.iter().zip(sums).any(|(&count, &sum)| !sum.is_finite() || (count == 0 && sum != 0.0)) {
        return Err("a slot's sum is not finite, or there is a sum without a count".into());
    }
    let range = moments.min <= moments.max && moments.min.is_finite() && moments.max.is_finite();
    if !(moments.mean.is_finite() && moments.m2.is_finite() && moments.m2 >= 0.0 && (moments.n == 0 || range))
    {
        return Err("the moments contradict themselves".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::{Column, Direction, fit};

    fn sample() -> Baseline {
        let column = |index| Column {
            tensor: "X".into(),
            column: format!("X[{index}]"),
            index,
            direction: Direction::Input,
            integer: false,
        };
        let values: Vec<f64> = (0..300).map(|i| (f64::from(i) * 0.618).fract() / 3.0).collect();
        fit(&[column(0), column(1)], &[&values, &values]).unwrap()
    }

    #[test]
    fn bytes_survive_a_round_trip() {
        let bytes = sample().to_json();
        let read = Baseline::from_json(&bytes).unwrap();
        assert_eq!(read, sample());
        assert_eq!(read.to_json(), bytes);
        assert!(bytes.starts_with(br#"{"format":"headgate.baseline/1","features":[{"tensor":"X","#));
    }

    #[test]
    fn every_contradiction_is_refused() {
        let good = String::from_utf8(sample().to_json()).unwrap();
        let refuse = |text: &str, words: &str| {
            let error = Baseline::from_json(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        refuse("[]", "not JSON of the format");
        refuse(&good.replace("baseline/1", "baseline/2"), "baseline/2");
        refuse(&good.replacen("\"n\":300", "\"n\":301", 1), "do not add up");
        refuse(&good.replacen("\"edges\":[", "\"edges\":[9e9,", 1), "need");
        refuse(&good.replacen("\"counts\":[0,", "\"counts\":[0,1,", 1), "need");
        refuse(&good.replacen("\"missing\":0", "\"missing\":18446744073709551615", 1), "overflow");
        refuse(&good.replacen("\"integer\":false", "\"integer\":false,\"x\":1", 1), "unknown field");
        refuse(&good.replace("\"index\":1", "\"index\":0").replace("X[1]", "X[0]"), "twice");
        refuse(&good.replacen("\"column\":\"X[0]\"", "\"column\":\"\"", 1), "name is empty");
        refuse(&good[..good.len() / 2], "not JSON");
    }
}
