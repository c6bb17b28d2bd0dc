//! Rows come back as they were written, whatever their datatypes, shapes and redactions; damaged files never panic.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use headgate_capture::clock::Now;
use headgate_capture::layout::{FileLayout, VersionIdentity};
use headgate_capture::reader::{CaptureReader, RecordedElements, RecordedRow, RecordedTensor};
use headgate_capture::row::{CapturedRow, Elements, RowFacts, TensorData};
use headgate_capture::store::{CaptureStore, CaptureTarget, Retention};
use headgate_core::tensor::{DataType, Signature, TensorSpec};
use proptest::prelude::*;

/// A tensor of any datatype: fixed elements as bytes, or strings.
#[derive(Clone, Debug)]
struct Tensor {
    shape: Vec<i64>,
    bytes: Vec<u8>,
    offsets: Vec<usize>,
}

impl Tensor {
    fn data(&self, datatype: DataType) -> TensorData<'_> {
        let elements = match datatype.size() {
            Some(_) => Elements::Fixed(&self.bytes),
            None => Elements::Strings { bytes: &self.bytes, offsets: &self.offsets },
        };
        TensorData { shape: &self.shape, elements }
    }

    fn count(&self) -> usize {
        self.shape.iter().map(|&dim| dim as usize).product()
    }

    /// The elements, each for itself.
    fn elements(&self, datatype: DataType) -> Vec<Vec<u8>> {
        match datatype.size() {
            Some(size) => self.bytes.chunks(size).map(<[u8]>::to_vec).collect(),
            None => strings(&self.bytes, &self.offsets),
        }
    }
}

fn strings(bytes: &[u8], offsets: &[usize]) -> Vec<Vec<u8>> {
    let ends = offsets.iter().skip(1).copied().chain([bytes.len()]);
    offsets.iter().zip(ends).map(|(&begin, end)| bytes[begin..end].to_vec()).collect()
}

/// The elements that were read, each for itself.
fn read_elements(tensor: &RecordedTensor, datatype: DataType) -> Vec<Vec<u8>> {
    match &tensor.elements {
        RecordedElements::Fixed(bytes) => {
            bytes.chunks(datatype.size().unwrap()).map(<[u8]>::to_vec).collect()
        }
        RecordedElements::Strings { bytes, offsets } => strings(bytes, offsets),
    }
}

fn tensor(datatype: DataType) -> BoxedStrategy<Tensor> {
    let shape = prop::collection::vec(0_i64..4, 0..4);
    shape
        .prop_flat_map(move |shape| {
            let count: usize = shape.iter().map(|&dim| dim as usize).product();
            let byte = if datatype == DataType::Bool { (0_u8..2).boxed() } else { any::<u8>().boxed() };
            let element = match datatype.size() {
                Some(size) => prop::collection::vec(byte, size).boxed(),
                None => prop::collection::vec(byte, 0..6).boxed(),
            };
            prop::collection::vec(element, count).prop_map(move |elements| {
                let lengths = elements.iter().scan(0, |end, element| {
                    *end += element.len();
                    Some(*end - element.len())
                });
                Tensor { shape: shape.clone(), offsets: lengths.collect(), bytes: elements.concat() }
            })
        })
        .boxed()
}

/// One tensor of each datatype, each of which may be missing.
fn row() -> impl Strategy<Value = Vec<Option<Tensor>>> {
    DataType::ALL
        .into_iter()
        .map(|datatype| prop::option::weighted(0.8, tensor(datatype)).boxed())
        .collect::<Vec<_>>()
}

fn target(redact: &[String]) -> CaptureTarget {
    let specs = DataType::ALL.into_iter().map(|datatype| TensorSpec {
        name: datatype.to_string(),
        datatype,
        shape: vec![-1],
        symbols: vec![],
        any_rank: true,
        labels: vec![],
    });
    let signature = Signature { inputs: specs.collect(), ..Signature::default() };
    let columns = DataType::ALL
        .into_iter()
        .map(|datatype| (datatype.to_string(), ["a", "b", "c"].map(str::to_owned).to_vec()))
        .collect::<BTreeMap<_, _>>();
    let version = VersionIdentity { endpoint: "e".into(), version: "v1".into(), digest: "sha256:1".into() };
    let layout = Arc::new(FileLayout::new(version, &signature, &columns, redact));
    CaptureTarget { layout, retention: Retention { keep_ms: 86_400_000, max_bytes: 1 << 30 } }
}

