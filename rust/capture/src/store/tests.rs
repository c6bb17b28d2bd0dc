//! Rotation, retention, recovery and errors, on real files and with injected time.

mod faults;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use headgate_core::tensor::{DataType, Signature, TensorSpec};
use proptest::prelude::*;

use super::*;
use crate::counters::DropReason;
use crate::layout::VersionIdentity;
use crate::row::{Elements, RowFacts, TensorData};
use crate::stream::complete_prefix;

const HOUR: Duration = Duration::from_secs(3600);

/// A store in a folder of its own, and its clock.
struct Bench {
    folder: tempfile::TempDir,
    counters: Arc<CountersByEndpoint>,
    store: CaptureStore,
    begun: Now,
    passed: Duration,
}

impl Bench {
    fn new(max_bytes: u64) -> Bench {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_571_200);
        let begun = Now { wall, steady: Instant::now() };
        let folder = tempfile::tempdir().unwrap();
        let counters = Arc::new(CountersByEndpoint::default());
        let store = CaptureStore::open(folder.path().join("capture"), max_bytes, counters.clone(), begun);
        Bench { folder, counters, store, begun, passed: Duration::ZERO }
    }

    /// As after a crash: nothing is closed.
    fn reopen(&mut self) {
        self.counters = Arc::default();
        let root = self.folder.path().join("capture");
        self.store = CaptureStore::open(root, u64::MAX, self.counters.clone(), self.now());
    }

    fn now(&self) -> Now {
        Now { wall: self.begun.wall + self.passed, steady: self.begun.steady + self.passed }
    }

    fn pass(&mut self, time: Duration) {
        self.passed += time;
        self.store.tick(self.now());
    }

    /// Writes a row with so many numbers, and waits until it is in a file.
    fn write(&mut self, target: &CaptureTarget, numbers: usize) {
        self.write_row(target, numbers);
        self.pass(BATCH_AGE);
    }

    fn write_row(&mut self, target: &CaptureTarget, numbers: usize) {
        let bytes = vec![7; 4 * numbers];
        let shape = [numbers as i64];
        let tensors = vec![Some(TensorData { shape: &shape, elements: Elements::Fixed(&bytes) })];
        let row = CapturedRow { facts: facts(), tensors };
        self.store.write(target, &row, self.now());
    }

    fn counters(&self, endpoint: &str) -> Arc<CaptureCounters> {
        self.counters.of(endpoint)
    }

    fn folder(&self, endpoint: &str) -> std::path::PathBuf {
        self.folder.path().join("capture").join(endpoint)
    }

    /// The names of the files of an endpoint, in their order.
    fn names(&self, endpoint: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder(endpoint)).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name.contains(".arrows")).collect();
        names.sort();
        names
    }

    /// The rows in the files of an endpoint.
    fn rows(&self, endpoint: &str) -> u64 {
        self.names(endpoint).iter().map(|name| rows(&self.folder(endpoint).join(name))).sum()
    }

    fn disk_bytes(&self, endpoint: &str) -> u64 {
        let size = |name: &String| std::fs::metadata(self.folder(endpoint).join(name)).unwrap().len();
        self.names(endpoint).iter().map(size).sum()
    }
}

fn rows(path: &Path) -> u64 {
    let mut file = std::fs::File::open(path).unwrap();
    let length = file.metadata().unwrap().len();
    complete_prefix(&mut file, length).unwrap().rows
}

fn facts() -> RowFacts {
    RowFacts {
        time_us: 1_767_571_200_000_000,
        request: 3,
        revision: 4,
        unit: Some(5),
        reason: "sticky",
        rule: None,
        code: "ok",
        run_ns: Some(6),
        total_ns: 7,
    }
}

fn target(endpoint: &str, version: &str, keep: Duration, max_bytes: u64) -> CaptureTarget {
    let spec = TensorSpec {
        name: "X".into(),
        datatype: DataType::Fp32,
        shape: vec![-1],
        symbols: vec![],
        any_rank: false,
        labels: vec![],
    };
    let signature = Signature { inputs: vec![spec], ..Signature::default() };
    let identity =
        VersionIdentity { endpoint: endpoint.into(), version: version.into(), digest: "sha256:1".into() };
    let layout = Arc::new(FileLayout::new(identity, &signature, &BTreeMap::new(), &[]));
    CaptureTarget { layout, retention: Retention { keep_ms: keep.as_millis() as u64, max_bytes } }
}

