use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use headgate_core::tensor::Signature;
use headgate_runtime::Binding;
use proptest::prelude::*;

use super::*;
use crate::memory::resident::Residency;

const KIB: u64 = 1 << 10;

#[derive(Default)]
struct EmptyExecutable(Signature);

impl Executable for EmptyExecutable {
    fn signature(&self) -> &Signature {
        &self.0
    }

    fn run(&self, _: &mut Binding) -> Result<()> {
        Ok(())
    }
}

/// Models of files in a folder. Each takes 1.5 times the size of its file.
struct ModelFolder {
    folder: PathBuf,
    memory: ModelMemory,
    made: Arc<AtomicUsize>,
    broken: Arc<AtomicBool>,
}

impl ModelFolder {
    fn new(name: &str, budget: u64) -> ModelFolder {
        let folder = std::env::temp_dir().join(format!("headgate-memory-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let memory = ModelMemory::with_heap_probe(|| None, Some(budget), Duration::ZERO);
        ModelFolder { folder, memory, made: Arc::default(), broken: Arc::default() }
    }

    fn add(&self, name: &str, bytes: u64) -> Result<Arc<ResidentExecutable>> {
        let path = self.folder.join(format!("{name}.onnx"));
        std::fs::write(&path, vec![0; (bytes * 2 / 3) as usize]).unwrap();
        let (made, broken) = (self.made.clone(), self.broken.clone());
        let make = Box::new(move || -> Result<Arc<dyn Executable>> {
            made.fetch_add(1, Relaxed);
            if broken.load(Relaxed) {
                return Err(Error::new(Code::ModelLoadFailed, "the file is gone"));
            }
            Ok(Arc::new(EmptyExecutable::default()))
        });
        self.memory
            .load_first(ExecutableSource { path, make }, LoadUrgency::Ordinary)
            .map(|(resident, _)| resident)
    }

    fn bring(&self, resident: &Arc<ResidentExecutable>) -> Result<Arc<dyn Executable>> {
        self.memory.reload(resident, LoadUrgency::Ordinary, |_| Ok(()))
    }
}

impl Drop for ModelFolder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

fn states(residents: &[&Arc<ResidentExecutable>]) -> Vec<Residency> {
    residents.iter().map(|resident| resident.state()).collect()
}

#[test]
fn the_longest_unused_gives_way_and_comes_back() {
    let folder = ModelFolder::new("lru", 30 * KIB);
    let [a, b, c] = ["a", "b", "c"].map(|name| folder.add(name, 9 * KIB).unwrap());
    folder.memory.note_use();
    drop(a.hold());
    let d = folder.add("d", 9 * KIB).unwrap();
    assert_eq!(
        states(&[&a, &b, &c, &d]),
        [Residency::Warm, Residency::Cold, Residency::Warm, Residency::Warm]
    );
    assert!(b.hold().is_none());
    drop(folder.bring(&b).unwrap());
    assert_eq!(
        states(&[&a, &b, &c, &d]),
        [Residency::Warm, Residency::Warm, Residency::Cold, Residency::Warm]
    );
    assert!(folder.memory.used() <= 30 * KIB);
    assert_eq!(folder.memory.counters.evictions.load(Relaxed), 2);
}

#[test]
fn what_was_freed_is_counted_however_it_was() {
    let folder = ModelFolder::new("freed", 20 * KIB);
    let [a, b] = ["a", "b"].map(|name| folder.add(name, 9 * KIB).unwrap());
    assert_eq!(folder.memory.released(), 0);
    // One is exchanged for another: as many are there as before.
    drop(a);
    let c = folder.add("c", 9 * KIB).unwrap();
    assert_eq!(folder.memory.released(), 1);
    // One is evicted.
    let d = folder.add("d", 9 * KIB).unwrap();
    assert_eq!(
        (folder.memory.released(), states(&[&b, &c, &d])),
        (2, vec![Residency::Cold, Residency::Warm, Residency::Warm])
    );
    let running = c.hold().unwrap();
    drop(folder.bring(&b).unwrap());
    assert_eq!(folder.memory.released(), 3);
    drop(running);
}

#[test]
fn nobody_gives_way_whose_memory_is_not_needed() {
    let folder = ModelFolder::new("spare", 120 * KIB);
    let small = ["a", "b", "c"].map(|name| folder.add(name, 3 * KIB).unwrap());
    let large = folder.add("large", 90 * KIB).unwrap();
    let other = folder.add("other", 60 * KIB).unwrap();
    assert_eq!(states(&[&small[0], &small[1], &small[2]]), [Residency::Warm; 3]);
    assert_eq!(states(&[&large, &other]), [Residency::Cold, Residency::Warm]);
}

#[test]
fn what_is_pinned_or_runs_stays() {
    let folder = ModelFolder::new("pins", 20 * KIB);
    let (pinned, held) = (folder.add("a", 9 * KIB).unwrap(), folder.add("b", 9 * KIB).unwrap());
    let pin = pinned.pin();
    let running = held.hold().unwrap();
    let refused = folder.add("c", 9 * KIB).err().unwrap();
    assert_eq!((refused.code, refused.retry_after.is_some()), (Code::Overloaded, true));
    assert!(refused.message.contains("--memory-budget"), "{refused}");
    assert_eq!(folder.memory.counters.refusals.load(Relaxed), 1);
    assert_eq!(states(&[&pinned, &held]), [Residency::Warm; 2]);
    drop(running);
    drop(folder.add("c", 9 * KIB).unwrap());
    assert_eq!(states(&[&pinned, &held]), [Residency::Warm, Residency::Cold]);
    drop(pin);
    drop(folder.bring(&held).unwrap());
    drop(folder.add("d", 18 * KIB).unwrap());
    assert_eq!(states(&[&pinned, &held]), [Residency::Cold; 2]);
}

#[test]
fn an_urgent_load_finds_room_where_there_is_none() {
    let folder = ModelFolder::new("urgent", 12 * KIB);
    let (first, second) = (folder.add("a", 9 * KIB).unwrap(), folder.add("b", 9 * KIB).unwrap());
    assert_eq!(states(&[&first, &second]), [Residency::Cold, Residency::Warm]);
    let _running = second.hold().unwrap();
    assert!(folder.bring(&first).is_err());
    drop(folder.memory.reload(&first, LoadUrgency::Urgent, |_| Ok(())).unwrap());
    assert_eq!(states(&[&first, &second]), [Residency::Warm; 2]);
}

#[test]
fn what_a_run_still_holds_is_not_made_twice() {
    let folder = ModelFolder::new("drain", 100 * KIB);
    let model = folder.add("a", 9 * KIB).unwrap();
    // A request takes hold of it after it was chosen.
    let running = model.hold().unwrap();
    assert!(model.evict().is_some());
    assert_eq!(states(&[&model]), [Residency::Draining]);
    assert_eq!(folder.memory.used(), 9 * KIB);
    let again = folder.bring(&model).unwrap();
    assert!(Arc::ptr_eq(&running, &again));
    assert_eq!(folder.made.load(Relaxed), 1);
}

#[test]
fn a_load_that_failed_is_not_repeated_for_each_request() {
    let folder = ModelFolder::new("fail", 100 * KIB);
    let model = folder.add("a", 9 * KIB).unwrap();
    assert!(model.evict().is_some());
    folder.broken.store(true, Relaxed);
    assert!(folder.bring(&model).is_err());
    let again = folder.bring(&model).err().unwrap();
    assert_eq!((&*again.message, again.retry_after.is_some()), ("the file is gone", true));
    assert_eq!((folder.made.load(Relaxed), model.state()), (2, Residency::Cold));
}

#[test]
fn a_trial_that_fails_keeps_it_out() {
    let folder = ModelFolder::new("trial", 100 * KIB);
    let model = folder.add("a", 9 * KIB).unwrap();
    assert!(model.evict().is_some());
    let refuse = |_: &Arc<dyn Executable>| Err(Error::new(Code::ModelLoadFailed, "it runs no more"));
    assert!(folder.memory.reload(&model, LoadUrgency::Ordinary, refuse).is_err());
    assert!(model.hold().is_none());
}

#[test]
fn many_who_come_at_once_share_one_load() {
    let folder = ModelFolder::new("flight", 100 * KIB);
    let model = folder.add("a", 9 * KIB).unwrap();
    assert!(model.evict().is_some());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| folder.bring(&model).map(drop).unwrap());
        }
    });
    assert_eq!(folder.made.load(Relaxed), 2);
}

