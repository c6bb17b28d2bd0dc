//! Feedback on answers: what a document declares, which receipts have been used, and the sums of what was given.
//!
//! Pure: no clock, no key, no file. Read in this order: [`declared`] (a feedback of a document, and the number that a value stands for),
//! [`seen`] (the receipts that have been used), [`moments`] (counts, sums and sums of squares).
//!
//! Not here: receipts and their key (`headgate-server`), the evidence of a trial ([`crate::trial::feedback`]), the gate
//! ([`crate::gates::feedback`]).

pub mod declared;
pub mod moments;
pub mod seen;
