use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use headgate_core::tensor::Signature;
use headgate_runtime::Binding;
use proptest::prelude::*;

use super::*;
use crate::memory::resident::State as At;

const KIB: u64 = 1 << 10;

#[derive(Default)]
struct Idle(Signature);

impl Executable for Idle {
    fn signature(&self) -> &Signature {
        &self.0
    }

    fn run(&self, _: &mut Binding) -> Result<()> {
        Ok(())
    }
}

/// Models of files in a folder; what each takes is 1.5 times its file.
struct Shelf {
    folder: PathBuf,
    memory: Memory,
    made: Arc<AtomicUsize>,
    broken: Arc<AtomicBool>,
}

impl Shelf {
    fn new(name: &str, budget: u64) -> Shelf {
        let folder = std::env::temp_dir().join(format!("headgate-memory-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let memory = Memory::measured_by(|| None, Some(budget), Duration::ZERO);
        Shelf { folder, memory, made: Arc::default(), broken: Arc::default() }
    }

    fn add(&self, name: &str, bytes: u64) -> Result<Arc<Resident>> {
        let path = self.folder.join(format!("{name}.onnx"));
        std::fs::write(&path, vec![0; (bytes * 2 / 3) as usize]).unwrap();
        let (made, broken) = (self.made.clone(), self.broken.clone());
        let make = Box::new(move || -> Result<Arc<dyn Executable>> {
            made.fetch_add(1, Relaxed);
            if broken.load(Relaxed) {
                return Err(Error::new(Code::ModelLoadFailed, "the file is gone"));
            }
            Ok(Arc::new(Idle::default()))
        });
        self.memory.first(Recipe { path, make }, Need::Ordinary).map(|(resident, _)| resident)
    }

    fn bring(&self, resident: &Arc<Resident>) -> Result<Arc<dyn Executable>> {
        self.memory.bring(resident, Need::Ordinary, |_| Ok(()))
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

fn states(residents: &[&Arc<Resident>]) -> Vec<At> {
    residents.iter().map(|resident| resident.state()).collect()
}

#[test]
fn the_longest_unused_gives_way_and_comes_back() {
    let shelf = Shelf::new("lru", 30 * KIB);
    let [a, b, c] = ["a", "b", "c"].map(|name| shelf.add(name, 9 * KIB).unwrap());
    shelf.memory.note();
    drop(a.hold());
    let d = shelf.add("d", 9 * KIB).unwrap();
    assert_eq!(states(&[&a, &b, &c, &d]), [At::Warm, At::Cold, At::Warm, At::Warm]);
    assert!(b.hold().is_none());
    drop(shelf.bring(&b).unwrap());
    assert_eq!(states(&[&a, &b, &c, &d]), [At::Warm, At::Warm, At::Cold, At::Warm]);
    assert!(shelf.memory.used() <= 30 * KIB);
    assert_eq!(shelf.memory.counters.evictions.load(Relaxed), 2);
}

#[test]
fn what_was_freed_is_counted_however_it_was() {
    let shelf = Shelf::new("freed", 20 * KIB);
    let [a, b] = ["a", "b"].map(|name| shelf.add(name, 9 * KIB).unwrap());
    assert_eq!(shelf.memory.released(), 0);
    // One is swapped for another: as many are there as before.
    drop(a);
    let c = shelf.add("c", 9 * KIB).unwrap();
    assert_eq!(shelf.memory.released(), 1);
    // One gives way.
    let d = shelf.add("d", 9 * KIB).unwrap();
    assert_eq!((shelf.memory.released(), states(&[&b, &c, &d])), (2, vec![At::Cold, At::Warm, At::Warm]));
    let running = c.hold().unwrap();
    drop(shelf.bring(&b).unwrap());
    assert_eq!(shelf.memory.released(), 3);
    drop(running);
}

#[test]
fn nobody_gives_way_whose_memory_is_not_needed() {
    let shelf = Shelf::new("spare", 120 * KIB);
    let small = ["a", "b", "c"].map(|name| shelf.add(name, 3 * KIB).unwrap());
    let large = shelf.add("large", 90 * KIB).unwrap();
    let other = shelf.add("other", 60 * KIB).unwrap();
    assert_eq!(states(&[&small[0], &small[1], &small[2]]), [At::Warm; 3]);
    assert_eq!(states(&[&large, &other]), [At::Cold, At::Warm]);
}

#[test]
fn what_is_pinned_or_runs_stays() {
    let shelf = Shelf::new("pins", 20 * KIB);
    let (pinned, held) = (shelf.add("a", 9 * KIB).unwrap(), shelf.add("b", 9 * KIB).unwrap());
    let pin = pinned.pin();
    let running = held.hold().unwrap();
    let refused = shelf.add("c", 9 * KIB).err().unwrap();
    assert_eq!((refused.code, refused.retry_after.is_some()), (Code::Overloaded, true));
    assert!(refused.message.contains("--memory-budget"), "{refused}");
    assert_eq!(shelf.memory.counters.refusals.load(Relaxed), 1);
    assert_eq!(states(&[&pinned, &held]), [At::Warm; 2]);
    drop(running);
    drop(shelf.add("c", 9 * KIB).unwrap());
    assert_eq!(states(&[&pinned, &held]), [At::Warm, At::Cold]);
    drop(pin);
    drop(shelf.bring(&held).unwrap());
    drop(shelf.add("d", 18 * KIB).unwrap());
    assert_eq!(states(&[&pinned, &held]), [At::Cold; 2]);
}

#[test]
fn an_urgent_load_finds_room_where_there_is_none() {
    let shelf = Shelf::new("urgent", 12 * KIB);
    let (first, second) = (shelf.add("a", 9 * KIB).unwrap(), shelf.add("b", 9 * KIB).unwrap());
    assert_eq!(states(&[&first, &second]), [At::Cold, At::Warm]);
    let _running = second.hold().unwrap();
    assert!(shelf.bring(&first).is_err());
    drop(shelf.memory.bring(&first, Need::Urgent, |_| Ok(())).unwrap());
    assert_eq!(states(&[&first, &second]), [At::Warm; 2]);
}

#[test]
fn what_a_run_still_holds_is_not_made_twice() {
    let shelf = Shelf::new("drain", 100 * KIB);
    let model = shelf.add("a", 9 * KIB).unwrap();
    // A request that came between the choice and the deed.
    let running = model.hold().unwrap();
    assert!(model.empty().is_some());
    assert_eq!(states(&[&model]), [At::Draining]);
    assert_eq!(shelf.memory.used(), 9 * KIB);
    let again = shelf.bring(&model).unwrap();
    assert!(Arc::ptr_eq(&running, &again));
    assert_eq!(shelf.made.load(Relaxed), 1);
}

#[test]
fn a_load_that_failed_is_not_repeated_for_each_request() {
    let shelf = Shelf::new("fail", 100 * KIB);
    let model = shelf.add("a", 9 * KIB).unwrap();
    assert!(model.empty().is_some());
    shelf.broken.store(true, Relaxed);
    assert!(shelf.bring(&model).is_err());
    let again = shelf.bring(&model).err().unwrap();
    assert_eq!((&*again.message, again.retry_after.is_some()), ("the file is gone", true));
    assert_eq!((shelf.made.load(Relaxed), model.state()), (2, At::Cold));
}

#[test]
fn a_trial_that_fails_keeps_it_out() {
    let shelf = Shelf::new("trial", 100 * KIB);
    let model = shelf.add("a", 9 * KIB).unwrap();
    assert!(model.empty().is_some());
    let refuse = |_: &Arc<dyn Executable>| Err(Error::new(Code::ModelLoadFailed, "it runs no more"));
    assert!(shelf.memory.bring(&model, Need::Ordinary, refuse).is_err());
    assert!(model.hold().is_none());
}

#[test]
fn many_who_come_at_once_share_one_load() {
    let shelf = Shelf::new("flight", 100 * KIB);
    let model = shelf.add("a", 9 * KIB).unwrap();
    assert!(model.empty().is_some());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| shelf.bring(&model).map(drop).unwrap());
        }
    });
    assert_eq!(shelf.made.load(Relaxed), 2);
}

