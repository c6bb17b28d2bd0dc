//! A loaded model: one session shared by all threads, its signature, and the names as C strings.
//!
//! Next: `binding`, one run's inputs and outputs.

use std::ffi::{CString, c_char};
use std::path::Path;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

use headgate_core::error::{Code, Error, Result};
use headgate_core::spec::GraphOptimization;
use headgate_core::tensor::{Signature, TensorSpec};
use ort_sys::{GraphOptimizationLevel, OrtSession, OrtSessionOptions, OrtValue};

use crate::api::Api;
use crate::cancel;
use crate::device::driver::{Driver, DriverHandle};
use crate::library::{Library, c_path};
use crate::shape_rule::OutputRules;
use crate::signature::{DeclaredSignature, check, not_offered};
use crate::trap::{self, SessionThreads};
use crate::zipmap::{self, RewrittenModel};

/// How a session computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionOptions {
    /// Threads inside one run. With 1 the runtime makes no thread, and outputs do not depend on the batch.
    pub intra_threads: u16,
    /// Whether an arena keeps memory between runs. Threads that share a session wait for its lock at every allocation.
    pub arena: bool,
    /// How much the runtime optimizes the graph.
    pub graph_optimization: GraphOptimization,
    /// The most memory of the device, in bytes. 0 is no limit.
    pub device_memory: u64,
}

/// The device that computes in place of the CPU.
pub(crate) struct DeviceProvider<'a> {
    /// The device's driver.
    pub(crate) driver: &'a dyn Driver,
    /// The stream to compute in. It outlives the session.
    pub(crate) stream: DriverHandle,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self { intra_threads: 1, arena: false, graph_optimization: GraphOptimization::All, device_memory: 0 }
    }
}

/// A model in memory. Any number of threads may run it at the same time: ONNX Runtime guarantees it for the CPU provider.
pub struct Session {
    pub(crate) library: &'static Library,
    raw: NonNull<OrtSession>,
    signature: Signature,
    remark: Option<String>,
    pub(crate) input_names: TensorNames,
    pub(crate) optional_names: TensorNames,
    pub(crate) output_names: TensorNames,
    pub(crate) rules: Arc<OutputRules>,
    pub(crate) threads: SessionThreads,
}

// SAFETY: `InferenceSession::Run` is guaranteed to be thread-safe; nothing else is called after creation.
unsafe impl Send for Session {}
// SAFETY: as above.
unsafe impl Sync for Session {}

impl Session {
    /// Loads a model file.
    ///
    /// # Errors
    /// `model_load_failed` saying what is wrong with the file: not there, not a model, an unsupported operator, an input or
    /// output that is not a tensor.
    pub fn load(library: &'static Library, path: &Path, options: SessionOptions) -> Result<Session> {
        Session::load_with(library, path, options, None)
    }

    /// Loads a model file for the CPU or for another provider. A model that ends in ZipMap is loaded without it.
    pub(crate) fn load_with(
        library: &'static Library,
        path: &Path,
        session_options: SessionOptions,
        provider: Option<&DeviceProvider<'_>>,
    ) -> Result<Session> {
        let mut session = Session::create(library, path, None, session_options, provider)?;
        let Err(error) = session.describe() else { return Ok(session) };
        drop(session);
        // The file is read a second time only if the signature cannot be served.
        let unzipped = std::fs::read(path).ok().and_then(|model| zipmap::remove_zipmaps(&model));
        let RewrittenModel { model, labels } = unzipped.ok_or_else(|| load_error(path, &error))?;
        let mut session = Session::create(library, path, Some(&model), session_options, provider)?;
        session.describe().map_err(|error| load_error(path, &error))?;
        for output in &mut session.signature.outputs {
            output.labels = labels.get(&output.name).cloned().unwrap_or_default();
        }
        Ok(session)
    }

