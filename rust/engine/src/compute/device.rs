//! The devices of this machine, and a model on a device: one session for each instance, and each session for one device worker.
//!
//! Not here: the workers (`workers/device_workers`), what a session on a device does (the runtime's `device`).
#![allow(unsafe_code, reason = "a run in flight reads and writes buffers that another owner holds")]

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
    /// The instance of the next run that belongs to no worker, as in warming.
    next: AtomicUsize,
}

/// One session for each instance.
struct SessionInstances {
    sessions: Vec<Mutex<DeviceSession>>,
    driver: Arc<dyn Driver>,
}

impl DeviceSessions {
    /// Loads a model file once for each instance.
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
        let mut loaded = SessionInstances { sessions: Vec::new(), driver: driver.clone() };
        for _ in 0..instances.max(1) {
            // The provider's start is not safe if several sessions are made on a device at once.
            let lock_exclusive = driver.creation_lock().lock().unwrap_or_else(PoisonError::into_inner);
            let session = DeviceSession::load(library, driver.clone(), path, options);
            drop(lock_exclusive);
            loaded.sessions.push(Mutex::new(session?));
        }
        let (signature, remark) = lock(&loaded.sessions[0]).described();
        Ok(DeviceSessions { signature, remark, instances: loaded, next: AtomicUsize::new(0) })
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
        // Another session is made or warmed, which may take seconds; this thread must not wait for it. If there is no further thread, the
        // sessions stay until the process ends.
        let sessions = ManuallyDrop::new(sessions);
        let later = move || {
            let _alone = driver.creation_lock().lock().unwrap_or_else(PoisonError::into_inner);
            free_sessions(ManuallyDrop::into_inner(sessions), &*driver);
        };
        drop(std::thread::Builder::new().name("hg-release".to_owned()).spawn(later));
    }
}

/// Frees sessions while none is made or warmed. Each session then takes its memory back from every thread that ran it.
fn free_sessions(sessions: Vec<Mutex<DeviceSession>>, driver: &dyn Driver) {
    if driver.is_lost() {
        // The provider ends the process if a lost device does not take its memory back.
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
        // Warming calls this. Every instance takes a turn.
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
        // SAFETY: the caller keeps the same contract.
        unsafe { self.session(instance).begin(binding) }
    }

    fn finish(&self, instance: usize, flight: InFlightRun, binding: &mut Binding) -> Result<()> {
        self.session(instance).finish(flight, binding)
    }
}

fn lock(session: &Mutex<DeviceSession>) -> MutexGuard<'_, DeviceSession> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The devices of this machine. Each is opened when a version first needs it.
#[derive(Default)]
pub struct Devices {
    /// NVIDIA's libraries beside the driver, each after those that it needs.
    libraries: Vec<PathBuf>,
    opened: Mutex<BTreeMap<u16, Arc<Cuda>>>,
    /// Replaces NVIDIA's driver in tests.
    replaced: Option<Arc<dyn Driver>>,
}

impl Devices {
    /// Devices whose libraries are these files.
    pub fn new(libraries: Vec<PathBuf>) -> Devices {
        Devices { libraries, ..Devices::default() }
    }

    /// Devices that are all this driver. Tests run code for devices with it on machines without any.
    pub fn replaced_by(driver: Arc<dyn Driver>) -> Devices {
        Devices { replaced: Some(driver), ..Devices::default() }
    }

    /// The driver of a device; `None` for the processor.
    ///
    /// # Errors
    /// `model_load_failed` if there is no driver or no such device, and what would bring it.
    pub(crate) fn driver(&self, device: Device) -> Result<Option<Arc<dyn Driver>>> {
        let Device::Cuda(number) = device else { return Ok(None) };
        if let Some(driver) = &self.replaced {
            return Ok(Some(driver.clone()));
        }
        let cuda = Cuda::open(number, &self.libraries)?;
        self.lock_opened().insert(number, cuda.clone());
        Ok(Some(cuda))
    }

    /// The load and memory of the devices in use, if the system tells.
    pub fn readings(&self) -> Vec<(Device, DeviceUsage)> {
        let read = |(number, cuda): (&u16, &Arc<Cuda>)| Some((Device::Cuda(*number), nvml::read(cuda.uuid)?));
        self.lock_opened().iter().filter_map(read).collect()
    }

    fn lock_opened(&self) -> MutexGuard<'_, BTreeMap<u16, Arc<Cuda>>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
