//! A write that fails in the middle of a batch, as on a disk that becomes full: the limit of a file's size is one of the process, so that
//! this test has a process of its own.
#![allow(unsafe_code, reason = "limits of a process have no safe wrapper in the standard library")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use headgate_capture::clock::Now;
use headgate_capture::counters::DropReason;
use headgate_capture::layout::{FileLayout, VersionIdentity};
use headgate_capture::row::{CapturedRow, Elements, RowFacts, TensorData};
use headgate_capture::store::{CaptureStore, CaptureTarget, CountersByEndpoint, Retention};
use headgate_core::tensor::{DataType, Signature, TensorSpec};

const LIMIT: u64 = 100_000;
const ROW: usize = 30_000;

fn limit_files(bytes: u64) {
    // SAFETY: a limit and a signal of this process alone; no pointer outlives the calls.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        assert_eq!(libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit), 0);
        limit.rlim_cur = bytes;
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit), 0);
    }
}

fn target() -> CaptureTarget {
    let spec = TensorSpec {
        name: "X".into(),
        datatype: DataType::Uint8,
        shape: vec![-1],
        symbols: vec![],
        any_rank: false,
        labels: vec![],
    };
    let signature = Signature { inputs: vec![spec], ..Signature::default() };
    let version = VersionIdentity { endpoint: "e".into(), version: "v1".into(), digest: "sha256:1".into() };
    let layout = Arc::new(FileLayout::new(version, &signature, &BTreeMap::new(), &[]));
    CaptureTarget { layout, retention: Retention { keep_ms: 86_400_000, max_bytes: 1 << 30 } }
}

fn row(bytes: &[u8]) -> CapturedRow<'_> {
    let facts = RowFacts {
        time_us: 0,
        request: 1,
        revision: 1,
        unit: None,
        reason: "drawn",
        rule: None,
        code: "ok",
        run_ns: None,
        total_ns: 1,
    };
    let data = TensorData { shape: &[ROW as i64], elements: Elements::Fixed(bytes) };
    CapturedRow { facts, tensors: vec![Some(data)] }
}

#[test]
fn a_batch_that_is_written_in_part_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let counters = Arc::new(CountersByEndpoint::default());
    let begun = Now::read();
    let mut store = CaptureStore::open(folder.path().to_owned(), u64::MAX, counters.clone(), begun);
    let at = |seconds| Now {
        wall: begun.wall + Duration::from_secs(seconds),
        steady: begun.steady + Duration::from_secs(seconds),
    };
    let (target, bytes) = (target(), vec![7; ROW]);
    limit_files(LIMIT);
    // Each row is a batch of its own: the fourth does not fit.
    for number in 0..4 {
        store.write(&target, &row(&bytes), at(10 * number));
        store.tick(at(10 * number + 5));
    }
    let counters = counters.of("e");
    assert_eq!(counters.rows.load(Relaxed), 3);
    assert_eq!((counters.dropped(DropReason::Failed), counters.errors.load(Relaxed)), (1, 1));
    let reason = counters.failure().unwrap().reason;
    assert!(reason.contains("too large"), "{reason}");
    let files = || {
        let entries = std::fs::read_dir(folder.path().join("e")).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = entries.filter(|path| path.to_string_lossy().contains(".arrows")).collect();
        files.sort();
        files
    };
    let [cut] = &files()[..] else { panic!("{:?}", files()) };
    assert_eq!(cut.extension().unwrap(), "arrows");
    let written = std::fs::read(cut).unwrap();
    assert!(
        (3 * ROW..LIMIT as usize).contains(&written.len())
            && written.ends_with(&[0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0])
    );
    limit_files(1 << 30);
    store.write(&target, &row(&bytes), at(60));
    store.close(at(60));
    assert_eq!((files().len(), counters.rows.load(Relaxed), counters.failure()), (2, 4, None));
    // What is left of the file that was cut is as complete as the other.
    let mut again = CaptureStore::open(folder.path().to_owned(), u64::MAX, Arc::default(), at(60));
    again.tick(at(120));
    assert_eq!(std::fs::read(cut).unwrap(), written);
}