#[test]
fn rows_wait_for_their_batch_and_files_are_closed_by_age() {
    let mut bench = Bench::new(u64::MAX);
    let target = target("e", "v1", 24 * HOUR, 1 << 30);
    bench.write_row(&target, 3);
    bench.write_row(&target, 3);
    assert!(bench.names("e").is_empty());
    bench.pass(BATCH_AGE);
    assert_eq!((bench.rows("e"), bench.counters("e").rows.load(Relaxed)), (2, 2));
    assert!(bench.names("e")[0].ends_with("Z-v1.arrows.open"), "{:?}", bench.names("e"));
    bench.write(&target, 3);
    assert_eq!((bench.names("e").len(), bench.rows("e")), (1, 3));
    assert!(!bench.store.is_at_rest());
    bench.pass(HOUR);
    assert_eq!(bench.names("e"), ["20260105T000000.000000Z-v1.arrows"]);
    bench.write(&target, 3);
    assert_eq!((bench.names("e").len(), bench.rows("e")), (2, 4));
    let of = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(of(&bench.folder("e")), 0o700);
    assert_eq!(of(&bench.folder("e").join(&bench.names("e")[0])), 0o600);
}

#[test]
fn a_full_batch_does_not_wait_and_each_layout_has_its_file() {
    let mut bench = Bench::new(u64::MAX);
    let (one, other) = (target("e", "v1", 24 * HOUR, 1 << 30), target("e", "v2", 24 * HOUR, 1 << 30));
    for _ in 0..1024 {
        bench.write_row(&one, 1);
    }
    bench.write_row(&other, 1);
    assert_eq!((bench.rows("e"), bench.names("e").len()), (1024, 1));
    bench.store.close(bench.now());
    assert_eq!((bench.rows("e"), bench.names("e").len()), (1025, 2));
    assert!(bench.store.is_at_rest());
    // A version is forgotten when it has been quiet.
    for version in 0..20 {
        bench.write_row(&target("e", &format!("v{version}"), 24 * HOUR, 1 << 30), 1);
    }
    assert!(bench.names("e").iter().filter(|name| name.ends_with(".open")).count() <= 8);
    bench.pass(BATCH_AGE);
    bench.pass(HOUR);
    bench.pass(HOUR);
    assert!(bench.store.is_at_rest());
    assert_eq!(bench.rows("e"), 1045);
}

#[test]
fn no_row_is_kept_longer_and_the_oldest_files_make_room() {
    let mut bench = Bench::new(u64::MAX);
    let target = target("e", "v1", 8 * HOUR, 1 << 30);
    for _ in 0..12 {
        bench.write(&target, 10);
        bench.pass(HOUR - BATCH_AGE);
        let oldest = bench.names("e")[0].clone();
        let written = oldest[9..11].parse::<u64>().unwrap();
        assert!(bench.passed - Duration::from_secs(3600 * written) < 8 * HOUR, "{oldest}");
    }
    assert_eq!(bench.counters("e").deleted.load(Relaxed), 5);
    // The rest goes as well when nothing is captured any more, also in another process.
    bench.store.close(bench.now());
    bench.reopen();
    assert_eq!(bench.names("e").len(), 7);
    bench.pass(9 * HOUR);
    assert!(bench.names("e").is_empty());
    assert_eq!(bench.counters("e").disk_bytes.load(Relaxed), 0);
}

#[test]
fn a_smaller_room_deletes_what_does_not_fit() {
    let mut bench = Bench::new(u64::MAX);
    for _ in 0..10 {
        bench.write(&target("e", "v1", 24 * HOUR, 1 << 20), 20_000);
    }
    let before = bench.rows("e");
    bench.write(&target("e", "v1", 24 * HOUR, 1 << 18), 20_000);
    assert!(bench.disk_bytes("e") <= 1 << 18, "{}", bench.disk_bytes("e"));
    assert!(bench.rows("e") < before && bench.rows("e") > 0);
    // A row that alone is larger than the room is dropped, and stops nothing.
    bench.write(&target("e", "v1", 24 * HOUR, 1 << 18), 100_000);
    let counters = bench.counters("e");
    assert_eq!((counters.dropped(DropReason::TooLarge), counters.failure()), (1, None));
    assert_eq!(counters.disk_bytes.load(Relaxed), bench.disk_bytes("e"));
}

