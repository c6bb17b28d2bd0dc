//! A model whose executable is held in memory.
//!
//! Next: `runs/lease`.

use std::ops::Deref;
use std::sync::Arc;

use super::model::Model;
use crate::compute::{Executable, ExecutableHandle};

/// A model that stays in memory for as long as this lives.
#[derive(Clone)]
pub struct LoadedModel {
    model: Arc<Model>,
    executable: ExecutableHandle,
}

impl Model {
    /// Holds the model in memory; `None` if it is out of memory.
    pub fn hold(self: &Arc<Self>) -> Option<LoadedModel> {
        Some(LoadedModel::new(self.clone(), self.resident().hold()?))
    }

    /// As [`Model::hold`], for runs that no request waits for: they do not keep the model in memory in place of others.
    pub fn hold_unmarked(self: &Arc<Self>) -> Option<LoadedModel> {
        Some(LoadedModel::new(self.clone(), self.resident().hold_unmarked()?))
    }
}

impl LoadedModel {
    /// A model with its executable.
    pub(crate) fn new(model: Arc<Model>, executable: Arc<dyn Executable>) -> LoadedModel {
        let executable = ExecutableHandle::new(executable, model.library());
        LoadedModel { model, executable }
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The model alone, which may leave memory then.
    pub(crate) fn into_model(self) -> Arc<Model> {
        self.model
    }

    /// The model, and what holds it in memory.
    pub(crate) fn into_parts(self) -> (Arc<Model>, ExecutableHandle) {
        (self.model, self.executable)
    }

    /// The executable.
    pub(crate) fn executable(&self) -> &ExecutableHandle {
        &self.executable
    }
}

impl Deref for LoadedModel {
    type Target = Model;

    fn deref(&self) -> &Model {
        &self.model
    }
}
