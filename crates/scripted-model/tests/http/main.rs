//! The server over real HTTP: both APIs, whole and streamed answers, faults, delays, limits, the record.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod client;
mod faults;
mod limits;
