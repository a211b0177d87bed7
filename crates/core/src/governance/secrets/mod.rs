//! Secrets at rest: each value is sealed with a key of its tenant, and those keys are wrapped by a master key.

mod cipher;
mod data_key;
mod master_keys;
mod sealing;

pub use data_key::{Cell, DataKey, DataKeyBytes, Sealed, TenantKey};
pub use master_keys::{MasterKeyId, MasterKeys, WrappedKey};
pub use sealing::{SealedStore, Sealing};