    /// A session of a model file, or of the bytes in `model`.
    fn create(
        library: &'static Library,
        path: &Path,
        model: Option<&[u8]>,
        session_options: SessionOptions,
        provider: Option<&DeviceProvider<'_>>,
    ) -> Result<Session> {
        let file = c_path(path)?;
        let threads = SessionThreads::new(session_options.intra_threads);
        let options = OwnedSessionOptions::new(library.api, session_options, &threads)?;
        if let Some(DeviceProvider { driver, stream }) = provider {
            driver.add_provider(library, options.raw, *stream, session_options.device_memory)?;
        }
        if model.is_some() {
            options.set_external_data_folder(path.parent().unwrap_or(path))?;
        }
        library.guard();
        let mut raw = null_mut();
        let create = || {
            let (environment, options) = (library.env.as_ptr(), options.raw.as_ptr());
            // SAFETY: environment, path, bytes and options are live; the out-pointer is valid. The bytes are copied.
            let status = unsafe {
                match model {
                    None => (library.api.CreateSession)(environment, file.as_ptr(), options, &mut raw),
                    Some(model) => {
                        let (bytes, length) = (model.as_ptr().cast(), model.len());
                        (library.api.CreateSessionFromArray)(environment, bytes, length, options, &mut raw)
                    }
                }
            };
            library.api.check(status, Code::ModelLoadFailed)
        };
        let created = threads.call_guarded(|| cancel::load(library.api, options.raw, create));
        let created = created.map_err(|error| load_error(path, &error));
        let Some(raw) = NonNull::new(raw) else {
            return Err(created
                .err()
                .unwrap_or_else(|| Error::new(Code::ModelLoadFailed, "no session was made")));
        };
        // From here on the session is released by Drop, whatever fails.
        let session = Session {
            library,
            raw,
            signature: Signature::default(),
            remark: None,
            input_names: TensorNames::default(),
            optional_names: TensorNames::default(),
            output_names: TensorNames::default(),
            rules: Arc::default(),
            threads,
        };
        // Constants are computed at load, so that there may be a session although the load failed.
        created?;
        Ok(session)
    }

    /// The model's inputs and outputs.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// A note about optional inputs that the model declares and the session does not offer.
    pub fn remark(&self) -> Option<&str> {
        self.remark.as_deref()
    }

    /// Removes the optional inputs, and notes the reason.
    pub(crate) fn withhold_optional_inputs(&mut self, reason: &str) {
        let withheld = std::mem::take(&mut self.signature.optional_inputs);
        if !withheld.is_empty() {
            self.remark = Some(not_offered(
                withheld.iter().map(|spec| format!("{:?} ({reason})", spec.name)).collect(),
            ));
        }
    }

    fn describe(&mut self) -> Result<()> {
        // SAFETY: a live session.
        let declared = unsafe { DeclaredSignature::read(self.library.api, self.raw.as_ptr())? };
        check(&declared.signature)?;
        self.signature = declared.signature;
        self.remark =
            (!declared.unsupported_inputs.is_empty()).then(|| not_offered(declared.unsupported_inputs));
        self.input_names = TensorNames::of(&self.signature.inputs)?;
        self.optional_names = TensorNames::of(&self.signature.optional_inputs)?;
        self.output_names = TensorNames::of(&self.signature.outputs)?;
        self.rules = Arc::new(OutputRules::derive(&self.signature, &declared.replaceable));
        Ok(())
    }

    /// The session itself, for a binding's run.
    pub(crate) fn raw(&self) -> *mut OrtSession {
        self.raw.as_ptr()
    }

    /// One call into the runtime. There may be outputs although the call fails.
    ///
    /// # Safety
    /// `inputs` are live values of the inputs with these names, which are all inputs of the session; `outputs` are null or live
    /// values in the signature's order; no other code touches any of them during the call.
    pub(crate) unsafe fn run(
        &self,
        names: &[*const c_char],
        inputs: &[*const OrtValue],
        outputs: &mut [*mut OrtValue],
    ) -> Result<()> {
        debug_assert_eq!((inputs.len(), outputs.len()), (names.len(), self.output_names.len()));
        let run = |options| {
            // SAFETY: the caller guarantees it; names are NUL-terminated and live as long as the session; the options are the thread's.
            let status = unsafe {
                (self.library.api.Run)(
                    self.raw.as_ptr(),
                    options,
                    names.as_ptr(),
                    inputs.as_ptr(),
                    inputs.len(),
                    self.output_names.as_ptr(),
                    outputs.len(),
                    outputs.as_mut_ptr(),
                )
            };
            self.library.api.check(status, Code::BackendFailed)
        };
        self.threads.call_guarded(|| cancel::run(self.library.api, run))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: created by CreateSession, released once; runs borrow the session, so none is in progress.
        unsafe { (self.library.api.ReleaseSession)(self.raw.as_ptr()) }
    }
}

/// The error of a load. The runtime's message is about files and nodes, so that a hint for the operator comes first.
fn load_error(path: &Path, error: &Error) -> Error {
    if error.code == Code::Cancelled {
        return error.clone();
    }
    let words = error.message.as_ref();
    let hint =
        if words.contains("Protobuf parsing failed") || words.contains("ModelProto does not have a graph") {
            "is not an ONNX model: "
        } else if ["No Op registered", "is not a registered function/op", "Could not find an implementation"]
            .iter()
            .any(|text| words.contains(text))
        {
            "uses an operator that this ONNX Runtime does not have: "
        } else if words.contains("doesn't exist") {
            "cannot be read: "
        } else {
            ""
        };
    Error::new(Code::ModelLoadFailed, format!("{}: {hint}{words}", path.display()))
}

