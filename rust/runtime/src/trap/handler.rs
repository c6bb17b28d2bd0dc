//! The handler of SIGFPE, and the code ranges that it guards.
//!
//! While it handles a signal, it touches only atomics and thread-locals without a constructor. It allocates nothing, takes no lock,
//! and calls nothing that may.

use std::ffi::{CStr, c_int, c_void};
use std::mem::{MaybeUninit, zeroed};
use std::path::Path;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::sync::{Mutex, PoisonError};

use super::decode::{Division, LONGEST, Width};
use super::threads::{self, STEPPED_OVER, mark};

/// The kernel's code for a division by zero and for a quotient that does not fit: x86 has one trap for both.
const FPE_INTDIV: c_int = 1;
/// Codes up to this are of signals that a process has sent.
const MAX_SENT_CODE: c_int = 0;

/// A range of executable memory of the runtime's libraries. Empty if not used.
struct CodeRange {
    start: AtomicUsize,
    end: AtomicUsize,
}

/// The guarded ranges: the runtime's library and its providers have one each.
static GUARDED: [CodeRange; 16] =
    [const { CodeRange { start: AtomicUsize::new(0), end: AtomicUsize::new(0) } }; 16];

/// The previous action of SIGFPE. It is never freed, because a signal may read it at any time.
static PREVIOUS_ACTION: AtomicPtr<libc::sigaction> = AtomicPtr::new(null_mut());

/// See [`super::guard`].
pub(super) fn guard(inside: usize) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut inside = inside;
    // SAFETY: the callback gets the pointer to `inside`, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(add_code_ranges), (&raw mut inside).cast()) };
    install();
}

/// Adds the executable ranges of a loaded object, if it belongs to the runtime.
unsafe extern "C" fn add_code_ranges(info: *mut libc::dl_phdr_info, _: usize, inside: *mut c_void) -> c_int {
    // SAFETY: the loader hands in a live description with its headers; `inside` is the caller's.
    let (info, inside) = unsafe { (&*info, *inside.cast::<usize>()) };
    if info.dlpi_phdr.is_null() {
        return 0;
    }
    // SAFETY: as above.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let executable =
        headers.iter().filter(|one| one.p_type == libc::PT_LOAD && one.p_flags & libc::PF_X != 0);
    let stretches = executable.map(|one| {
        let start = info.dlpi_addr as usize + one.p_vaddr as usize;
        (start, start + one.p_memsz as usize)
    });
    // SAFETY: null or a C string of the loader's.
    let named = !info.dlpi_name.is_null() && is_runtime_library(unsafe { CStr::from_ptr(info.dlpi_name) });
    let holds = |&(start, end): &(usize, usize)| (start..end).contains(&inside);
    if named || stretches.clone().any(|one| holds(&one)) {
        stretches.for_each(|(start, end)| add_range(start, end));
    }
    0
}

/// Whether a file is ONNX Runtime's library or one of its providers.
fn is_runtime_library(file: &CStr) -> bool {
    let name = file.to_str().ok().and_then(|path| Path::new(path).file_name()?.to_str());
    name.is_some_and(|name| name.starts_with("libonnxruntime"))
}

/// Adds a range. Only one thread at a time may call this.
pub(super) fn add_range(start: usize, end: usize) {
    if GUARDED.iter().any(|one| one.start.load(Relaxed) == start && one.end.load(Relaxed) == end) {
        return;
    }
    if let Some(free) = GUARDED.iter().find(|one| one.end.load(Relaxed) == 0) {
        free.start.store(start, Relaxed);
        free.end.store(end, Release);
    }
}

