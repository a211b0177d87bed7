//! The verbs of Assembly Lime: submit, claim, prepare, drive, record and settle agent runs.
//!
//! - [`Factory`] is what a server holds: it submits runs, shows them live, and does to them what people ask for:
//!   cancel, pause, resume, say something, answer a question, follow up.
//! - [`Guarded`] is a factory whose calls ask whether their caller may, and [`Authenticator`] says who calls.
//! - [`Worker`] is what a worker process runs: it leases runs and works them, several at once, until it is told to
//!   stop.
//! - Both are made of ports only: give them any storage, providers, repositories and workspaces that keep the
//!   ports' contracts.
//!
//! The life of a run: claim -> a checkout on a fresh branch -> what the agent is told -> the agent at work, its
//! events recorded in order -> the diff -> a commit, brought to the repository -> the diff stored -> settled.

mod acting;
mod asked;
mod attempt;
mod authentication;
mod clock;
mod config;
mod control;
mod effects;
mod entropy;
mod factory;
mod heartbeat;
mod paths;
mod patience;
mod recorder;
mod shelf;
mod steps;
mod submit;
mod told;
mod vault;
mod worker;

pub use acting::{Acting, Call, Guarded};
pub use authentication::{Authenticator, IssuedKey, NewKey};
pub use clock::SystemClock;
pub use config::{KeepWorktree, WorkerConfig};
pub use entropy::SystemEntropy;
pub use factory::{Factory, FactoryBuilder};
pub use told::Preview;
pub use vault::{Rotated, Sealer, Vault};
pub use worker::{RunningWorker, Worker};