/// The least severity that the runtime logs, of 0 to 4.
const FATAL: i32 = 4;

/// Session options, released after use.
struct OwnedSessionOptions {
    api: Api,
    raw: NonNull<OrtSessionOptions>,
}

impl OwnedSessionOptions {
    fn new(api: Api, session_options: SessionOptions, threads: &SessionThreads) -> Result<Self> {
        let mut raw = null_mut();
        // SAFETY: the out-pointer is valid.
        api.check(unsafe { (api.CreateSessionOptions)(&mut raw) }, Code::ModelLoadFailed)?;
        let raw = NonNull::new(raw).ok_or_else(|| Error::new(Code::ModelLoadFailed, "no session options"))?;
        let options = OwnedSessionOptions { api, raw };
        // SAFETY: live options in every call below.
        unsafe {
            let set = |status| api.check(status, Code::ModelLoadFailed);
            set((api.SetIntraOpNumThreads)(raw.as_ptr(), i32::from(session_options.intra_threads)))?;
            set((api.SetInterOpNumThreads)(raw.as_ptr(), 1))?;
            // A failed run returns its error. It is not logged too, or clients could fill the log.
            set((api.SetSessionLogSeverityLevel)(raw.as_ptr(), FATAL))?;
            set((api.SetSessionGraphOptimizationLevel)(
                raw.as_ptr(),
                match session_options.graph_optimization {
                    GraphOptimization::All => GraphOptimizationLevel::ORT_ENABLE_ALL,
                    GraphOptimization::Extended => GraphOptimizationLevel::ORT_ENABLE_EXTENDED,
                    GraphOptimization::Basic => GraphOptimizationLevel::ORT_ENABLE_BASIC,
                    GraphOptimization::Off => GraphOptimizationLevel::ORT_DISABLE_ALL,
                },
            ))?;
            if let Some(creation) = threads.creation_options() {
                set((api.SessionOptionsSetCustomCreateThreadFn)(raw.as_ptr(), Some(trap::create_thread)))?;
                set((api.SessionOptionsSetCustomThreadCreationOptions)(raw.as_ptr(), creation))?;
                set((api.SessionOptionsSetCustomJoinThreadFn)(raw.as_ptr(), Some(trap::join_thread)))?;
            }
            if !session_options.arena {
                set((api.DisableCpuMemArena)(raw.as_ptr()))?;
            }
            for key in [c"session.intra_op.allow_spinning", c"session.inter_op.allow_spinning"] {
                set((api.AddSessionConfigEntry)(raw.as_ptr(), key.as_ptr(), c"0".as_ptr()))?;
            }
        }
        Ok(options)
    }
}

impl OwnedSessionOptions {
    /// Sets the folder of external weights, for a model that is loaded from bytes.
    fn set_external_data_folder(&self, folder: &Path) -> Result<()> {
        let (key, folder) = (c"session.model_external_initializers_file_folder_path", c_path(folder)?);
        // SAFETY: live options and C strings.
        let status =
            unsafe { (self.api.AddSessionConfigEntry)(self.raw.as_ptr(), key.as_ptr(), folder.as_ptr()) };
        self.api.check(status, Code::ModelLoadFailed)
    }
}

impl Drop for OwnedSessionOptions {
    fn drop(&mut self) {
        // SAFETY: created above, released once.
        unsafe { (self.api.ReleaseSessionOptions)(self.raw.as_ptr()) }
    }
}

/// Tensor names as C strings.
#[derive(Default)]
pub(crate) struct TensorNames {
    pointers: Vec<*const c_char>,
    _owned: Vec<CString>,
}

impl TensorNames {
    fn of(specs: &[TensorSpec]) -> Result<Self> {
        let owned = specs
            .iter()
            .map(|spec| CString::new(spec.name.as_str()))
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|_| Error::new(Code::ModelLoadFailed, "a tensor's name has a NUL byte in it"))?;
        Ok(Self { pointers: owned.iter().map(|name| name.as_ptr()).collect(), _owned: owned })
    }

    /// The name at this index of the signature.
    pub(crate) fn get(&self, index: usize) -> *const c_char {
        self.pointers[index]
    }

    /// All names.
    pub(crate) fn all(&self) -> &[*const c_char] {
        &self.pointers
    }

    fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }

    fn len(&self) -> usize {
        self.pointers.len()
    }
}
