//! NVIDIA's driver.
//!
//! The functions are those of the driver's stable C interface (docs.nvidia.com/cuda/cuda-driver-api). A stream of the driver is a
//! stream of the runtime API, which the provider takes.
//!
//! The provider's own libraries (cuBLAS, cuDNN, ...) are in wheels, in folders that the loader does not search. So they are opened
//! first, with global symbols.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::PathBuf;
use std::ptr::{NonNull, null, null_mut};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use headgate_core::error::{Code, Error, Result};
use libloading::os::unix::{Library as SharedObject, RTLD_GLOBAL, RTLD_LAZY, RTLD_LOCAL, RTLD_NOW};
use ort_sys::OrtSessionOptions;

use super::driver::{Driver, DriverHandle};
use super::provider;
use crate::api::copy_c_string;
use crate::library::Library;

/// The driver's library.
const DRIVER: &str = "libcuda.so.1";
/// `CU_STREAM_NON_BLOCKING`: the stream does not wait for the default one.
const NON_BLOCKING: c_uint = 1;
/// `CU_EVENT_BLOCKING_SYNC` and `CU_EVENT_DISABLE_TIMING`: a thread that waits for the event sleeps.
const BLOCKING_WITHOUT_TIMING: c_uint = 1 | 2;
/// How long a thread polls an event before it sleeps. Waking up takes about as long.
const SPIN_TIME: Duration = Duration::from_micros(50);
/// `CUDA_ERROR_OUT_OF_MEMORY` and `CUDA_ERROR_NOT_READY`.
const OUT_OF_MEMORY: CudaStatus = 2;
const NOT_READY: CudaStatus = 600;
/// Errors after which the process cannot use the device again: those of a kernel, of the hardware, and unknown ones.
const FATAL_STATUSES: [CudaStatus; 13] = [214, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 999];
/// `CU_MEMHOSTALLOC_PORTABLE`: pinned for every context.
const PORTABLE: c_uint = 1;

type CudaStatus = c_int;
type CudaPointer = u64;
type CudaObject = *mut c_void;

macro_rules! functions {
    ($($field:ident = $symbol:literal ($($argument:ty),*);)+) => {
        /// The driver's functions, by the names of its header.
        struct CudaFunctions { $($field: unsafe extern "C" fn($($argument),*) -> CudaStatus,)+ }

        impl CudaFunctions {
            fn of(handle: &SharedObject) -> std::result::Result<CudaFunctions, libloading::Error> {
                // SAFETY: each symbol has this type since CUDA 11.
                Ok(CudaFunctions { $($field: *unsafe { handle.get(concat!($symbol, "\0").as_bytes()) }?,)+ })
            }
        }
    };
}

functions! {
    init = "cuInit" (c_uint);
    count = "cuDeviceGetCount" (*mut c_int);
    device = "cuDeviceGet" (*mut c_int, c_int);
    uuid = "cuDeviceGetUuid_v2" (*mut [u8; 16], c_int);
    retain = "cuDevicePrimaryCtxRetain" (*mut CudaObject, c_int);
    enter = "cuCtxSetCurrent" (CudaObject);
    stream = "cuStreamCreate" (*mut CudaObject, c_uint);
    end_stream = "cuStreamDestroy_v2" (CudaObject);
    wait = "cuStreamWaitEvent" (CudaObject, CudaObject, c_uint);
    event = "cuEventCreate" (*mut CudaObject, c_uint);
    end_event = "cuEventDestroy_v2" (CudaObject);
    record = "cuEventRecord" (CudaObject, CudaObject);
    query = "cuEventQuery" (CudaObject);
    synchronize = "cuEventSynchronize" (CudaObject);
    allocate = "cuMemAlloc_v2" (*mut CudaPointer, usize);
    free = "cuMemFree_v2" (CudaPointer);
    allocate_host = "cuMemHostAlloc" (*mut *mut c_void, usize, c_uint);
    free_host = "cuMemFreeHost" (*mut c_void);
    copy_in = "cuMemcpyHtoDAsync_v2" (CudaPointer, *const c_void, usize, CudaObject);
    copy_out = "cuMemcpyDtoHAsync_v2" (*mut c_void, CudaPointer, usize, CudaObject);
    error_string = "cuGetErrorString" (CudaStatus, *mut *const c_char);
}

