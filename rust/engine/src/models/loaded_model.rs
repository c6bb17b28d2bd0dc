//! A model together with what computes for it, which stays in memory.
//!
//! Next: `runs/lease`.

use std::ops::Deref;
use std::sync::Arc;

use super::model::Model;
use crate::compute::{Executable, ExecutableHandle};

/// A model that is in memory for as long as this lives.
#[derive(Clone)]
pub struct LoadedModel {
    model: Arc<Model>,
    executable: ExecutableHandle,
}

impl Model {
    /// The model with what computes, which stays in memory until this is dropped; `None` while it is out of memory.
    pub fn hold(self: &Arc<Self>) -> Option<LoadedModel> {
        Some(LoadedModel::new(self.clone(), self.resident().hold()?))
    }
}

impl LoadedModel {
    /// A model with what computes for it.
    pub(crate) fn new(model: Arc<Model>, executable: Arc<dyn Executable>) -> LoadedModel {
        let executable = ExecutableHandle::new(executable, model.library());
        LoadedModel { model, executable }
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The model alone, which may leave memory.
    pub(crate) fn into_model(self) -> Arc<Model> {
        self.model
    }

    /// What computes.
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
