//! Opens shards for the threads of one version, and collects their counts.
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

/// Makes writers. All threads share it.
#[derive(Clone, Debug)]
pub struct ShardOpener {
    plan: Arc<FeaturePlan>,
    budget: Arc<SketchBudget>,
    new_shards: Arc<Mutex<NewShards>>,
}

/// Shards that the opener has made and the collector has not seen yet.
#[derive(Debug)]
struct NewShards {
    /// The shards.
    fresh: Vec<Arc<Shard>>,
    /// The memory of the sum of all shards. It is taken with the first shard.
    sum: BudgetShare,
}

impl ShardOpener {
    fn new_shards(&self) -> MutexGuard<'_, NewShards> {
        self.new_shards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A writer for the calling thread. `None` if the memory budget has no room for another shard.
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

    /// The plan of the version.
    pub fn plan(&self) -> &Arc<FeaturePlan> {
        &self.plan
    }
}

/// Collects the counts of the writers of one version.
#[derive(Debug)]
pub struct ShardCollector {
    opener: ShardOpener,
    shards: Vec<CollectedShard>,
}

/// A shard and the collector's state for it.
#[derive(Debug)]
struct CollectedShard {
    shard: Arc<Shard>,
    turn: CollectorTurn,
}

/// The result of a collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CollectionResult {
    /// Buffers that were emptied.
    pub emptied: usize,
    /// Shards whose writer was busy. The next collection takes their counts.
    pub busy: usize,
    /// Shards whose writer was dropped, and that were emptied for the last time.
    pub closed: usize,
}

impl ShardCollector {
    /// A collector without writers. [`ShardCollector::opener`] makes them.
    pub fn new(plan: Arc<FeaturePlan>, budget: Arc<SketchBudget>) -> Self {
        let new_shards = NewShards { fresh: Vec::new(), sum: BudgetShare::new(Arc::clone(&budget)) };
        Self {
            opener: ShardOpener { plan, budget, new_shards: Arc::new(Mutex::new(new_shards)) },
            shards: Vec::new(),
        }
    }

    /// The opener of writers whose counts this collector takes.
    pub fn opener(&self) -> ShardOpener {
        self.opener.clone()
    }

    /// The plan of the version.
    pub fn plan(&self) -> &Arc<FeaturePlan> {
        &self.opener.plan
    }

    /// Whether there is no writer and all counts were collected.
    pub fn is_idle(&self) -> bool {
        self.shards.is_empty() && self.opener.new_shards().fresh.is_empty()
    }

    /// Bytes of all shards.
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|collected| collected.shard.share.bytes()).sum()
    }

    /// Flips every shard, and adds the counts before the flip to `live`, which must be of the same plan. Every count is added once: in
    /// this collection, or in the next one if the writer is busy now.
    pub fn collect(&mut self, live: &mut LiveCounts) -> CollectionResult {
        let fresh = std::mem::take(&mut self.opener.new_shards().fresh);
        self.shards
            .extend(fresh.into_iter().map(|shard| CollectedShard { shard, turn: CollectorTurn::default() }));
        let mut done = CollectionResult::default();
        self.shards.retain_mut(|CollectedShard { shard, turn }| {
            // Read before the flip: a closed shard gets no more counts.
            let closed = shard.closed.load(Ordering::Acquire);
            for _ in 0..if closed { 2 } else { 1 } {
                match shard.flip.take(turn) {
                    Some(buffer) => {
                        shard.buffers[buffer].drain(&shard.plan, live);
                        done.emptied += 1;
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
