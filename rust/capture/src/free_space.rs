//! The free space of a file system. Capture leaves some of it to the rest of the gateway.
#![allow(unsafe_code, reason = "statvfs has no safe wrapper in the standard library")]

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The most bytes that capture leaves free.
const RESERVE: u64 = 256 << 20;
/// The part of a small file system that it leaves free: one in so many.
const RESERVED_PART: u64 = 20;

/// The bytes that capture may still write to the file system of a path.
///
/// # Errors
/// Those of `statvfs(3)`.
pub(crate) fn writable_bytes(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    // SAFETY: all zeros is a value of this plain structure.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: a text that ends with zero, and a valid out-pointer.
    if unsafe { libc::statvfs(path.as_ptr(), &raw mut stat) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let size = stat.f_blocks.saturating_mul(stat.f_frsize);
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    Ok(free.saturating_sub(RESERVE.min(size / RESERVED_PART)))
}