#[test]
fn a_load_waits_for_runs_to_end() {
    let mut shelf = Shelf::new("wait", 12 * KIB);
    let (first, second) = (shelf.add("a", 9 * KIB).unwrap(), shelf.add("b", 9 * KIB).unwrap());
    shelf.memory.patience = Duration::from_secs(20);
    let running = second.hold().unwrap();
    std::thread::scope(|scope| {
        let load = scope.spawn(|| shelf.bring(&first).map(drop));
        while first.state() != At::Loading {
            std::thread::yield_now();
        }
        drop(running);
        load.join().unwrap().unwrap();
    });
    assert_eq!(states(&[&first, &second]), [At::Warm, At::Cold]);
    assert_eq!(shelf.memory.counters.refusals.load(Relaxed), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_budget_holds_whatever_comes(
        steps in prop::collection::vec((0usize..6, 1u64..40, any::<bool>()), 1..60),
    ) {
        let shelf = Shelf::new("any", 60 * KIB);
        let mut residents: Vec<Arc<Resident>> = Vec::new();
        let mut held: Vec<Arc<dyn Executable>> = Vec::new();
        for (step, (which, size, hold)) in steps.into_iter().enumerate() {
            if residents.len() < 6 {
                residents.extend(shelf.add(&step.to_string(), size * KIB));
            }
            if let Some(resident) = residents.get(which) {
                match shelf.bring(resident) {
                    Ok(executable) if hold => held.push(executable),
                    _ if which == 0 => held.clear(),
                    _ => {}
                }
            }
            prop_assert!(shelf.memory.used() <= 60 * KIB);
        }
    }
}
