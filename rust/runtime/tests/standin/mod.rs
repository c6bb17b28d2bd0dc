//! A driver without a device. Its memory is of the heap, and its provider is the CPU's. Its streams do nothing until a test waits for
//! them: a read without waiting gives rubbish.
#![allow(
    dead_code,
    unsafe_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "tests panic to say what went wrong"
)]

use std::alloc::{Layout, alloc, dealloc};
use std::collections::{HashMap, VecDeque};
use std::ffi::CStr;
use std::ptr::NonNull;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};

use headgate_core::error::{Code, Error, Result};
use headgate_runtime::Library;
use headgate_runtime::device::{Driver, DriverHandle, OrtSessionOptions};

/// The content of memory before the first write.
const RUBBISH: u8 = 0xA5;

#[derive(Default)]
pub struct StandIn {
    state: Mutex<State>,
    creation_lock: Mutex<()>,
    gate: Mutex<Option<Arc<Gate>>>,
}

/// A gate at which an allocation of host memory reports and waits.
struct Gate {
    entered: Mutex<Sender<()>>,
    leave: Mutex<Receiver<()>>,
}

#[derive(Default)]
struct State {
    next: DriverHandle,
    streams: HashMap<DriverHandle, VecDeque<Step>>,
    /// For each event the stream, and the number of its steps that must be done first.
    events: HashMap<DriverHandle, Option<(DriverHandle, u64)>>,
    /// The number of steps of each stream that were enqueued and that are done.
    put: HashMap<DriverHandle, u64>,
    done: HashMap<DriverHandle, u64>,
    /// Blocks by address.
    device: HashMap<usize, usize>,
    host: HashMap<usize, usize>,
    /// All calls, in order.
    log: Vec<&'static str>,
    /// The input that is not read on the device, and the number of inputs that were queried.
    on_host: Option<usize>,
    asked: usize,
    failing: Option<&'static str>,
    host_panics: bool,
}

struct Step {
    from: usize,
    to: usize,
    bytes: usize,
}

impl StandIn {
    pub fn new() -> Arc<StandIn> {
        Arc::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Blocks of device and of host memory, streams, events.
    pub fn held(&self) -> (usize, usize, usize, usize) {
        let state = self.state();
        (state.device.len(), state.host.len(), state.streams.len(), state.events.len())
    }

    /// From now on an allocation of host memory reports first, and waits until the sender is dropped.
    pub fn hold_host(&self) -> (Receiver<()>, Sender<()>) {
        let ((entered_tx, entered), (leave, leave_rx)) = (channel(), channel());
        let gate = Gate { entered: Mutex::new(entered_tx), leave: Mutex::new(leave_rx) };
        *self.gate.lock().unwrap() = Some(Arc::new(gate));
        (entered, leave)
    }

    /// From now on an allocation of host memory panics.
    pub fn panic_on_host(&self) {
        self.state().host_panics = true;
    }

    /// The calls since the last use of this function.
    pub fn log(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.state().log)
    }

    /// The nodes of the next session read that input on the host.
    pub fn reads_on_host(&self, input: usize) {
        let mut state = self.state();
        (state.on_host, state.asked) = (Some(input), 0);
    }

    /// From now on calls of that name fail; with `None` no call fails.
    pub fn fail(&self, name: Option<&'static str>) {
        self.state().failing = name;
    }
}

impl State {
    fn note(&mut self, name: &'static str) -> Result<()> {
        self.log.push(name);
        if self.failing == Some(name) {
            return Err(Error::new(Code::BackendFailed, format!("{name} failed")));
        }
        Ok(())
    }

    fn handle(&mut self) -> DriverHandle {
        self.next += 1;
        self.next
    }

    /// Does the steps that an event waits for.
    fn happen(&mut self, event: DriverHandle) {
        let Some((stream, upto)) = self.events[&event] else { return };
        while self.done.get(&stream).copied().unwrap_or(0) < upto {
            let Step { from, to, bytes } = self.streams.get_mut(&stream).unwrap().pop_front().unwrap();
            // SAFETY: the caller of the copy guarantees that both sides live.
            unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes) };
            *self.done.entry(stream).or_default() += 1;
        }
    }

    fn put(&mut self, stream: DriverHandle, step: Step) {
        self.streams.get_mut(&stream).unwrap().push_back(step);
        *self.put.entry(stream).or_default() += 1;
    }
}

