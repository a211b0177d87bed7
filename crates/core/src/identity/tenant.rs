use async_trait::async_trait;

use crate::governance::TimeZone;
use crate::{Id, Invalid, Result, Stored};

/// An organisation that everything belongs to (000 §5.2 tenants; 003 organizations).
///
/// - It is the root, so it is not an [`Entity`](crate::Entity): no scope can exist before it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// The name that people see, 1 to 100 characters.
    pub name: String,
    /// The short name in addresses, unique among all tenants.
    pub slug: Slug,
    /// How many of its runs may be worked at once, 1 to 100,000; as many as there are workers, if none.
    pub max_concurrent_runs: Option<i32>,
    /// Where its days, weeks and months begin, for its budgets; universal time unless set.
    pub time_zone: TimeZone,
}

impl Tenant {
    /// A tenant without a limit on its runs, in universal time.
    pub fn new(name: impl Into<String>, slug: Slug) -> Self {
        Self { name: name.into(), slug, max_concurrent_runs: None, time_zone: TimeZone::UTC }
    }

    /// Checks the value alone; a store calls it before it writes.
    pub fn validate(&self) -> Result<(), Invalid> {
        Invalid::text("name", &self.name, 1, 100)?;
        Invalid::no_nul("name", &self.name)?;
        Self::check_limit(self.max_concurrent_runs)
    }

    /// Checks a limit on concurrent runs.
    pub fn check_limit(most: Option<i32>) -> Result<(), Invalid> {
        match most {
            Some(most) if !(1..=100_000).contains(&most) => {
                Err(Invalid::new("max_concurrent_runs", "must be 1 to 100,000, or none"))
            }
            Some(_) | None => Ok(()),
        }
    }
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

    /// Limits how many of a tenant's runs are worked at once; runs under way go on.
    ///
    /// - Fails with `NotFound`, and with `Invalid` for a limit that is none.
    async fn limit_runs(&self, tenant: Id<Tenant>, most: Option<i32>) -> Result<Stored<Tenant>>;

    /// Sets where a tenant's days begin; periods of budgets that have begun under another zone keep their counters.
    ///
    /// - Fails with `NotFound`.
    async fn set_time_zone(&self, tenant: Id<Tenant>, zone: TimeZone) -> Result<Stored<Tenant>>;

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