/// One NVIDIA device.
pub struct Cuda {
    functions: &'static CudaFunctions,
    number: u16,
    context: CudaObject,
    creation_lock: Mutex<()>,
    lost: AtomicBool,
    /// The identity of the device in NVML.
    pub uuid: [u8; 16],
}

// SAFETY: the driver's functions may be called from any thread; the context is made current before each.
unsafe impl Send for Cuda {}
// SAFETY: as above.
unsafe impl Sync for Cuda {}

impl Cuda {
    /// Opens the device of this number among those that the process sees (`CUDA_VISIBLE_DEVICES`), or returns it if it is open.
    /// `libraries` are those of NVIDIA's wheels, in the order of their dependencies.
    ///
    /// # Errors
    /// `model_load_failed` without a driver, or without a device of this number.
    pub fn open(number: u16, libraries: &[PathBuf]) -> Result<Arc<Cuda>> {
        static OPENED: OnceLock<Mutex<HashMap<u16, Arc<Cuda>>>> = OnceLock::new();
        let mut opened = OPENED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cuda) = opened.get(&number) {
            return Ok(cuda.clone());
        }
        let functions = driver()?;
        preload(libraries);
        let cuda = Arc::new(Cuda::new(functions, number)?);
        opened.insert(number, cuda.clone());
        Ok(cuda)
    }

    fn new(functions: &'static CudaFunctions, number: u16) -> Result<Cuda> {
        let (mut count, mut device, mut context, mut uuid) = (0, 0, null_mut(), [0; 16]);
        // SAFETY: valid out-pointers; the device is below the count.
        unsafe {
            check(functions, (functions.count)(&mut count), Code::ModelLoadFailed)?;
            if c_int::from(number) >= count {
                return Err(no_device(number, count));
            }
            check(functions, (functions.device)(&mut device, c_int::from(number)), Code::ModelLoadFailed)?;
            check(functions, (functions.uuid)(&mut uuid, device), Code::ModelLoadFailed)?;
            // Never released: the runtime's provider uses it as long as the process lives.
            check(functions, (functions.retain)(&mut context, device), Code::ModelLoadFailed)?;
        }
        Ok(Cuda { functions, number, context, creation_lock: Mutex::default(), lost: false.into(), uuid })
    }

    /// Makes a call in this device's context, and checks its status.
    fn call(&self, call: impl FnOnce(&CudaFunctions) -> CudaStatus) -> Result<()> {
        // SAFETY: a live context.
        self.checked(unsafe { (self.functions.enter)(self.context) })?;
        self.checked(call(self.functions))
    }

    fn checked(&self, status: CudaStatus) -> Result<()> {
        let code = if status == OUT_OF_MEMORY { Code::Overloaded } else { Code::BackendFailed };
        check(self.functions, status, code).map_err(|error| {
            if !FATAL_STATUSES.contains(&status) {
                return error;
            }
            self.lost.store(true, Relaxed);
            let words = format!("{}; the device is lost to this process: restart it", error.message);
            Error::new(code, words)
        })
    }

    /// Polls an event for a while. Returns whether it has happened.
    fn spin_until(&self, event: DriverHandle) -> Result<bool> {
        let start = Instant::now();
        loop {
            // SAFETY: a live object.
            match unsafe { (self.functions.query)(object(event)) } {
                NOT_READY if start.elapsed() < SPIN_TIME => std::hint::spin_loop(),
                NOT_READY => return Ok(false),
                status => return self.checked(status).map(|()| true),
            }
        }
    }
}

fn no_device(number: u16, count: c_int) -> Error {
    let there = match count {
        0 => "the driver shows none; in a container, start it with its GPUs (--gpus all)".to_owned(),
        1 => "there is only cuda:0".to_owned(),
        _ => format!("there are cuda:0 to cuda:{}", count - 1),
    };
    Error::new(Code::ModelLoadFailed, format!("there is no device cuda:{number}: {there}"))
}

