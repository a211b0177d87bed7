//! Who: tenants, people in them, API keys, and what each of them may do.

mod api_key;
mod authority;
mod caller;
mod key_secret;
mod matrix;
mod pepper;
mod permission;
mod person;
mod role;
mod session;
mod tenant;
mod user;

pub use api_key::{ApiKey, KeyRefused};
pub use authority::{Authority, Denied, Grant, LimitedBy, Reach, Target, authorize};
pub use caller::{Caller, FoundKey, Member, Membership, SignedIn};
pub use key_secret::{ApiKeySecret, KeyPrefix, MalformedKey};
pub use pepper::{KeyHash, Pepper, Peppers};
pub use permission::{Action, Permission, Permissions, Resource};
pub use person::Identity;
pub use role::{BuiltInRole, Role, UserRole};
pub use session::{LoginSession, NewSession, SessionRefused, SessionToken, TokenHash};
pub use tenant::{Slug, Tenant, TenantSettings, Tenants};
pub use user::{User, UserStatus};
