//! What ONNX Runtime needs for a bound run: the binding of inputs and outputs, the options of the run, the description of a
//! memory, and the streams of a session.
//!
//! Next: `session`, which binds and runs.

use std::ffi::CStr;
use std::ptr::{NonNull, null, null_mut};
use std::sync::Arc;

use headgate_core::error::{Code, Error, Result};
use ort_sys::{OrtAllocatorType, OrtIoBinding, OrtMemType, OrtMemoryInfo, OrtRunOptions, OrtValue};

use super::driver::{Driver, DriverHandle};
use crate::library::Library;
use crate::session::Session;
use crate::value::OwnedValue;

/// The runtime's binding of inputs and outputs for runs.
pub(super) struct IoBinding {
    library: &'static Library,
    raw: NonNull<OrtIoBinding>,
}

// SAFETY: used by one owner at a time; the runtime does not tie it to a thread.
unsafe impl Send for IoBinding {}

impl IoBinding {
    pub(super) fn new(session: &Session) -> Result<IoBinding> {
        let library = session.library;
        let mut raw = null_mut();
        // SAFETY: a live session and a valid out-pointer.
        let status = unsafe { (library.api.CreateIoBinding)(session.raw(), &mut raw) };
        library.api.check(status, Code::Internal)?;
        let raw = NonNull::new(raw).ok_or_else(|| Error::new(Code::Internal, "no binding was made"))?;
        Ok(IoBinding { library, raw })
    }

    /// Binds an input. Every run reads a value on the device. A value of the host is copied now, unless the host reads it.
    ///
    /// # Safety
    /// A live value.
    pub(super) unsafe fn bind_input(
        &self,
        session: &Session,
        index: usize,
        value: *const OrtValue,
    ) -> Result<()> {
        let name = session.input_names.get(index);
        // SAFETY: live objects; the runtime keeps its own reference to the value.
        let status = unsafe { (self.library.api.BindInput)(self.raw.as_ptr(), name, value) };
        self.library.api.check(status, Code::Internal)
    }

    pub(super) fn bind_output(&self, session: &Session, index: usize, value: &OwnedValue) -> Result<()> {
        let name = session.output_names.get(index);
        // SAFETY: as above.
        let status = unsafe { (self.library.api.BindOutput)(self.raw.as_ptr(), name, value.raw.as_ptr()) };
        self.library.api.check(status, Code::Internal)
    }

    /// Lets the runtime allocate an output, in memory of the host.
    pub(super) fn leave_output(&self, session: &Session, index: usize) -> Result<()> {
        let name = session.output_names.get(index);
        // SAFETY: as above; the description of the host's memory is never freed.
        let status = unsafe {
            (self.library.api.BindOutputToDevice)(self.raw.as_ptr(), name, self.library.cpu.as_ptr())
        };
        self.library.api.check(status, Code::Internal)
    }

    pub(super) fn run(&self, session: &Session, options: &DeviceRunOptions) -> Result<()> {
        session.threads.call_guarded(|| {
            // SAFETY: live objects; the caller has the session mutably, so that no other thread runs it.
            let status = unsafe {
                (self.library.api.RunWithBinding)(session.raw(), options.raw.as_ptr(), self.raw.as_ptr())
            };
            self.library.api.check(status, Code::BackendFailed)
        })
    }

    /// The values of all outputs after a run.
    pub(super) fn outputs(&self, library: &'static Library) -> Result<Vec<OwnedValue>> {
        let (mut values, mut count): (*mut *mut OrtValue, usize) = (null_mut(), 0);
        let mut allocator = null_mut();
        // SAFETY: the default allocator is static; we own the array and the values in it, and free them.
        unsafe {
            library
                .api
                .check((library.api.GetAllocatorWithDefaultOptions)(&mut allocator), Code::Internal)?;
            let status =
                (library.api.GetBoundOutputValues)(self.raw.as_ptr(), allocator, &mut values, &mut count);
            library.api.check(status, Code::BackendFailed)?;
            let owned: Vec<_> =
                (0..count).map(|index| OwnedValue::new(library, *values.add(index))).collect();
            if !values.is_null() {
                library.api.check((library.api.AllocatorFree)(allocator, values.cast()), Code::Internal)?;
            }
            owned.into_iter().collect()
        }
    }
}

impl Drop for IoBinding {
    fn drop(&mut self) {
        // SAFETY: created above, released once.
        unsafe { (self.library.api.ReleaseIoBinding)(self.raw.as_ptr()) }
    }
}

