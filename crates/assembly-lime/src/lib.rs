#![doc = include_str!("../README.md")]

pub use lime_core::*;
pub use lime_engine::{
    Acting, Authenticator, Call, Factory, FactoryBuilder, Guarded, IssuedKey, KeepWorktree, NewKey, Preview,
    Rotated, RunningWorker, Sealer, SystemClock, SystemEntropy, Vault, Worker, WorkerConfig,
};

/// Local git: repositories on disk or at any clonable URL, and a worktree for each attempt.
#[cfg(feature = "git")]
pub mod git {
    pub use lime_git::*;
}

/// PostgreSQL: on a server, or inside the process with the feature `embedded`.
#[cfg(feature = "postgres")]
pub mod postgres {
    pub use lime_storage_postgres::*;
}

/// Claude Code as an agent provider.
#[cfg(feature = "claude")]
pub mod claude {
    pub use lime_provider_claude::*;
}

/// Codex as an agent provider.
#[cfg(feature = "codex")]
pub mod codex {
    pub use lime_provider_codex::*;
}

/// Recorded sessions as an agent provider.
#[cfg(feature = "replay")]
pub mod replay {
    pub use lime_provider_replay::*;
}
