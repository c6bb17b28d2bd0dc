//! The evidence of a trial: what the versions of one endpoint did with requests that the slot table gave them, counted for itself.
//!
//! A trial is on while the slot table gives slots to more than one version. It belongs to one attempt (the salt of the table), one
//! champion and one sticky key; its arms are the champion and the challengers. Everything else that a version answers (requests that
//! name it, that a rule sends to it, or that it answers in another version's place) is counted apart, and a client's mistake is not
//! counted at all.
//!
//! Read in this order: [`outcome`] (how a request ended), [`units`] (what is known of a sticky key), [`arm`] (the counters of an arm on
//! the IO threads), [`ledger`] and [`rows`] (what they add up to: minutes, first errors in order, gaps), [`feedback`] and [`feedback_count`]
//! (what was given on the answers), [`outputs`], [`output_ledger`] and [`output_count`] (what is in them). No part of it has a clock or a lock.
//!
//! Not here: when a trial begins and ends (the server's registry), what is decided on it.

pub mod arm;
pub mod counts;
pub mod erring;
pub mod event_ring;
pub mod feedback;
pub mod feedback_count;
pub mod ledger;
pub mod non_finite;
pub mod outcome;
pub mod output_count;
pub mod output_ledger;
pub mod outputs;
pub mod pending;
pub mod report;
pub mod rows;
mod shard;
pub mod units;
