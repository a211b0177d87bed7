use async_trait::async_trait;

use serde::{Deserialize, Serialize};

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
    /// Where its days, weeks and months begin, for its budgets; universal time unless set. Periods that have begun under
    /// another zone keep what is spent in them under their names.
    pub time_zone: TimeZone,
    /// Its picture, by its address, up to 2,000 characters (003).
    pub logo_url: Option<String>,
    /// What its admins have set for all of it (003).
    pub settings: TenantSettings,
}

/// What the admins of a tenant set for all of it (003 `settings`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TenantSettings {
    /// For how many days a new API key may count at most, from 1; for as long as who makes it says, if none.
    pub max_key_days: Option<u32>,
}

impl Tenant {
    /// A tenant without a limit on its runs, in universal time.
    pub fn new(name: impl Into<String>, slug: Slug) -> Self {
        Self {
            name: name.into(),
            slug,
            max_concurrent_runs: None,
            time_zone: TimeZone::UTC,
            logo_url: None,
            settings: TenantSettings::default(),
        }
    }

    /// Checks the value alone; a store calls it before it writes.
    pub fn validate(&self) -> Result<(), Invalid> {
        Invalid::text("name", &self.name, 1, 100)?;
        Invalid::no_nul("name", &self.name)?;
        if let Some(url) = &self.logo_url {
            Invalid::text("logo_url", url, 1, 2_000)?;
            Invalid::no_nul("logo_url", url)?;
        }
        if self.settings.max_key_days == Some(0) {
            return Err(Invalid::new("settings_json", "maxKeyDays must be 1 or more, or none"));
        }
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
    /// Creates a tenant, with the [built-in roles](super::BuiltInRole).
    ///
    /// - Fails with [`AlreadyExists`](crate::ErrorKind::AlreadyExists) if the slug is taken, be it by a tenant that was
    ///   deleted, with [`Invalid`](crate::ErrorKind::Invalid) if the name is not 1 to 100 characters.
    async fn create_tenant(&self, tenant: Tenant) -> Result<Stored<Tenant>>;

    /// Limits how many of a tenant's runs are worked at once; runs under way go on.
    ///
    /// - Fails with `NotFound`, and with `Invalid` for a limit that is none.
    async fn limit_runs(&self, tenant: Id<Tenant>, most: Option<i32>) -> Result<Stored<Tenant>>;

    /// Replaces a tenant's value, slug and all, if nobody has since it was read.
    ///
    /// - Fails with [`Conflict`](crate::ErrorKind::Conflict) if the version is no longer the newest, with `NotFound` if
    ///   it was deleted, and as `create_tenant` does.
    async fn update_tenant(&self, tenant: &Stored<Tenant>) -> Result<Stored<Tenant>>;

    /// Deletes a tenant: from then on it counts as gone, and what belongs to it stays where it is. One that was deleted
    /// stays so.
    ///
    /// - It is found neither by its id nor by its slug, and is no [`Membership`](super::Membership). Its API keys are
    ///   not found, and nobody is a [`Member`](super::Member) of it.
    /// - Its runs are not taken, those that were taken are not begun, none is counted among those that wait, and new ones
    ///   are refused with [`Conflict`](crate::ErrorKind::Conflict). What is at work goes on to its end.
    /// - Fails with `NotFound` if it never was.
    async fn delete_tenant(&self, tenant: Id<Tenant>) -> Result<()>;

    /// Brings the built-in roles of every tenant up to this version; gives how many were missing or differed.
    ///
    /// - Roles of the tenants' own stay as they are. Doing it again changes nothing.
    async fn seed_roles(&self) -> Result<usize>;

    /// A tenant.
    ///
    /// - Fails with `NotFound`.
    async fn tenant(&self, tenant: Id<Tenant>) -> Result<Stored<Tenant>>;
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