/// Installs our handler, unless it is installed, and stores the previous action.
fn install() {
    // SAFETY: `wanted` is complete: handler, empty mask, flags. The handler does only what a signal handler may do. On failure, which
    // valid arguments exclude, nothing changes.
    unsafe {
        let mut now = MaybeUninit::<libc::sigaction>::zeroed();
        if libc::sigaction(libc::SIGFPE, null(), now.as_mut_ptr()) != 0 {
            return;
        }
        let now = now.assume_init();
        let ours = on_signal as *const () as usize;
        if now.sa_sigaction == ours {
            return;
        }
        PREVIOUS_ACTION.store(Box::into_raw(Box::new(now)), Release);
        let mut wanted: libc::sigaction = zeroed();
        wanted.sa_sigaction = ours;
        // ONSTACK: a thread with a signal stack may have no room on its other stack. NODEFER: a previous handler that raises the
        // signal again, as Python's faulthandler does, acts at once, and one that jumps away leaves nothing blocked.
        wanted.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        libc::sigemptyset(&mut wanted.sa_mask);
        libc::sigaction(libc::SIGFPE, &wanted, null_mut());
    }
}

unsafe extern "C" fn on_signal(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel hands in live descriptions, as SA_SIGINFO asks for.
    unsafe {
        if (*info).si_code == FPE_INTDIV && step_over(&mut *context.cast::<libc::ucontext_t>()) {
            return;
        }
        call_previous(signal, info, context);
    }
}

/// Steps over the division at the thread's instruction pointer, if it is in a guarded range.
fn step_over(context: &mut libc::ucontext_t) -> bool {
    let registers = &mut context.uc_mcontext.gregs;
    let at = registers[libc::REG_RIP as usize] as usize;
    let Some(end) = GUARDED.iter().find_map(|one| {
        let end = one.end.load(Acquire);
        (one.start.load(Relaxed)..end).contains(&at).then_some(end)
    }) else {
        return false;
    };
    // SAFETY: `at..end` is mapped and readable: the processor has just run code there, and libraries are never unloaded.
    let code = unsafe { std::slice::from_raw_parts(at as *const u8, (end - at).min(LONGEST)) };
    let Some(division) = Division::decode(code) else { return false };
    // The quotient is the dividend's low part, which is in the quotient's register already. The remainder is 0.
    let (rax, rdx) = (libc::REG_RAX as usize, libc::REG_RDX as usize);
    match division.width {
        Width::Byte => registers[rax] &= !0xFF00,
        Width::Word => registers[rdx] &= !0xFFFF,
        Width::Double => {
            // Writing 32 bits clears the upper half.
            registers[rax] &= 0xFFFF_FFFF;
            registers[rdx] = 0;
        }
        Width::Quad => registers[rdx] = 0,
    }
    registers[libc::REG_RIP as usize] += division.length as i64;
    STEPPED_OVER.fetch_add(1, Relaxed);
    mark();
    true
}

/// Calls the previous action of SIGFPE.
///
/// # Safety
/// The arguments are those of a signal handler.
unsafe fn call_previous(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: `PREVIOUS_ACTION` is null or a description that is never freed; its handler is called as it asked to be.
    unsafe {
        let sent = (*info).si_code <= MAX_SENT_CODE;
        // The previous handler may have been installed after ours, and then passes the signal back to us. The loop ends here.
        let comes_back = sent && threads::is_in_previous();
        match PREVIOUS_ACTION.load(Acquire).as_ref() {
            Some(before) if before.sa_sigaction == libc::SIG_IGN && sent => {}
            Some(before)
                if !comes_back
                    && before.sa_sigaction != libc::SIG_DFL
                    && before.sa_sigaction != libc::SIG_IGN =>
            {
                threads::set_in_previous(true);
                if before.sa_flags & libc::SA_SIGINFO == 0 {
                    let handler: extern "C" fn(c_int) = std::mem::transmute(before.sa_sigaction);
                    handler(signal);
                } else {
                    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
                        std::mem::transmute(before.sa_sigaction);
                    handler(signal, info, context);
                }
                threads::set_in_previous(false);
            }
            _ => end_process(signal, sent),
        }
    }
}

