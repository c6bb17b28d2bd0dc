//! The bytes of the heap in use, from which the size of a session follows.
#![allow(unsafe_code, reason = "the allocator's own figures have no safe wrapper")]

use libloading::os::unix::{Library, Symbol};
use std::sync::OnceLock;

/// glibc's `struct mallinfo2` (malloc.h).
#[repr(C)]
#[derive(Clone, Copy)]
struct MallocInfo {
    arena: usize,
    free_chunks: usize,
    fast_chunks: usize,
    mapped_chunks: usize,
    mapped_bytes: usize,
    unused: usize,
    fast_bytes: usize,
    used_bytes: usize,
    free_bytes: usize,
    top_bytes: usize,
}

type MallocInfoFn = unsafe extern "C" fn() -> MallocInfo;

/// Bytes that all threads have allocated and not freed. `None` if the C library does not report them: it is older than glibc
/// 2.33, or another library.
pub fn used_bytes() -> Option<u64> {
    static MALLINFO2: OnceLock<Option<Symbol<MallocInfoFn>>> = OnceLock::new();
    // SAFETY: the symbol has this type in every library that has it.
    let mallinfo2 =
        MALLINFO2.get_or_init(|| unsafe { Library::this().get::<MallocInfoFn>(b"mallinfo2\0") }.ok());
    // SAFETY: has no preconditions.
    let figures = unsafe { mallinfo2.as_ref()?() };
    Some((figures.used_bytes + figures.mapped_bytes) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_is_in_use() {
        let Some(before) = used_bytes() else { return };
        let block = vec![1u8; 64 << 20];
        let after = used_bytes().unwrap_or_default();
        drop(block);
        assert!(after >= before + (60 << 20), "{before} {after}");
    }
}
