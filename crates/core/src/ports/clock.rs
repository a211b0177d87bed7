use chrono::{DateTime, Utc};

/// The time of day, so that a test can set it.
///
/// - Leases and recorded times use the database's clock instead.
#[cfg_attr(feature = "mocks", mockall::automock)]
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> DateTime<Utc>;
}