/// Ends the process as the signal does by default: with its number and, if enabled, a core dump.
unsafe fn end_process(signal: c_int, sent: bool) {
    // SAFETY: a whole description; both functions may be called in a handler.
    unsafe {
        let mut default: libc::sigaction = zeroed();
        default.sa_sigaction = libc::SIG_DFL;
        libc::sigaction(signal, &default, null_mut());
        // A trap occurs again, because the instruction has not run yet.
        if sent {
            libc::raise(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::arch::asm;

    use super::*;
    use crate::trap::threads::take_mark;

    /// Guards this test's own code in place of the runtime's.
    fn guarded() {
        guard(guarded as *const () as usize);
        assert!(!take_mark());
    }

    #[test]
    fn a_division_that_traps_gives_its_dividend_and_marks_the_thread() {
        guarded();
        let (mut quotient, mut remainder) = (i64::MIN, -1i64);
        // SAFETY: traps, and is stepped over.
        unsafe { asm!("idiv {by}", by = in(reg) -1i64, inout("rax") quotient, inout("rdx") remainder) };
        assert_eq!((quotient, remainder, take_mark(), take_mark()), (i64::MIN, 0, true, false));

        let (mut quotient, mut remainder) = (0xFFFF_FFFF_8000_0000u64, u64::MAX);
        // SAFETY: as above.
        unsafe { asm!("idiv {by:e}", by = in(reg) -1i32, inout("rax") quotient, inout("rdx") remainder) };
        assert_eq!((quotient, remainder, take_mark()), (0x8000_0000, 0, true));

        let (mut quotient, mut remainder) = (0xAAAA_0000_0000_8000u64, 0xBBBB_0000_0000_FFFFu64);
        // SAFETY: as above.
        unsafe { asm!("idiv {by:x}", by = in(reg) -1i16, inout("rax") quotient, inout("rdx") remainder) };
        assert_eq!((quotient, remainder, take_mark()), (0xAAAA_0000_0000_8000, 0xBBBB_0000_0000_0000, true));

        let mut both = 0x1111_1111_1111_FF80u64;
        // SAFETY: as above.
        unsafe { asm!("idiv {by}", by = in(reg_byte) -1i8, inout("rax") both) };
        assert_eq!((both, take_mark()), (0x1111_1111_1111_0080, true));
    }

    #[test]
    fn by_zero_and_without_a_sign_and_from_memory_as_well() {
        guarded();
        let zeros = [0u64; 4];
        let (mut quotient, mut remainder) = (7u64, 0u64);
        // SAFETY: traps, and is stepped over; the operand is within `zeros`.
        unsafe {
            asm!("div qword ptr [{base} + 8*{index} + 8]", base = in(reg) zeros.as_ptr(), index = in(reg) 1u64,
                inout("rax") quotient, inout("rdx") remainder);
        }
        assert_eq!((quotient, remainder, take_mark()), (7, 0, true));
        // SAFETY: as above.
        unsafe {
            asm!("idiv dword ptr [{base}]", base = in(reg) zeros.as_ptr(), inout("rax") quotient, inout("rdx") remainder);
        }
        assert_eq!((quotient, remainder, take_mark()), (7, 0, true));
    }

    #[test]
    fn a_division_that_has_a_result_is_left_alone() {
        guarded();
        let before = STEPPED_OVER.load(Relaxed);
        assert_eq!(std::hint::black_box(42i64) / std::hint::black_box(5), 8);
        assert!(!take_mark() && STEPPED_OVER.load(Relaxed) >= before);
    }

    #[test]
    fn the_runtime_s_libraries_are_known_by_name() {
        for (path, is) in [
            (c"/venv/onnxruntime/capi/libonnxruntime.so.1.24.1", true),
            (c"libonnxruntime_providers_cuda.so", true),
            (c"/onnxruntime/libc.so.6", false),
            (c"", false),
        ] {
            assert_eq!(is_runtime_library(path), is, "{path:?}");
        }
    }
}
