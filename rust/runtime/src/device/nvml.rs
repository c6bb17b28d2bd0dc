//! The usage of NVIDIA's devices and of their memory by all processes (NVML).

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::ptr::null_mut;
use std::sync::OnceLock;

use libloading::os::unix::{Library as SharedObject, RTLD_LOCAL, RTLD_NOW};

const LIBRARY: &str = "libnvidia-ml.so.1";

type NvmlStatus = c_int;

/// `nvmlMemory_t`.
#[repr(C)]
#[derive(Default)]
struct NvmlMemory {
    total: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

/// `nvmlUtilization_t`.
#[repr(C)]
#[derive(Default)]
struct NvmlUtilization {
    gpu: c_uint,
    memory: c_uint,
}

struct NvmlFunctions {
    by_uuid: unsafe extern "C" fn(*const c_char, *mut *mut c_void) -> NvmlStatus,
    memory: unsafe extern "C" fn(*mut c_void, *mut NvmlMemory) -> NvmlStatus,
    utilization: unsafe extern "C" fn(*mut c_void, *mut NvmlUtilization) -> NvmlStatus,
}

/// The usage of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceUsage {
    /// Memory in use, in bytes.
    pub used_bytes: u64,
    /// All of its memory, in bytes.
    pub total_bytes: u64,
    /// The share of about the last second in which it computed, in percent. Unknown for a part of a device (MIG).
    pub busy_percent: Option<u32>,
}

/// Reads the usage of the device with this identity. `None` if NVML does not report it.
pub fn read(uuid: [u8; 16]) -> Option<DeviceUsage> {
    let functions = functions()?;
    // A part of a device (MIG) has another prefix.
    let mut names = ["GPU", "MIG"].iter().map(|kind| format!("{kind}-{}", dashed(uuid)));
    let device = names.find_map(|name| functions.device(&CString::new(name).ok()?))?;
    let (mut memory, mut utilization) = (NvmlMemory::default(), NvmlUtilization::default());
    // SAFETY: a live device and valid out-pointers of the library's own types; each is used only when its call succeeded.
    unsafe {
        let known = (functions.memory)(device, &mut memory) == 0;
        let busy = (functions.utilization)(device, &mut utilization) == 0;
        known.then_some(DeviceUsage {
            used_bytes: memory.used,
            total_bytes: memory.total,
            busy_percent: busy.then_some(utilization.gpu),
        })
    }
}

impl NvmlFunctions {
    fn device(&self, name: &CStr) -> Option<*mut c_void> {
        let mut device = null_mut();
        // SAFETY: a C string and a valid out-pointer.
        let found = unsafe { (self.by_uuid)(name.as_ptr(), &mut device) == 0 };
        found.then_some(device)
    }
}

/// The library, opened and initialised once.
fn functions() -> Option<&'static NvmlFunctions> {
    static OPENED: OnceLock<Option<NvmlFunctions>> = OnceLock::new();
    OPENED.get_or_init(open).as_ref()
}

fn open() -> Option<NvmlFunctions> {
    // SAFETY: the library has no preconditions and is never closed; each symbol has this type since NVML 2.
    unsafe {
        let handle = SharedObject::open(Some(LIBRARY), RTLD_NOW | RTLD_LOCAL).ok()?;
        let init = *handle.get::<unsafe extern "C" fn() -> NvmlStatus>(b"nvmlInit_v2\0").ok()?;
        let functions = NvmlFunctions {
            by_uuid: *handle.get(b"nvmlDeviceGetHandleByUUID\0").ok()?,
            memory: *handle.get(b"nvmlDeviceGetMemoryInfo\0").ok()?,
            utilization: *handle.get(b"nvmlDeviceGetUtilizationRates\0").ok()?,
        };
        std::mem::forget(handle);
        (init() == 0).then_some(functions)
    }
}

/// Sixteen bytes as 8-4-4-4-12 hexadecimal digits.
fn dashed(uuid: [u8; 16]) -> String {
    let hex: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_written_as_nvml_reads_it() {
        let uuid = std::array::from_fn(|index| index as u8 * 17);
        assert_eq!(dashed(uuid), "00112233-4455-6677-8899-aabbccddeeff");
    }
}
