//! The devices of this machine, and a model on one: as many sessions as it has instances, each for one thread of its crew.
//!
//! Not here: the threads (`crew`), what a session on a device does (the runtime's `device`).
#![allow(unsafe_code, reason = "a run in the air reads and writes buffers that somebody else holds")]

use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headgate_core::error::Result;
use headgate_core::spec::Device;
use headgate_core::tensor::Signature;
use headgate_runtime::device::cuda::Cuda;
use headgate_runtime::device::nvml::{self, DeviceUsage};
use headgate_runtime::device::{DeviceSession, Driver, InFlightRun};
use headgate_runtime::{Binding, Library, SessionOptions};

use super::executable::Executable;

/// The sessions of a model on one device.
pub(crate) struct DeviceSessions {
    signature: Signature,
    remark: Option<String>,
    instances: SessionInstances,
    /// Which of them computes what nobody's thread asks for.
    next: AtomicUsize,
}

/// One session for each instance.
struct SessionInstances {
    sessions: Vec<Mutex<DeviceSession>>,
    driver: Arc<dyn Driver>,
}

impl DeviceSessions {
    /// Loads a model file as often as there are instances.
    ///
    /// # Errors
    /// As [`DeviceSession::load`].
    pub(crate) fn load(
        library: &'static Library,
        driver: &Arc<dyn Driver>,
        path: &Path,
        options: SessionOptions,
        instances: usize,
    ) -> Result<DeviceSessions> {
        let mut made = SessionInstances { sessions: Vec::new(), driver: driver.clone() };
        for _ in 0..instances.max(1) {
            // The provider's start is not safe when several sessions are made on a device at once.
            let lock_exclusive = driver.creation_lock().lock().unwrap_or_else(PoisonError::into_inner);
            let session = DeviceSession::load(library, driver.clone(), path, options);
            drop(lock_exclusive);
            made.sessions.push(Mutex::new(session?));
        }
        let (signature, remark) = lock(&made.sessions[0]).described();
        Ok(DeviceSessions { signature, remark, instances: made, next: AtomicUsize::new(0) })
    }

    fn session(&self, instance: usize) -> MutexGuard<'_, DeviceSession> {
        lock(&self.instances.sessions[instance])
    }
}

impl Drop for SessionInstances {
    fn drop(&mut self) {
        let (sessions, driver) = (std::mem::take(&mut self.sessions), self.driver.clone());
        if let Ok(_alone) = driver.creation_lock().try_lock() {
            return free_sessions(sessions, &*driver);
        }
        // Another is being made or warmed, which may take seconds that nobody here has to spare. Without a thread more, the sessions
        // stay until the process ends.
        let sessions = ManuallyDrop::new(sessions);
        let later = move || {
            let _alone = driver.creation_lock().lock().unwrap_or_else(PoisonError::into_inner);
            free_sessions(ManuallyDrop::into_inner(sessions), &*driver);
        };
        drop(std::thread::Builder::new().name("hg-release".to_owned()).spawn(later));
    }
}

/// Frees sessions while none is made or warmed: what a session keeps for each thread that ran it is taken from that thread then.
fn free_sessions(sessions: Vec<Mutex<DeviceSession>>, driver: &dyn Driver) {
    if driver.is_lost() {
        // The provider ends the process when a device that is gone does not take its memory back.
        std::mem::forget(sessions);
    }
}

impl Executable for DeviceSessions {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn remark(&self) -> Option<&str> {
        self.remark.as_deref()
    }

    fn run(&self, binding: &mut Binding) -> Result<()> {
        // Warming comes here: every instance has its turn.
        let instance = self.next.fetch_add(1, Relaxed) % self.instances();
        self.session(instance).run(binding)
    }

    fn check_outputs(&self, binding: &mut Binding) -> Result<()> {
        (0..self.instances()).try_for_each(|instance| self.session(instance).check_outputs(binding))
    }

    fn lock_exclusive(&self) -> Option<MutexGuard<'_, ()>> {
        Some(self.instances.driver.creation_lock().lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn instances(&self) -> usize {
        self.instances.sessions.len()
    }

    fn driver(&self) -> Option<&Arc<dyn Driver>> {
        Some(&self.instances.driver)
    }

    unsafe fn begin(&self, instance: usize, binding: &mut Binding) -> Result<InFlightRun> {
        // SAFETY: the caller's promise is the same.
        unsafe { self.session(instance).begin(binding) }
    }

    fn finish(&self, instance: usize, flight: InFlightRun, binding: &mut Binding) -> Result<()> {
        self.session(instance).finish(flight, binding)
    }
}

fn lock(session: &Mutex<DeviceSession>) -> MutexGuard<'_, DeviceSession> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The devices of this machine, opened when a version first asks for one.
#[derive(Default)]
pub struct Devices {
    /// NVIDIA's libraries beside the driver, in the order in which they need each other.
    libraries: Vec<PathBuf>,
    opened: Mutex<BTreeMap<u16, Arc<Cuda>>>,
    /// What stands in for NVIDIA's driver.
    replaced: Option<Arc<dyn Driver>>,
}

impl Devices {
    /// Devices whose libraries lie there.
    pub fn new(libraries: Vec<PathBuf>) -> Devices {
        Devices { libraries, ..Devices::default() }
    }

    /// Devices that are all this one: what computes on them can be tested where there is none.
    pub fn replaced_by(driver: Arc<dyn Driver>) -> Devices {
        Devices { replaced: Some(driver), ..Devices::default() }
    }

    /// The driver of a device; none for the processor.
    ///
    /// # Errors
    /// `model_load_failed` when there is no driver or no such device, and what would bring it.
    pub(crate) fn driver(&self, device: Device) -> Result<Option<Arc<dyn Driver>>> {
        let Device::Cuda(number) = device else { return Ok(None) };
        if let Some(driver) = &self.replaced {
            return Ok(Some(driver.clone()));
        }
        let cuda = Cuda::open(number, &self.libraries)?;
        self.lock_opened().insert(number, cuda.clone());
        Ok(Some(cuda))
    }

    /// What the devices in use are doing, where that can be known.
    pub fn readings(&self) -> Vec<(Device, DeviceUsage)> {
        let read = |(number, cuda): (&u16, &Arc<Cuda>)| Some((Device::Cuda(*number), nvml::read(cuda.uuid)?));
        self.lock_opened().iter().filter_map(read).collect()
    }

    fn lock_opened(&self) -> MutexGuard<'_, BTreeMap<u16, Arc<Cuda>>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
