use super::user::check_email;
use crate::Invalid;

/// A person, whatever tenants they belong to (003 §1 users).
///
/// - It belongs to no tenant, so it is not an [`Entity`](crate::Entity). What it is in a tenant is a
///   [`User`](super::User), of whom [`Identities::link_user`](crate::ports::Identities::link_user) says who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The address, unique among all persons whatever its case.
    pub email: String,
    /// The name that people see.
    pub name: Option<String>,
    /// A picture, by its address.
    pub avatar_url: Option<String>,
    /// Whether the person has proven that the address is theirs.
    pub email_verified: bool,
}

impl Identity {
    /// A person with an address that nobody has proven yet.
    pub fn new(email: impl Into<String>) -> Self {
        Self { email: email.into(), name: None, avatar_url: None, email_verified: false }
    }

    /// Checks the value alone; a store calls it before it writes.
    pub fn validate(&self) -> Result<(), Invalid> {
        check_email(&self.email)?;
        for (field, text) in [("name", &self.name), ("avatar_url", &self.avatar_url)] {
            if let Some(text) = text {
                Invalid::text(field, text, 0, 2_000)?;
                Invalid::no_nul(field, text)?;
            }
        }
        Ok(())
    }
}
