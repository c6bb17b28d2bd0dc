//! What goes wrong beside a full disk: files that cannot be closed or deleted, panics, wrong clocks.

use super::*;

#[test]
fn files_that_cannot_be_closed_are_counted_and_deleted_like_the_others() {
    let mut bench = Bench::new(u64::MAX);
    let target = target("e", "v1", 8 * HOUR, 1 << 30);
    bench.write(&target, 3);
    // A directory has the name that the file would get.
    let open = bench.names("e")[0].clone();
    let taken = bench.folder("e").join(open.strip_suffix(".open").unwrap());
    std::fs::create_dir(&taken).unwrap();
    bench.pass(2 * HOUR);
    assert!(bench.counters("e").failure().is_some() && bench.folder("e").join(&open).exists());
    let on_disk =
        || (bench.counters("e").disk_files.load(Relaxed), bench.counters("e").disk_bytes.load(Relaxed));
    let size = std::fs::metadata(bench.folder("e").join(&open)).unwrap().len();
    assert_eq!(on_disk(), (1, size));
    // Also after the next listing, and in another process, whose recovery fails as well.
    bench.pass(Duration::from_secs(60));
    assert_eq!(bench.counters("e").disk_files.load(Relaxed), 1);
    bench.reopen();
    bench.pass(Duration::from_secs(60));
    assert_eq!(bench.counters("e").disk_bytes.load(Relaxed), size);
    bench.pass(6 * HOUR);
    assert!(!bench.folder("e").join(&open).exists());
    assert_eq!(bench.counters("e").disk_files.load(Relaxed), 0);
}

#[test]
fn a_file_that_cannot_be_deleted_stops_its_endpoint_and_the_others_stay_below_the_total() {
    let mut bench = Bench::new(1 << 20);
    bench.write(&target("a", "v1", 24 * HOUR, 1 << 30), 100_000);
    bench.store.close(bench.now());
    // Directories cannot be removed as files.
    let oldest = bench.folder("a").join(&bench.names("a")[0]);
    std::fs::remove_file(&oldest).unwrap();
    std::fs::create_dir(&oldest).unwrap();
    for _ in 0..5 {
        bench.write(&target("b", "v1", 24 * HOUR, 1 << 30), 100_000);
        assert!(bench.disk_bytes("b") <= 1 << 20, "{}", bench.disk_bytes("b"));
    }
    assert!(bench.counters("a").failure().is_some());
    assert_eq!((bench.counters("b").failure(), bench.counters("b").rows.load(Relaxed)), (None, 5));
}

#[test]
fn a_panic_costs_what_waits_and_stops_its_endpoint_alone() {
    let mut bench = Bench::new(u64::MAX);
    let (broken, well) = (target("e", "v1", 24 * HOUR, 1 << 30), target("f", "v1", 24 * HOUR, 1 << 30));
    bench.write(&broken, 1);
    bench.write_row(&broken, 1);
    bench.store.on_endpoint("e", bench.now(), |_| panic!("a defect"));
    let counters = bench.counters("e");
    assert!(counters.failure().unwrap().reason.contains("panicked"), "{:?}", counters.failure());
    assert_eq!(counters.dropped(DropReason::Failed), 1);
    bench.write_row(&broken, 1);
    bench.write(&well, 1);
    assert_eq!((bench.rows("f"), bench.counters("f").failure()), (1, None));
    // The file that was open is counted, and the endpoint goes on.
    assert_eq!(counters.disk_bytes.load(Relaxed), bench.disk_bytes("e"));
    bench.write(&broken, 1);
    assert_eq!((bench.rows("e"), counters.failure()), (2, None));
}

#[test]
fn a_panic_while_a_new_endpoint_is_opened_stops_it() {
    let mut bench = Bench::new(u64::MAX);
    bench.store.on_endpoint("e", bench.begun, |_| panic!("a defect"));
    assert!(bench.counters("e").failure().is_some());
    bench.pass(Duration::from_secs(1));
    bench.write(&target("e", "v1", 24 * HOUR, 1 << 30), 1);
    assert_eq!((bench.rows("e"), bench.counters("e").failure()), (1, None));
}

#[test]
fn a_file_from_the_future_goes_as_if_it_was_captured_when_it_was_first_seen() {
    let mut bench = Bench::new(u64::MAX);
    let target = target("e", "v1", 8 * HOUR, 1 << 30);
    bench.write(&target, 1);
    bench.store.close(bench.now());
    let (name, future) = (bench.names("e")[0].clone(), "20270105T000000.000000Z-v1.arrows");
    std::fs::rename(bench.folder("e").join(name), bench.folder("e").join(future)).unwrap();
    bench.reopen();
    for hours in 0..12 {
        bench.write(&target, 1);
        assert_eq!(bench.names("e").contains(&future.to_owned()), hours < 8, "after {hours} h");
        bench.pass(HOUR - BATCH_AGE);
    }
}

#[test]
fn a_clock_before_1970_costs_no_row() {
    let mut bench = Bench::new(u64::MAX);
    bench.begun.wall = SystemTime::UNIX_EPOCH - 24 * HOUR;
    bench.write(&target("e", "v1", 8 * HOUR, 1 << 30), 1);
    assert_eq!((bench.rows("e"), bench.counters("e").failure()), (1, None));
    assert_eq!(bench.names("e"), ["19700101T000000.000000Z-v1.arrows.open"]);
}