#[test]
fn new_bounds_apply_without_a_row_and_an_older_row_does_not_bring_the_old_ones_back() {
    let mut bench = Bench::new(u64::MAX);
    let wide = target("e", "v1", 24 * HOUR, 1 << 20);
    for _ in 0..10 {
        bench.write(&wide, 20_000);
    }
    let now = bench.now();
    let narrow = Retention { max_bytes: 1 << 18, ..wide.retention };
    bench.store.set_retention("e", narrow, facts().revision + 1, now);
    assert!(bench.rows("e") > 0 && bench.disk_bytes("e") <= 1 << 18, "{}", bench.disk_bytes("e"));
    for _ in 0..10 {
        bench.write(&wide, 20_000);
        assert!(bench.disk_bytes("e") <= 1 << 18, "{}", bench.disk_bytes("e"));
    }
    let short = Retention { keep_ms: 1, ..narrow };
    bench.store.close(bench.now());
    bench.passed += Duration::from_secs(1);
    bench.store.set_retention("e", short, facts().revision + 2, bench.now());
    assert!(bench.names("e").is_empty());
    // Nothing was captured of this one.
    bench.store.set_retention("f", short, 1, bench.now());
    assert!(!bench.folder("f").exists());
}

#[test]
fn all_endpoints_together_stay_below_the_total() {
    let mut bench = Bench::new(1 << 20);
    for round in 0..40 {
        bench.write(&target(["a", "b", "c"][round % 3], "v1", 24 * HOUR, 1 << 30), 20_000);
        let total: u64 = ["a", "b", "c"].iter().map(|endpoint| bench.disk_bytes(endpoint)).sum();
        assert!(total <= 1 << 20, "{total}");
    }
    assert!(["a", "b", "c"].iter().any(|endpoint| bench.rows(endpoint) > 0));
}

#[test]
fn an_error_stops_the_endpoint_for_a_while_that_doubles() {
    let mut bench = Bench::new(u64::MAX);
    let (broken, well) = (target("e", "v1", 24 * HOUR, 1 << 30), target("f", "v1", 24 * HOUR, 1 << 30));
    std::fs::create_dir_all(bench.folder.path().join("capture")).unwrap();
    // A file stands where the folder would be.
    std::fs::write(bench.folder("e"), "").unwrap();
    bench.write_row(&broken, 1);
    let since = bench.counters("e").failure().unwrap().since;
    for (wait, errors) in [(0, 1), (999, 1), (1, 2), (1_999, 2), (1, 3), (3_999, 3), (1, 4)] {
        bench.pass(Duration::from_millis(wait));
        bench.write_row(&broken, 1);
        assert_eq!(bench.counters("e").errors.load(Relaxed), errors, "after {wait} ms");
    }
    let counters = bench.counters("e");
    assert_eq!((counters.dropped(DropReason::Failed), counters.dropped(DropReason::Stopped)), (3, 5));
    assert_eq!(counters.failure().unwrap().since, since);
    assert!(counters.failure().unwrap().reason.contains("capture/e: "), "{:?}", counters.failure());
    bench.write(&well, 1);
    assert_eq!(bench.rows("f"), 1);
    std::fs::remove_file(bench.folder("e")).unwrap();
    bench.pass(Duration::from_secs(8));
    bench.write(&broken, 1);
    assert_eq!((bench.rows("e"), bench.counters("e").failure()), (1, None));
}

#[test]
fn a_folder_that_is_removed_costs_the_rows_in_it_and_is_made_anew() {
    let mut bench = Bench::new(u64::MAX);
    let target = target("e", "v1", 24 * HOUR, 1 << 30);
    bench.write(&target, 1);
    std::fs::remove_dir_all(bench.folder("e")).unwrap();
    bench.write(&target, 1);
    let failure = bench.counters("e").failure().unwrap();
    assert!(failure.reason.contains("removed while it was written to"), "{failure:?}");
    assert_eq!(bench.counters("e").dropped(DropReason::Failed), 1);
    bench.pass(Duration::from_secs(1));
    bench.write(&target, 1);
    assert_eq!((bench.rows("e"), bench.counters("e").failure()), (1, None));
    assert!(bench.folder("e").join("retention.json").exists());
    // Files that others delete are not counted for ever.
    bench.store.close(bench.now());
    std::fs::remove_file(bench.folder("e").join(&bench.names("e")[0])).unwrap();
    bench.pass(HOUR);
    assert_eq!(bench.counters("e").disk_bytes.load(Relaxed), 0);
}

