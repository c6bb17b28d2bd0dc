//! Opening shards for the threads of one version, and collecting what they counted.
//!
//! Next: `live`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::buffer::Buffer;
use super::flip::{Flip, Turn};
use super::shared::Core;
use super::writer::Writer;
use crate::budget::{Budget, Share};
use crate::live::Live;
use crate::plan::FeaturePlan;
use crate::sync::{AtomicBool, Ordering};

/// Makes writers; shared by all threads.
#[derive(Clone, Debug)]
pub struct Opener {
    plan: Arc<FeaturePlan>,
    budget: Arc<Budget>,
    intake: Arc<Mutex<Intake>>,
}

/// What writers leave for their collector.
#[derive(Debug)]
struct Intake {
    /// Shards that it has not seen yet.
    fresh: Vec<Arc<Core>>,
    /// Memory for the sum of all shards; taken with the first of them.
    sum: Share,
}

impl Opener {
    fn intake(&self) -> MutexGuard<'_, Intake> {
        self.intake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A writer for the calling thread, or `None` when the memory budget does not hold another shard.
    pub fn open(&self) -> Option<Writer> {
        let share = Share::new(Arc::clone(&self.budget));
        let mut intake = self.intake();
        if (intake.sum.bytes() == 0 && !intake.sum.grow(self.plan.live_bytes()))
            || !share.grow(self.plan.shard_bytes())
        {
            return None;
        }
        let core = Arc::new(Core {
            plan: Arc::clone(&self.plan),
            flip: Flip::new(),
            buffers: [Buffer::new(&self.plan), Buffer::new(&self.plan)],
            share,
            closed: AtomicBool::new(false),
        });
        intake.fresh.push(Arc::clone(&core));
        Some(Writer { core })
    }

    /// What is sketched.
    pub fn plan(&self) -> &Arc<FeaturePlan> {
        &self.plan
    }
}

/// Gathers what the writers of one version counted.
#[derive(Debug)]
pub struct Collector {
    opener: Opener,
    sources: Vec<Source>,
}

/// A shard as its collector knows it.
#[derive(Debug)]
struct Source {
    core: Arc<Core>,
    turn: Turn,
}

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Buffers emptied.
    pub taken: usize,
    /// Shards whose writer was busy; their counts come with the next collection.
    pub busy: usize,
    /// Shards whose thread is gone and that were emptied for good.
    pub closed: usize,
}

impl Collector {
    /// A collector without writers; they come from its [`Collector::opener`].
    pub fn new(plan: Arc<FeaturePlan>, budget: Arc<Budget>) -> Self {
        let intake = Intake { fresh: Vec::new(), sum: Share::new(Arc::clone(&budget)) };
        Self { opener: Opener { plan, budget, intake: Arc::new(Mutex::new(intake)) }, sources: Vec::new() }
    }

    /// Makes writers whose counts arrive here.
    pub fn opener(&self) -> Opener {
        self.opener.clone()
    }

    /// What is sketched.
    pub fn plan(&self) -> &Arc<FeaturePlan> {
        &self.opener.plan
    }

    /// Whether nobody writes and everything was collected.
    pub fn is_idle(&self) -> bool {
        self.sources.is_empty() && self.opener.intake().fresh.is_empty()
    }

    /// Bytes of all shards.
    pub fn bytes(&self) -> usize {
        self.sources.iter().map(|source| source.core.share.bytes()).sum()
    }

    /// Flips every shard and adds what was counted before to `live`, which must be of the same plan. Every count arrives
    /// once, in this collection or, for a writer that is busy now, in the next.
    pub fn collect(&mut self, live: &mut Live) -> Collected {
        let fresh = std::mem::take(&mut self.opener.intake().fresh);
        self.sources.extend(fresh.into_iter().map(|core| Source { core, turn: Turn::default() }));
        let mut done = Collected::default();
        self.sources.retain_mut(|Source { core, turn }| {
            // Read first: whoever is seen to be closed has written its last.
            let closed = core.closed.load(Ordering::Acquire);
            for _ in 0..if closed { 2 } else { 1 } {
                match core.flip.take(turn) {
                    Some(buffer) => {
                        core.buffers[buffer].drain(&core.plan, live);
                        done.taken += 1;
                    }
                    None => done.busy += 1,
                }
            }
            done.closed += usize::from(closed);
            !closed
        });
        done
    }
}
