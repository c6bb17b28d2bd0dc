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
    new_shards: Arc<Mutex<NewShards>>,
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
    fn new_shards(&self) -> MutexGuard<'_, NewShards> {
        self.new_shards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A writer for the calling thread, or `None` when the memory budget does not hold another shard.
    pub fn open(&self) -> Option<ShardWriter> {
        let share = BudgetShare::new(Arc::clone(&self.budget));
        let mut new_shards = self.new_shards();
        if (new_shards.sum.bytes() == 0 && !new_shards.sum.grow(self.plan.live_bytes()))
            || !share.grow(self.plan.shard_bytes())
        {
            return None;
        }
        let shard = Arc::new(Shard {
            plan: Arc::clone(&self.plan),
            flip: EpochFlip::new(),
            buffers: [CounterBuffer::new(&self.plan), CounterBuffer::new(&self.plan)],
            share,
            closed: AtomicBool::new(false),
        });
        new_shards.fresh.push(Arc::clone(&shard));
        Some(ShardWriter { shard })
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
    shards: Vec<CollectedShard>,
}

/// A shard as its collector knows it.
#[derive(Debug)]
struct CollectedShard {
    shard: Arc<Shard>,
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
        let new_shards = NewShards { fresh: Vec::new(), sum: BudgetShare::new(Arc::clone(&budget)) };
        Self {
            opener: ShardOpener { plan, budget, new_shards: Arc::new(Mutex::new(new_shards)) },
            shards: Vec::new(),
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
        self.shards.is_empty() && self.opener.new_shards().fresh.is_empty()
    }

    /// Bytes of all shards.
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|collected| collected.shard.share.bytes()).sum()
    }

    /// Flips every shard and adds what was counted before to `live`, which must be of the same plan. Every count arrives
    /// once, in this collection or, for a writer that is busy now, in the next.
    pub fn collect(&mut self, live: &mut LiveCounts) -> CollectionResult {
        let fresh = std::mem::take(&mut self.opener.new_shards().fresh);
        self.shards
            .extend(fresh.into_iter().map(|shard| CollectedShard { shard, turn: CollectorTurn::default() }));
        let mut done = CollectionResult::default();
        self.shards.retain_mut(|CollectedShard { shard, turn }| {
            // Read first: whoever is seen to be closed has written its last.
            let closed = shard.closed.load(Ordering::Acquire);
            for _ in 0..if closed { 2 } else { 1 } {
                match shard.flip.take(turn) {
                    Some(buffer) => {
                        shard.buffers[buffer].drain(&shard.plan, live);
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
