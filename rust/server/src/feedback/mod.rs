//! Feedback on answers: receipts that answers carry, what is sent with them, and which of them have been used.
//!
//! It is called by `serving`, which gives each version what it needs to issue receipts, by `after`, which adds one to an answer, and by
//! `call`, which reads what clients send. It knows no request, no routing and no trial. Read in this order: [`receipt`] (its bytes and its
//! MAC), [`sent`] (a line that a client sends), [`refusal`] (why it is not taken), [`endpoint`] (what is issued and taken for one endpoint), [`state_file`] (the file that
//! outlives a restart), [`registry`] (all endpoints), [`families`] (metrics).

pub mod endpoint;
pub mod families;
pub mod receipt;
pub mod refusal;
pub mod registry;
pub mod sent;
pub mod state_file;
