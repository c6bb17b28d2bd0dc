//! The configuration, which the control plane writes once before the start.

use std::path::PathBuf;
use std::time::Duration;

use headgate_core::error::{Code, Error, Result};
use serde::Deserialize;

/// The configuration. In its JSON form every field but the address has a default.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The address of the data port, `host:port`; port 0 takes any free one.
    pub http: String,
    /// A second address, for clients of gRPC. Both addresses speak all protocols.
    #[serde(default)]
    pub grpc: Option<String>,
    /// Whether clients may load and unload endpoints.
    #[serde(default)]
    pub allow_repository_control: bool,
    /// IO threads; 0 takes the number of cores given to the process.
    #[serde(default)]
    pub io_threads: usize,
    /// Pool threads; 0 takes the number of cores given to the process.
    #[serde(default)]
    pub pool_threads: usize,
    /// The ONNX Runtime library.
    #[serde(default)]
    pub library: Option<PathBuf>,
    /// The libraries that devices need beside their driver, in the order in which they are opened.
    #[serde(default)]
    pub device_libraries: Vec<PathBuf>,
    /// The most memory for models, in bytes; no bound if missing.
    #[serde(default)]
    pub memory_budget_bytes: Option<u64>,
    /// How long a request waits for a model that is out of memory, in milliseconds.
    #[serde(default = "default_load_wait")]
    pub load_wait_ms: u64,
    /// How long loading and warming the state of an endpoint may take, in milliseconds.
    #[serde(default = "default_load_timeout")]
    pub load_timeout_ms: u64,
    /// The largest request body, in bytes.
    #[serde(default = "default_max_body")]
    pub max_body_bytes: usize,
    /// Responses with more bytes than this are sent in gzip to clients that accept it.
    #[serde(default = "default_gzip_above")]
    pub gzip_above_bytes: usize,
    /// The most memory for large requests in progress (64 KiB and more), in bytes. It counts the body, the decompressed body, the tensors
    /// and the response. 0 takes 2 GiB, or eight of the largest bodies if that is more.
    #[serde(default)]
    pub large_request_bytes: usize,
    /// The most memory for small requests in progress, in bytes; 0 takes an eighth of that for large ones.
    #[serde(default)]
    pub small_request_bytes: usize,
    /// The most connections at once. If more arrive, connections that wait for their client are closed.
    #[serde(default = "default_max_connections")]
    pub max_connections: usize,
    /// How long a connection may stay idle, in milliseconds.
    #[serde(default = "default_idle")]
    pub idle_ms: u64,
    /// How long an idle connection stays open once the gateway stops, for a request that the client has sent, in milliseconds.
    #[serde(default = "default_drain_idle")]
    pub drain_idle_ms: u64,
    /// How long a request's head may take from its first byte, in milliseconds.
    #[serde(default = "default_head_timeout")]
    pub head_timeout_ms: u64,
    /// How long a request's body may take, in milliseconds.
    #[serde(default = "default_body_timeout")]
    pub body_timeout_ms: u64,
    /// The file of the access log; no log if missing.
    #[serde(default)]
    pub access_log: Option<PathBuf>,
    /// The share of requests that are logged.
    #[serde(default = "default_access_log_share")]
    pub access_log_share: f64,
    /// The most memory for sketches, in bytes.
    #[serde(default = "default_sketch_memory")]
    pub sketch_memory_bytes: usize,
    /// Whether inputs and outputs are sketched.
    #[serde(default = "default_true")]
    pub sketches: bool,
    /// The folder of captured requests; nothing is captured if missing.
    #[serde(default)]
    pub capture_folder: Option<PathBuf>,
    /// The most disk space of captured requests, over all endpoints, in bytes.
    #[serde(default = "default_capture_bytes")]
    pub capture_bytes: u64,
    /// The folder of the keys of receipts, and of those that have been used; they are lost with the process if missing.
    #[serde(default)]
    pub feedback_folder: Option<PathBuf>,
    /// The share of the cores that shadows may take together.
    #[serde(default = "default_shadow_cpu")]
    pub shadow_cpu: f64,
    /// The most memory that copies of requests for shadows may hold, in bytes.
    #[serde(default = "default_shadow_memory")]
    pub shadow_memory_bytes: usize,
    /// The version in the server metadata.
    #[serde(default)]
    pub version: String,
}

/// The least memory for large requests, in bytes.
const LARGE_BYTES: usize = 2 << 30;

fn default_max_body() -> usize {
    64 << 20
}
fn default_load_wait() -> u64 {
    5_000
}
fn default_load_timeout() -> u64 {
    300_000
}
fn default_gzip_above() -> usize {
    16 << 10
}
fn default_max_connections() -> usize {
    10_000
}
fn default_idle() -> u64 {
    75_000
}
fn default_drain_idle() -> u64 {
    2_000
}
fn default_head_timeout() -> u64 {
    10_000
}
fn default_body_timeout() -> u64 {
    30_000
}
fn default_sketch_memory() -> usize {
    256 << 20
}
fn default_capture_bytes() -> u64 {
    16 << 30
}
fn default_shadow_cpu() -> f64 {
    0.25
}
fn default_shadow_memory() -> usize {
    256 << 20
}
fn default_access_log_share() -> f64 {
    1.0
}
fn default_true() -> bool {
    true
}

impl Config {
    /// Reads the JSON form and fills in the number of threads.
    ///
    /// # Errors
    /// `invalid_argument` with the message of the parser.
    pub fn from_json(json: &[u8]) -> Result<Config> {
        let mut json = serde_json::Deserializer::from_slice(json);
        // The error names the field, which the parser alone does not.
        let mut config: Config = serde_path_to_error::deserialize(&mut json)
            .map_err(|error| Error::new(Code::InvalidArgument, format!("gateway configuration: {error}")))?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for threads in [&mut config.io_threads, &mut config.pool_threads] {
            if *threads == 0 {
                *threads = cores;
            }
        }
        if !(0.0..=1.0).contains(&config.shadow_cpu) {
            let words = format!("shadow_cpu is {}; it must be from 0 to 1", config.shadow_cpu);
            return Err(Error::invalid(format!("gateway configuration: {words}")));
        }
        if config.large_request_bytes == 0 {
            config.large_request_bytes = LARGE_BYTES.max(config.max_body_bytes.saturating_mul(8));
        }
        if config.small_request_bytes == 0 {
            config.small_request_bytes = config.large_request_bytes / 8;
        }
        Ok(config)
    }

    /// The cores that shadows may take together.
    pub fn shadow_cores(&self) -> f64 {
        self.shadow_cpu * std::thread::available_parallelism().map_or(1, usize::from) as f64
    }

    /// How long a connection may stay idle.
    pub fn idle(&self) -> Duration {
        Duration::from_millis(self.idle_ms)
    }

    /// How long an idle connection stays open once the gateway stops.
    pub fn drain_idle(&self) -> Duration {
        Duration::from_millis(self.drain_idle_ms)
    }

    /// How long a request waits for a model that is out of memory.
    pub fn load_wait(&self) -> Duration {
        Duration::from_millis(self.load_wait_ms)
    }

    /// How long a load may take.
    pub fn load_timeout(&self) -> Duration {
        Duration::from_millis(self.load_timeout_ms)
    }

    /// How long a request's head may take.
    pub fn head_timeout(&self) -> Duration {
        Duration::from_millis(self.head_timeout_ms)
    }

    /// How long a request's body may take.
    pub fn body_timeout(&self) -> Duration {
        Duration::from_millis(self.body_timeout_ms)
    }
}