#[test]
fn what_a_crash_left_open_is_closed_and_kept() {
    let mut bench = Bench::new(u64::MAX);
    let target = target("e", "v1", 24 * HOUR, 1 << 30);
    bench.write(&target, 3);
    bench.write(&target, 3);
    bench.write_row(&target, 3);
    let open = bench.names("e")[0].clone();
    // Torn within the third batch.
    let path = bench.folder("e").join(&open);
    let complete = std::fs::read(&path).unwrap();
    std::fs::write(&path, [&complete[..], &complete[8..900]].concat()).unwrap();
    bench.reopen();
    assert_eq!(bench.names("e"), [open.strip_suffix(".open").unwrap()]);
    assert_eq!((bench.rows("e"), bench.counters("e").files.load(Relaxed)), (2, 1));
    let recovered = std::fs::read(bench.folder("e").join(&bench.names("e")[0])).unwrap();
    assert_eq!(recovered, [&complete[..], &crate::ipc::END].concat());
    assert_eq!(bench.counters("e").disk_bytes.load(Relaxed), recovered.len() as u64);
    // One without a row is removed; what is no file of ours stays.
    std::fs::write(bench.folder("e").join("20260105T000000.000001Z-v1.arrows.open"), &complete[..100])
        .unwrap();
    std::fs::write(bench.folder("e").join("notes.txt"), "").unwrap();
    bench.reopen();
    assert_eq!(bench.names("e").len(), 1);
    assert!(bench.folder("e").join("notes.txt").exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Wherever a crash cuts a file: what is recovered are its first complete batches, byte for byte.
    #[test]
    fn a_file_that_is_cut_anywhere_has_its_complete_batches(
        batches in proptest::collection::vec(1_usize..4, 1..4),
        numbers in 0_usize..20,
        cut: prop::sample::Index,
    ) {
        let mut bench = Bench::new(u64::MAX);
        let target = target("e", "v1", 24 * HOUR, 1 << 30);
        let mut ends = Vec::new();
        for &rows in &batches {
            (0..rows).for_each(|_| bench.write_row(&target, numbers));
            bench.pass(BATCH_AGE);
            ends.push((bench.disk_bytes("e") as usize, rows));
        }
        let path = bench.folder("e").join(&bench.names("e")[0]);
        let whole = std::fs::read(&path).unwrap();
        let cut = cut.index(whole.len() + 1);
        std::fs::write(&path, &whole[..cut]).unwrap();
        let complete: Vec<_> = ends.iter().filter(|(end, _)| *end <= cut).collect();
        bench.reopen();
        prop_assert_eq!(bench.rows("e"), complete.iter().map(|(_, rows)| *rows as u64).sum::<u64>());
        match complete.last() {
            None => prop_assert!(bench.names("e").is_empty()),
            Some((end, _)) => {
                let recovered = std::fs::read(bench.folder("e").join(&bench.names("e")[0])).unwrap();
                prop_assert_eq!(recovered, [&whole[..*end], &crate::ipc::END].concat());
            }
        }
    }

    /// Bytes that anybody wrote are never taken for more than they are, and nothing panics.
    #[test]
    fn any_bytes_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..400), cut in 0_usize..2000, at: prop::sample::Index) {
        let mut bench = Bench::new(u64::MAX);
        bench.write(&target("e", "v1", 24 * HOUR, 1 << 30), 3);
        let mut damaged = std::fs::read(bench.folder("e").join(&bench.names("e")[0])).unwrap();
        let begin = at.index(damaged.len());
        let end = (begin + bytes.len()).min(damaged.len());
        damaged[begin..end].copy_from_slice(&bytes[..end - begin]);
        damaged.truncate(damaged.len().saturating_sub(cut));
        for bytes in [bytes, damaged] {
            let length = bytes.len() as u64;
            let prefix = complete_prefix(&mut std::io::Cursor::new(bytes), length).unwrap();
            prop_assert!(prefix.bytes <= length);
        }
    }
}