fn block(bytes: usize) -> (NonNull<u8>, usize) {
    let layout = Layout::from_size_align(bytes, 256).unwrap();
    // SAFETY: never of size zero.
    let start = unsafe { alloc(layout) };
    // SAFETY: the block has this number of bytes.
    unsafe { start.write_bytes(RUBBISH, bytes) };
    (NonNull::new(start).unwrap(), bytes)
}

fn give_back(blocks: &mut HashMap<usize, usize>, start: NonNull<u8>) {
    let bytes = blocks.remove(&(start.as_ptr() as usize)).expect("it is freed once, by whoever gave it");
    // SAFETY: made by `block` with this size.
    unsafe { dealloc(start.as_ptr(), Layout::from_size_align(bytes, 256).unwrap()) };
}

// SAFETY: blocks are as large as asked for and stay until they are freed.
unsafe impl Driver for StandIn {
    fn memory(&self) -> (&'static CStr, i32) {
        (c"Cpu", 0)
    }

    fn is_device_memory(&self, _: &CStr, _: i32) -> bool {
        let mut state = self.state();
        state.asked += 1;
        state.on_host != Some(state.asked - 1)
    }

    fn add_provider(
        &self,
        _: &'static Library,
        _: NonNull<OrtSessionOptions>,
        _: DriverHandle,
        _: u64,
    ) -> Result<()> {
        self.state().note("add_provider")
    }

    fn creation_lock(&self) -> &Mutex<()> {
        &self.creation_lock
    }

    fn create_stream(&self) -> Result<DriverHandle> {
        let mut state = self.state();
        let stream = state.handle();
        state.streams.insert(stream, VecDeque::new());
        Ok(stream)
    }

    fn create_event(&self) -> Result<DriverHandle> {
        let mut state = self.state();
        let event = state.handle();
        state.events.insert(event, None);
        Ok(event)
    }

    fn destroy_stream(&self, stream: DriverHandle) {
        let left = self.state().streams.remove(&stream).expect("it is ended once");
        assert!(left.is_empty(), "a stream ends before its work");
    }

    fn destroy_event(&self, event: DriverHandle) {
        self.state().events.remove(&event).expect("it is ended once");
    }

    fn allocate(&self, bytes: usize) -> Result<NonNull<u8>> {
        let mut state = self.state();
        state.note("allocate")?;
        let (start, bytes) = block(bytes);
        state.device.insert(start.as_ptr() as usize, bytes);
        Ok(start)
    }

    fn free(&self, start: NonNull<u8>) {
        give_back(&mut self.state().device, start);
    }

    fn allocate_host(&self, bytes: usize) -> Result<NonNull<u8>> {
        let gate = self.gate.lock().unwrap().clone();
        let panics = self.state().host_panics;
        assert!(!panics, "a defect");
        if let Some(gate) = gate {
            // A failed send is fine: once the test has dropped its sender, all allocations pass.
            let _ = gate.entered.lock().unwrap().send(());
            let _ = gate.leave.lock().unwrap().recv();
        }
        let (start, bytes) = block(bytes);
        self.state().host.insert(start.as_ptr() as usize, bytes);
        Ok(start)
    }

    fn free_host(&self, start: NonNull<u8>) {
        give_back(&mut self.state().host, start);
    }

    unsafe fn copy_in(
        &self,
        to: NonNull<u8>,
        from: *const u8,
        bytes: usize,
        stream: DriverHandle,
    ) -> Result<()> {
        let mut state = self.state();
        state.note("copy_in")?;
        state.put(stream, Step { from: from as usize, to: to.as_ptr() as usize, bytes });
        Ok(())
    }

    unsafe fn copy_out(
        &self,
        to: *mut u8,
        from: NonNull<u8>,
        bytes: usize,
        stream: DriverHandle,
    ) -> Result<()> {
        let mut state = self.state();
        state.note("copy_out")?;
        state.put(stream, Step { from: from.as_ptr() as usize, to: to as usize, bytes });
        Ok(())
    }

    fn record(&self, event: DriverHandle, stream: DriverHandle) -> Result<()> {
        let mut state = self.state();
        let upto = state.put.get(&stream).copied().unwrap_or(0);
        state.events.insert(event, Some((stream, upto)));
        Ok(())
    }

    fn wait(&self, _: DriverHandle, event: DriverHandle) -> Result<()> {
        // The CPU's provider computes at once, so that the work that it waits for must be done by then.
        self.state().happen(event);
        Ok(())
    }

    fn synchronize(&self, event: DriverHandle) -> Result<()> {
        let mut state = self.state();
        state.happen(event);
        state.note("synchronize")
    }
}