/// The driver, opened and initialised once.
fn driver() -> Result<&'static CudaFunctions> {
    static DRIVER_OPENED: OnceLock<CudaFunctions> = OnceLock::new();
    if let Some(functions) = DRIVER_OPENED.get() {
        return Ok(functions);
    }
    let missing = |error: libloading::Error| {
        Error::new(
            Code::ModelLoadFailed,
            format!(
                "there is no NVIDIA driver ({error}): install one of the R580 series or newer; in a container, start it with \
                 its GPUs (--gpus all)"
            ),
        )
    };
    // SAFETY: the driver's library has no preconditions; it is never closed.
    let handle = unsafe { SharedObject::open(Some(DRIVER), RTLD_NOW | RTLD_LOCAL) }.map_err(missing)?;
    let functions = CudaFunctions::of(&handle).map_err(missing)?;
    std::mem::forget(handle);
    // SAFETY: takes no pointers.
    check(&functions, unsafe { (functions.init)(0) }, Code::ModelLoadFailed)?;
    Ok(DRIVER_OPENED.get_or_init(|| functions))
}

/// Opens NVIDIA's libraries with global symbols. If one cannot be opened, the provider reports it as missing.
fn preload(libraries: &[PathBuf]) {
    for path in libraries {
        // SAFETY: libraries of the installed wheels; their initialisers have no preconditions.
        if let Ok(handle) = unsafe { SharedObject::open(Some(path), RTLD_LAZY | RTLD_GLOBAL) } {
            std::mem::forget(handle);
        }
    }
}

fn check(functions: &CudaFunctions, status: CudaStatus, code: Code) -> Result<()> {
    if status == 0 {
        return Ok(());
    }
    let mut words = null();
    // SAFETY: a valid out-pointer; the driver's text is static.
    let words = unsafe {
        let known = (functions.error_string)(status, &mut words);
        if known == 0 { copy_c_string(words) } else { String::new() }
    };
    Err(Error::new(code, format!("NVIDIA's driver says: {words} (error {status})")))
}

fn handle(object: CudaObject) -> DriverHandle {
    object as DriverHandle
}

fn object(handle: DriverHandle) -> CudaObject {
    handle as CudaObject
}

// SAFETY: `cuMemAlloc` and `cuMemHostAlloc` give the requested size, aligned to at least 256 bytes; copies are the driver's.
unsafe impl Driver for Cuda {
    fn memory(&self) -> (&'static CStr, i32) {
        (c"Cuda", i32::from(self.number))
    }

    fn make_current(&self) -> Result<()> {
        self.call(|_| 0)
    }

    fn is_lost(&self) -> bool {
        self.lost.load(Relaxed)
    }

    fn add_provider(
        &self,
        library: &'static Library,
        options: NonNull<OrtSessionOptions>,
        stream: DriverHandle,
        memory_limit: u64,
    ) -> Result<()> {
        provider::check_available(library)?;
        provider::add(library, options, self.number, stream, memory_limit).map_err(|error| {
            // The runtime's message begins with the place in its source.
            let words = error.message.split_once("FAIL : ").map_or(&*error.message, |(_, words)| words);
            let hint = if words.contains("CUDA failure") {
                "nvidia-smi says up to which CUDA the driver goes; ONNX Runtime may need a newer one"
            } else {
                "pip install \"headgate[gpu]\" brings ONNX Runtime for CUDA and the libraries that it needs"
            };
            Error::new(Code::ModelLoadFailed, format!("{}; {hint}", words.trim_end()))
        })
    }

    fn creation_lock(&self) -> &Mutex<()> {
        &self.creation_lock
    }

    fn create_stream(&self) -> Result<DriverHandle> {
        let mut stream = null_mut();
        // SAFETY: a valid out-pointer.
        self.call(|f| unsafe { (f.stream)(&mut stream, NON_BLOCKING) })?;
        Ok(handle(stream))
    }

