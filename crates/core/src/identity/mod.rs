//! Who: tenants, people in them, API keys, and what each of them may do.

mod api_key;
mod authority;
mod key_secret;
mod matrix;
mod pepper;
mod permission;
mod role;
mod tenant;
mod user;

pub use api_key::{ApiKey, KeyRefused};
pub use authority::{Authority, Denied, Grant, LimitedBy, Reach, Target, authorize};
pub use key_secret::{ApiKeySecret, KeyPrefix, MalformedKey};
pub use pepper::{KeyHash, Pepper, Peppers};
pub use permission::{Action, Permission, Permissions, Resource};
pub use role::{BuiltInRole, Role, UserRole};
pub use tenant::{Slug, Tenant, Tenants};
pub use user::{User, UserStatus};
