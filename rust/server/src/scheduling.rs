//! Starts threads, and sets how they share cores: requests come first, even if a model is loaded beside them.
#![allow(unsafe_code, reason = "scheduling has no safe wrapper")]

use std::thread::JoinHandle;

use headgate_core::error::{Code, Error, Result};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime, Runtime};

/// The slice that an IO thread requests, in nanoseconds. Linux from 6.12 on runs a thread with a short slice as soon as it wakes, and not
/// after the slice of the thread that computes.
const SLICE_NS: u64 = 200_000;
/// The nice value of low priority: beside a thread of ordinary priority such a thread gets a tenth of a core.
const NICE: libc::c_int = 10;
/// The nice value of the lowest ordinary priority.
const LOWEST_NICE: libc::c_int = 19;

/// The threads beside each IO thread that read large requests and write large responses. They end when idle.
const OFFLOAD_THREADS: usize = 2;

/// The runtime of the thread that accepts.
///
/// # Errors
/// `internal` if the system gives no more descriptors.
pub fn runtime() -> Result<Runtime> {
    runtime_builder().build().map_err(|error| no_descriptors(&error))
}

/// The runtime of one IO thread, made on that thread. Its tasks are the thread's own, without a set of local tasks that would be a task
/// of the runtime itself and be polled for each of them.
///
/// # Errors
/// As [`runtime`].
pub fn local_runtime() -> Result<LocalRuntime> {
    runtime_builder().build_local(LocalOptions::default()).map_err(|error| no_descriptors(&error))
}

fn runtime_builder() -> Builder {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().max_blocking_threads(OFFLOAD_THREADS).thread_name("hg-offload");
    builder
}

fn no_descriptors(error: &std::io::Error) -> Error {
    Error::new(Code::Internal, format!("the system gives no more descriptors: {error}"))
}

/// As [`spawn`], with low priority, because loading a model takes milliseconds of a core that an IO thread may need.
///
/// # Errors
/// As [`spawn`].
pub fn spawn_low_priority<T: Send + 'static>(
    name: String,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    spawn(name, move || {
        lower_priority();
        work()
    })
}

/// Lowers the priority of the current thread.
fn lower_priority() {
    // SAFETY: takes no pointers; on Linux, process 0 is the calling thread. A system that refuses leaves it as it was.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, NICE);
    }
}

/// Gives the current thread the lowest ordinary priority: beside a thread of ordinary priority it gets a hundredth of a core.
pub fn lowest_priority() {
    // SAFETY: as in `lower_priority`.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, LOWEST_NICE);
    }
}

/// The CPU time of the current thread, in nanoseconds.
pub fn thread_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid out-pointer; every thread has this clock.
    let known = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    if known == 0 { time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64 } else { 0 }
}

/// Starts a named thread.
///
/// # Errors
/// `internal` if the system gives no more threads.
pub fn spawn<T: Send + 'static>(
    name: String,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    std::thread::Builder::new()
        .name(name)
        .spawn(work)
        .map_err(|error| Error::new(Code::Internal, format!("the system gives no more threads: {error}")))
}

/// Reads the state and the CPU time of a thread from another one.
#[derive(Debug)]
pub struct ThreadProbe {
    /// The path of the status of the thread (`proc_pid_stat(5)`).
    status: String,
    clock: Option<libc::clockid_t>,
}

impl ThreadProbe {
    /// The probe of the current thread.
    pub fn current() -> ThreadProbe {
        let mut clock = 0;
        // SAFETY: the calling thread is alive; a valid out-pointer.
        let (thread, known) =
            unsafe { (libc::gettid(), libc::pthread_getcpuclockid(libc::pthread_self(), &mut clock)) };
        ThreadProbe { status: format!("/proc/self/task/{thread}/stat"), clock: (known == 0).then_some(clock) }
    }

    /// The CPU time of the thread, in nanoseconds; 0 if it has ended.
    pub fn cpu_ns(&self) -> u64 {
        let Some(clock) = self.clock else { return 0 };
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: a valid out-pointer; the clock of a thread that has ended is an error.
        let known = unsafe { libc::clock_gettime(clock, &mut time) };
        if known == 0 { time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64 } else { 0 }
    }

    /// Whether the thread waits for something other than a core.
    pub fn sleeps(&self) -> bool {
        // The state follows the name, which is in parentheses and may itself contain some.
        let status = std::fs::read_to_string(&self.status).unwrap_or_default();
        let state = status.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        matches!(state, Some('S' | 'D'))
    }
}

/// `struct sched_attr` of Linux, in its first form.
#[repr(C)]
#[derive(Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Requests short slices for the current thread, so that it runs as soon as it wakes. Does nothing on a system that cannot do that.
pub fn request_short_slices() {
    let size = size_of::<SchedAttr>();
    let mut present = SchedAttr::default();
    // SAFETY: the structure is as large as is said; a system that refuses leaves the thread as it was.
    unsafe {
        if libc::syscall(libc::SYS_sched_getattr, 0, &raw mut present, size, 0) == 0 {
            let wanted = SchedAttr { size: size as u32, runtime: SLICE_NS, ..present };
            libc::syscall(libc::SYS_sched_setattr, 0, &raw const wanted, 0);
        }
    }
}