    fn create_event(&self) -> Result<DriverHandle> {
        let mut event = null_mut();
        // SAFETY: a valid out-pointer.
        self.call(|f| unsafe { (f.event)(&mut event, BLOCKING_WITHOUT_TIMING) })?;
        Ok(handle(event))
    }

    fn destroy_stream(&self, stream: DriverHandle) {
        // SAFETY: made by `create_stream`. There is no way to report a failure.
        drop(self.call(|f| unsafe { (f.end_stream)(object(stream)) }));
    }

    fn destroy_event(&self, event: DriverHandle) {
        // SAFETY: made by `create_event`; as above.
        drop(self.call(|f| unsafe { (f.end_event)(object(event)) }));
    }

    fn allocate(&self, bytes: usize) -> Result<NonNull<u8>> {
        let mut start: CudaPointer = 0;
        // SAFETY: a valid out-pointer.
        self.call(|f| unsafe { (f.allocate)(&mut start, bytes) })?;
        NonNull::new(start as *mut u8).ok_or_else(no_memory)
    }

    fn free(&self, start: NonNull<u8>) {
        // SAFETY: made by `allocate`. There is no way to report a failure.
        drop(self.call(|f| unsafe { (f.free)(start.as_ptr() as CudaPointer) }));
    }

    fn allocate_host(&self, bytes: usize) -> Result<NonNull<u8>> {
        let mut start = null_mut();
        // SAFETY: a valid out-pointer.
        self.call(|f| unsafe { (f.allocate_host)(&mut start, bytes, PORTABLE) })?;
        NonNull::new(start.cast()).ok_or_else(no_memory)
    }

    fn free_host(&self, start: NonNull<u8>) {
        // SAFETY: made by `allocate_host`; as above.
        drop(self.call(|f| unsafe { (f.free_host)(start.as_ptr().cast()) }));
    }

    unsafe fn copy_in(
        &self,
        to: NonNull<u8>,
        from: *const u8,
        bytes: usize,
        stream: DriverHandle,
    ) -> Result<()> {
        // SAFETY: the caller guarantees it.
        self.call(|f| unsafe { (f.copy_in)(to.as_ptr() as CudaPointer, from.cast(), bytes, object(stream)) })
    }

    unsafe fn copy_out(
        &self,
        to: *mut u8,
        from: NonNull<u8>,
        bytes: usize,
        stream: DriverHandle,
    ) -> Result<()> {
        // SAFETY: the caller guarantees it.
        self.call(|f| unsafe { (f.copy_out)(to.cast(), from.as_ptr() as CudaPointer, bytes, object(stream)) })
    }

    fn record(&self, event: DriverHandle, stream: DriverHandle) -> Result<()> {
        // SAFETY: live objects.
        self.call(|f| unsafe { (f.record)(object(event), object(stream)) })
    }

    fn wait(&self, stream: DriverHandle, event: DriverHandle) -> Result<()> {
        // SAFETY: live objects; no flags are defined.
        self.call(|f| unsafe { (f.wait)(object(stream), object(event), 0) })
    }

    fn synchronize(&self, event: DriverHandle) -> Result<()> {
        if self.spin_until(event)? {
            return Ok(());
        }
        // SAFETY: a live object.
        self.call(|f| unsafe { (f.synchronize)(object(event)) })
    }
}

fn no_memory() -> Error {
    Error::new(Code::BackendFailed, "NVIDIA's driver gave no memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_there_says_which_are() {
        for (count, says) in [(0, "--gpus all"), (1, "only cuda:0"), (4, "cuda:0 to cuda:3")] {
            let error = no_device(7, count);
            assert!(error.message.contains("cuda:7") && error.message.contains(says), "{error}");
        }
    }

    #[test]
    fn without_a_driver_the_error_says_what_brings_one() {
        // With a driver this tests nothing.
        if let Err(error) = Cuda::open(0, &[PathBuf::from("/nowhere/libcublas.so.13")]) {
            assert_eq!(error.code, Code::ModelLoadFailed);
            assert!(error.message.contains("driver") || error.message.contains("--gpus"), "{error}");
        }
    }
}