#[test]
fn a_load_waits_for_runs_to_end() {
    let mut folder = ModelFolder::new("wait", 12 * KIB);
    let (first, second) = (folder.add("a", 9 * KIB).unwrap(), folder.add("b", 9 * KIB).unwrap());
    folder.memory.max_wait = Duration::from_secs(20);
    let running = second.hold().unwrap();
    std::thread::scope(|scope| {
        let load = scope.spawn(|| folder.bring(&first).map(drop));
        while first.state() != Residency::Loading {
            std::thread::yield_now();
        }
        drop(running);
        load.join().unwrap().unwrap();
    });
    assert_eq!(states(&[&first, &second]), [Residency::Warm, Residency::Cold]);
    assert_eq!(folder.memory.counters.refusals.load(Relaxed), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_budget_holds_whatever_comes(
        steps in prop::collection::vec((0usize..6, 1u64..40, any::<bool>()), 1..60),
    ) {
        let folder = ModelFolder::new("any", 60 * KIB);
        let mut residents: Vec<Arc<ResidentExecutable>> = Vec::new();
        let mut held: Vec<Arc<dyn Executable>> = Vec::new();
        for (step, (which, size, hold)) in steps.into_iter().enumerate() {
            if residents.len() < 6 {
                residents.extend(folder.add(&step.to_string(), size * KIB));
            }
            if let Some(resident) = residents.get(which) {
                match folder.bring(resident) {
                    Ok(executable) if hold => held.push(executable),
                    _ if which == 0 => held.clear(),
                    _ => {}
                }
            }
            prop_assert!(folder.memory.used() <= 60 * KIB);
        }
    }
}
