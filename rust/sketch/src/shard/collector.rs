//! Opening shards for the threads of one version, and collecting what they counted.
//!
//! Next: `live`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::buffer::CounterBuffer;
use super::flip::{CollectorTurn, EpochFlip};
use super::shared::Shard;
use super::writer::ShardWriter;
use crate::budget::{BudgetShare, SketchBudget};
use crate::live::LiveCounts;
use crate::plan::FeaturePlan;
use crate::sync::{AtomicBool, Ordering};

/// Makes writers; shared by all threads.
#[derive(Clone, Debug)]
pub struct ShardOpener {
    plan: Arc<FeaturePlan>,
    budget: Arc<SketchBudget>,
    intake: Arc<Mutex<NewShards>>,
}

/// What writers leave for their collector.
#[derive(Debug)]
struct NewShards {
    /// Shards that it has not seen yet.
    fresh: Vec<Arc<Shard>>,
    /// Memory for the sum of all shards; taken with the first of them.
    sum: BudgetShare,
}

impl ShardOpener {
    fn intake(&self) -> MutexGuard<'_, NewShards> {
        self.intake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A writer for the calling thread, or `None` when the memory budget does not hold another shard.
    pub fn open(&self) -> Option<ShardWriter> {
        let share = BudgetShare::new(Arc::clone(&self.budget));
        let mut intake = self.intake();
        if (intake.sum.bytes() == 0 && !intake.sum.grow(self.plan.live_bytes()))
            || !share.grow(self.plan.shard_bytes())
        {
            return None;
        }
        let core = Arc::new(Shard {
            plan: Arc::clone(&self.plan),
            flip: EpochFlip::new(),
            buffers: [CounterBuffer::new(&self.plan), CounterBuffer::new(&self.plan)],
            share,
            closed: AtomicBool::new(false),
        });
        intake.fresh.push(Arc::clone(&core));
        Some(ShardWriter { core })
    }

    /// What is sketched.
    pub fn plan(&self) -> &Arc<FeaturePlan> {
        &self.plan
    }
}

/// Gathers what the writers of one version counted.
#[derive(Debug)]
pub struct ShardCollector {
    opener: ShardOpener,
    sources: Vec<CollectedShard>,
}

/// A shard as its collector knows it.
#[derive(Debug)]
struct CollectedShard {
    core: Arc<Shard>,
    turn: CollectorTurn,
}

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CollectionResult {
    /// Buffers emptied.
    pub taken: usize,
    /// Shards whose writer was busy; their counts come with the next collection.
    pub busy: usize,
    /// Shards whose thread is gone and that were emptied for good.
    pub closed: usize,
}

impl ShardCollector {
    /// A collector without writers; they come from its [`ShardCollector::opener`].
    pub fn new(plan: Arc<FeaturePlan>, budget: Arc<SketchBudget>) -> Self {
        let intake = NewShards { fresh: Vec::new(), sum: BudgetShare::new(Arc::clone(&budget)) };
        Self {
            opener: ShardOpener { plan, budget, intake: Arc::new(Mutex::new(intake)) },
            sources: Vec::new(),
        }
    }

    /// Makes writers whose counts arrive here.
    pub fn opener(&self) -> ShardOpener {
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
    pub fn collect(&mut self, live: &mut LiveCounts) -> CollectionResult {
        let fresh = std::mem::take(&mut self.opener.intake().fresh);
        self.sources
            .extend(fresh.into_iter().map(|core| CollectedShard { core, turn: CollectorTurn::default() }));
        let mut done = CollectionResult::default();
        self.sources.retain_mut(|CollectedShard { core, turn }| {
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
