//! Captured requests in files.
//!
//! A file is an Arrow IPC stream of the requests that one version answered: a schema that follows from the version's signature, and
//! record batches. The open file has a name of its own and is renamed when it is closed; one that a crash left is cut to its last
//! complete record batch. Files are deleted, the oldest first, by age and by the space that they take.
//! Not here: which requests are captured, the queue and the thread that writes (`headgate-server`).
//! Read first: `layout`, `batch`, `ipc`, then `file`, `endpoint`, `store`; `reader` reads the
//! rows back.

mod batch;
pub mod clock;
mod columns;
pub mod counters;
mod endpoint;
mod file;
mod folder;
mod free_space;
mod ipc;
pub mod layout;
mod metadata;
mod open_stream;
pub mod reader;
pub mod row;
pub mod store;
mod stream;
mod tensor_column;
