use async_trait::async_trait;

use crate::{Invalid, Result, Stored};

/// An organisation that everything belongs to (000 §5.2 tenants; 003 organizations).
///
/// - It is the root, so it is not an [`Entity`](crate::Entity): no scope can exist before it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// The name that people see, 1 to 100 characters.
    pub name: String,
    /// The short name in addresses, unique among all tenants.
    pub slug: Slug,
}

/// A short name in addresses: 1 to 63 of `a-z`, `0-9` and `-`, not at either end a `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slug(String);

impl Slug {
    /// Checks the text.
    pub fn parse(text: impl Into<String>) -> Result<Self, Invalid> {
        let text = text.into();
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if text.is_empty()
            || text.len() > 63
            || !text.bytes().all(inner)
            || text.starts_with('-')
            || text.ends_with('-')
        {
            let rule = "must be 1 to 63 of a-z, 0-9 and `-`, and neither begin nor end with `-`";
            return Err(Invalid::new("slug", rule));
        }
        Ok(Self(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Creates and finds tenants; the one port without a scope, for set-up and authentication.
#[async_trait]
pub trait Tenants: Send + Sync {
    /// Creates a tenant.
    ///
    /// - Fails with [`AlreadyExists`](crate::ErrorKind::AlreadyExists) if the slug is taken, with
    ///   [`Invalid`](crate::ErrorKind::Invalid) if the name is not 1 to 100 characters.
    async fn create_tenant(&self, tenant: Tenant) -> Result<Stored<Tenant>>;

    /// The tenant with this slug, if any.
    async fn tenant_by_slug(&self, slug: &Slug) -> Result<Option<Stored<Tenant>>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs() {
        assert!(Slug::parse("acme-2").is_ok());
        for bad in ["", "-a", "a-", "A", "a b", "é", &"a".repeat(64)] {
            assert!(Slug::parse(bad).is_err(), "{bad:?}");
        }
    }
}
