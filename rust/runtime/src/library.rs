//! The ONNX Runtime library: opened once per process, never closed, with telemetry switched off before it initialises.
//!
//! Next: `session`.

use std::collections::HashMap;
use std::ffi::{CString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::{NonNull, null_mut};
use std::sync::{Mutex, OnceLock, PoisonError};

use headgate_core::error::{Code, Error, Result};
use libloading::os::unix::{Library as SharedObject, RTLD_LOCAL, RTLD_NOW};
use ort_sys::{OrtAllocatorType, OrtApiBase, OrtEnv, OrtLoggingLevel, OrtMemType, OrtMemoryInfo};

use crate::api::{Api, copy_c_string};
use crate::trap;

/// The oldest API level that has what this crate calls; ONNX Runtime 1.24 is the first release with it.
pub const API_LEVEL: u32 = 24;

/// An opened library with its environment. There is one for each path, and it lives as long as the process: ONNX Runtime cannot
/// be unloaded.
pub struct Library {
    pub(crate) api: Api,
    pub(crate) env: NonNull<OrtEnv>,
    pub(crate) cpu: NonNull<OrtMemoryInfo>,
    path: PathBuf,
    version: String,
    /// The address of a function of it.
    entry: usize,
}

// SAFETY: the environment and the memory description are documented as usable from any thread, and never freed.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    /// Opens the library at `path`, or returns the one opened before.
    ///
    /// # Errors
    /// `model_load_failed`: no such file, not an ONNX Runtime library, or one older than API level 24.
    pub fn open(path: &Path) -> Result<&'static Library> {
        static OPENED: OnceLock<Mutex<HashMap<PathBuf, &'static Library>>> = OnceLock::new();
        let mut opened = OPENED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = opened.get(path) {
            return Ok(library);
        }
        let library: &'static Library = Box::leak(Box::new(load(path)?));
        opened.insert(path.to_owned(), library);
        Ok(library)
    }

    /// The library's own version, such as `1.32.0`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The file it was opened from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Guards integer divisions in the library and in those of its providers: a division that traps fails its run, and does not
    /// end the process.
    pub(crate) fn guard(&self) {
        trap::guard(self.entry);
    }

    /// The execution providers that the library was built with.
    ///
    /// # Errors
    /// `internal` if the library fails to list them.
    pub fn providers(&self) -> Result<Vec<String>> {
        let mut names: *mut *mut c_char = null_mut();
        let mut count: c_int = 0;
        // SAFETY: both out-pointers are valid; the array is released below with its own length.
        let status = unsafe { (self.api.GetAvailableProviders)(&mut names, &mut count) };
        self.api.check(status, Code::Internal)?;
        // SAFETY: the library wrote `count` C strings.
        let providers = (0..count as usize).map(|i| unsafe { copy_c_string(*names.add(i)) }).collect();
        // SAFETY: the pair came from GetAvailableProviders.
        self.api.check(unsafe { (self.api.ReleaseAvailableProviders)(names, count) }, Code::Internal)?;
        Ok(providers)
    }
}

fn load(path: &Path) -> Result<Library> {
    let failed = |what: &str| Error::new(Code::ModelLoadFailed, format!("{}: {what}", path.display()));
    if !path.is_file() {
        return Err(failed("no ONNX Runtime library there; pip install \"headgate[cpu]\" brings one"));
    }
    silence_telemetry();
    // SAFETY: the file is the ONNX Runtime library that the installed wheel names; its initialisers have no preconditions.
    // RTLD_LOCAL keeps it apart from a second copy that Python may load.
    let handle = unsafe { SharedObject::open(Some(path), RTLD_NOW | RTLD_LOCAL) }
        .map_err(|error| failed(&format!("cannot be opened: {error}")))?;
    // SAFETY: the symbol has this type in every release of ONNX Runtime.
    let entry = unsafe { handle.get::<unsafe extern "C" fn() -> *const OrtApiBase>(b"OrtGetApiBase\0") }
        .map(|symbol| *symbol)
        .map_err(|_| failed("is not an ONNX Runtime library: it has no OrtGetApiBase"))?;
    std::mem::forget(handle);
    // SAFETY: OrtGetApiBase returns a static table, or null.
    let base = unsafe { entry().as_ref() }.ok_or_else(|| failed("gave no API table"))?;
    // SAFETY: returns a static C string.
    let version = unsafe { copy_c_string((base.GetVersionString)()) };
    // SAFETY: returns a static table of at least that level, or null.
    let table = unsafe { (base.GetApi)(API_LEVEL).as_ref() }.ok_or_else(|| {
        failed(&format!(
            "is ONNX Runtime {version}; Headgate needs 1.{API_LEVEL} or newer: pip install --upgrade onnxruntime"
        ))
    })?;
    let api = Api::new(table);
    let entry = entry as *const () as usize;
    trap::guard(entry);
    Ok(Library { api, env: environment(api)?, cpu: cpu_memory(api)?, path: path.to_owned(), version, entry })
}

/// Switches telemetry off. From 1.29 on the wheels send usage reports unless this variable is set before the library
/// initialises.
fn silence_telemetry() {
    // SAFETY: both are C strings. glibc never frees old environment strings, so that a concurrent getenv stays valid; the Python
    // package sets the same value at import.
    unsafe {
        libc::setenv(c"ORT_DISABLE_TELEMETRY".as_ptr(), c"1".as_ptr(), 1);
    }
}

fn environment(api: Api) -> Result<NonNull<OrtEnv>> {
    let mut env = null_mut();
    // SAFETY: the name is a C string and the out-pointer valid.
    let status =
        unsafe { (api.CreateEnv)(OrtLoggingLevel::ORT_LOGGING_LEVEL_ERROR, c"headgate".as_ptr(), &mut env) };
    api.check(status, Code::ModelLoadFailed)?;
    NonNull::new(env).ok_or_else(|| Error::new(Code::ModelLoadFailed, "ONNX Runtime gave no environment"))
}

fn cpu_memory(api: Api) -> Result<NonNull<OrtMemoryInfo>> {
    let mut info = null_mut();
    // SAFETY: the out-pointer is valid.
    let status = unsafe {
        (api.CreateCpuMemoryInfo)(
            OrtAllocatorType::OrtDeviceAllocator,
            OrtMemType::OrtMemTypeDefault,
            &mut info,
        )
    };
    api.check(status, Code::ModelLoadFailed)?;
    NonNull::new(info).ok_or_else(|| Error::new(Code::ModelLoadFailed, "ONNX Runtime gave no CPU memory"))
}

/// A path as a C string.
pub(crate) fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::new(Code::ModelLoadFailed, format!("{path:?} has a NUL byte in it")))
}
