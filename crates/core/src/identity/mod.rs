//! Who: tenants, and people in them.

mod tenant;
mod user;

pub use tenant::{Slug, Tenant, Tenants};
pub use user::{User, UserStatus};