fn facts(number: usize) -> RowFacts {
    RowFacts {
        time_us: number as i64 - 1,
        request: u64::MAX - number as u64,
        revision: 1,
        unit: number.is_multiple_of(2).then_some(7),
        reason: "rule",
        rule: number.is_multiple_of(3).then_some(2),
        code: if number.is_multiple_of(2) { "ok" } else { "backend_failed" },
        run_ns: number.is_multiple_of(2).then_some(number as u64),
        total_ns: 1,
    }
}

/// Writes rows and gives the file.
fn written(folder: &Path, target: &CaptureTarget, rows: &[Vec<Option<Tensor>>]) -> PathBuf {
    let now = Now::read();
    let mut store = CaptureStore::open(folder.to_owned(), u64::MAX, Arc::default(), now);
    for (number, tensors) in rows.iter().enumerate() {
        let data = DataType::ALL.into_iter().zip(tensors);
        let tensors = data.map(|(datatype, tensor)| tensor.as_ref().map(|tensor| tensor.data(datatype)));
        store.write(target, &CapturedRow { facts: facts(number), tensors: tensors.collect() }, now);
    }
    store.close(now);
    let mut files = std::fs::read_dir(folder.join("e")).unwrap().map(|entry| entry.unwrap().path());
    files.find(|path| path.extension().is_some_and(|extension| extension == "arrows")).unwrap()
}

fn read(path: &Path) -> Vec<RecordedRow> {
    let mut reader = CaptureReader::open(path).unwrap();
    let mut rows = Vec::new();
    while let Some(batch) = reader.next_batch().unwrap() {
        rows.extend(batch);
    }
    rows
}

/// What a file has of an element: nothing of one that is left out.
fn expected(tensor: &Tensor, datatype: DataType, redact: &[String]) -> Vec<Vec<u8>> {
    let zero = vec![0; datatype.size().unwrap_or_default()];
    let whole = redact.contains(&datatype.to_string());
    let column = redact.contains(&format!("{datatype}.b"));
    let width: usize = tensor.shape.iter().skip(1).map(|&dim| dim as usize).product();
    let elements = tensor.elements(datatype).into_iter().enumerate();
    elements
        .map(|(index, element)| {
            // The names of columns fit rows of three elements alone; of others nothing is kept.
            let left_out = whole || column && (width != 3 || index % 3 == 1);
            if left_out { zero.clone() } else { element }
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn rows_come_back_as_they_were_written(
        rows in prop::collection::vec(row(), 1..5),
        redacted in prop::collection::vec((0_usize..14, any::<bool>()), 0..4),
    ) {
        let redact: Vec<String> = redacted
            .iter()
            .map(|&(index, whole)| format!("{}{}", DataType::ALL[index], if whole { "" } else { ".b" }))
            .collect();
        let folder = tempfile::tempdir().unwrap();
        let target = target(&redact);
        let path = written(folder.path(), &target, &rows);
        let reader = CaptureReader::open(&path).unwrap();
        prop_assert_eq!(reader.layout(), &*target.layout);
        let found = read(&path);
        prop_assert_eq!(found.len(), rows.len());
        for (number, (found, row)) in found.iter().zip(&rows).enumerate() {
            let facts = facts(number);
            prop_assert_eq!((found.time_us, found.request), (facts.time_us, facts.request));
            prop_assert_eq!((&*found.reason, &*found.code), (facts.reason, facts.code));
            prop_assert_eq!(found.run_ns, facts.run_ns);
            for ((datatype, found), sent) in DataType::ALL.into_iter().zip(&found.tensors).zip(row) {
                prop_assert_eq!(found.is_some(), sent.is_some());
                let (Some(found), Some(sent)) = (found, sent) else { continue };
                prop_assert_eq!(&found.shape, &sent.shape);
                prop_assert_eq!(sent.elements(datatype).len(), sent.count());
                prop_assert_eq!(read_elements(found, datatype), expected(sent, datatype, &redact));
            }
        }
    }

    #[test]
    fn a_damaged_file_never_panics(
        rows in prop::collection::vec(row(), 1..3),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path(), &target(&[]), &rows);
        let mut bytes = std::fs::read(&path).unwrap();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        std::fs::write(&path, bytes).unwrap();
        if let Ok(mut reader) = CaptureReader::open(&path) {
            while let Ok(Some(_)) = reader.next_batch() {}
        }
    }
}