/// For each input of a session, whether its nodes read it on the device.
pub(super) fn inputs_on_device(session: &Session, driver: &dyn Driver) -> Result<Vec<bool>> {
    let library = session.library;
    let mut memories: Vec<*const OrtMemoryInfo> = vec![null(); session.signature().inputs.len()];
    // SAFETY: the array has one element for each input; the descriptions belong to the session.
    let status = unsafe {
        (library.api.SessionGetMemoryInfoForInputs)(session.raw(), memories.as_mut_ptr(), memories.len())
    };
    library.api.check(status, Code::ModelLoadFailed)?;
    let on_device = memories.into_iter().map(|memory| {
        let (mut name, mut number, mut kind) = (null(), 0, OrtMemType::OrtMemTypeDefault);
        // SAFETY: live descriptions and valid out-pointers; the name lives as long as its description.
        unsafe {
            library.api.check((library.api.MemoryInfoGetName)(memory, &mut name), Code::Internal)?;
            library.api.check((library.api.MemoryInfoGetId)(memory, &mut number), Code::Internal)?;
            library.api.check((library.api.MemoryInfoGetMemType)(memory, &mut kind), Code::Internal)?;
            Ok(kind == OrtMemType::OrtMemTypeDefault && driver.is_device_memory(CStr::from_ptr(name), number))
        }
    });
    on_device.collect()
}

/// Options for a run.
pub(super) struct DeviceRunOptions {
    library: &'static Library,
    raw: NonNull<OrtRunOptions>,
}

// SAFETY: read by the runtime, never changed after it was made.
unsafe impl Send for DeviceRunOptions {}

impl DeviceRunOptions {
    /// The options of a synchronous run, or of one that returns early. Our event signals the end of the latter.
    pub(super) fn new(library: &'static Library, synchronous: bool) -> Result<DeviceRunOptions> {
        let mut raw = null_mut();
        // SAFETY: a valid out-pointer.
        library.api.check(unsafe { (library.api.CreateRunOptions)(&mut raw) }, Code::ModelLoadFailed)?;
        let raw = NonNull::new(raw).ok_or_else(|| Error::new(Code::ModelLoadFailed, "no run options"))?;
        let options = DeviceRunOptions { library, raw };
        let (key, value) =
            (c"disable_synchronize_execution_providers", if synchronous { c"0" } else { c"1" });
        // SAFETY: live options and C strings, which are copied.
        let status = unsafe { (library.api.AddRunConfigEntry)(raw.as_ptr(), key.as_ptr(), value.as_ptr()) };
        library.api.check(status, Code::ModelLoadFailed)?;
        Ok(options)
    }
}

impl Drop for DeviceRunOptions {
    fn drop(&mut self) {
        // SAFETY: created above, released once.
        unsafe { (self.library.api.ReleaseRunOptions)(self.raw.as_ptr()) }
    }
}

/// The runtime's description of a device's memory.
pub(super) struct MemoryInfo {
    library: &'static Library,
    pub(super) raw: NonNull<OrtMemoryInfo>,
}

// SAFETY: never changed after it was made.
unsafe impl Send for MemoryInfo {}

impl MemoryInfo {
    pub(super) fn new(library: &'static Library, driver: &dyn Driver) -> Result<MemoryInfo> {
        let (name, number) = driver.memory();
        let mut raw = null_mut();
        // SAFETY: a C string and a valid out-pointer.
        let status = unsafe {
            (library.api.CreateMemoryInfo)(
                name.as_ptr(),
                OrtAllocatorType::OrtDeviceAllocator,
                number,
                OrtMemType::OrtMemTypeDefault,
                &mut raw,
            )
        };
        library.api.check(status, Code::ModelLoadFailed)?;
        let raw = NonNull::new(raw).ok_or_else(|| Error::new(Code::ModelLoadFailed, "no device memory"))?;
        Ok(MemoryInfo { library, raw })
    }
}

impl Drop for MemoryInfo {
    fn drop(&mut self) {
        // SAFETY: created above, released once.
        unsafe { (self.library.api.ReleaseMemoryInfo)(self.raw.as_ptr()) }
    }
}

/// The streams of a session.
pub(super) struct Streams {
    driver: Arc<dyn Driver>,
    pub(super) copy: DriverHandle,
    pub(super) compute: DriverHandle,
}

impl Streams {
    pub(super) fn new(driver: &Arc<dyn Driver>) -> Result<Streams> {
        let copy = driver.create_stream()?;
        let compute = driver.create_stream().inspect_err(|_| driver.destroy_stream(copy))?;
        Ok(Streams { driver: driver.clone(), copy, compute })
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.driver.destroy_stream(self.copy);
        self.driver.destroy_stream(self.compute);
    }
}
