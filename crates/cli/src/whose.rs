//! Whose runs a command is about.

use lime_core::governance::Approval;
use lime_core::identity::{Slug, Tenant, Tenants};
use lime_core::runs::AgentRun;
use lime_core::{Id, Scope, Stored};
use lime_storage_postgres::PgStorage;

use crate::environment;
use crate::exit::Failure;

/// A tenant, and the scope of the operator in it.
#[derive(Debug, Clone)]
pub(crate) struct Whose {
    pub(crate) slug: Slug,
    pub(crate) scope: Scope,
}

impl From<Stored<Tenant>> for Whose {
    fn from(tenant: Stored<Tenant>) -> Self {
        Self { scope: Scope::system(tenant.id, Self::reason()), slug: tenant.value.slug }
    }
}

impl Whose {
    /// Why the operator acts: whoever has the database's URL may do everything, and this ends up in traces and audit.
    pub(crate) fn reason() -> String {
        let user = environment::variable("USER");
        format!("{} by the command lime", user.as_deref().unwrap_or("an operator"))
    }

    /// The tenant of this slug.
    pub(crate) async fn named(storage: &PgStorage, slug: &Slug) -> Result<Self, Failure> {
        match storage.tenant_by_slug(slug).await? {
            Some(tenant) => Ok(tenant.into()),
            None => Err(Failure::not_found(format!(
                "there is no tenant {}; `lime tenants list` shows those that there are",
                slug.as_str()
            ))),
        }
    }

    /// The tenant that was asked for, or the only one.
    pub(crate) async fn one(storage: &PgStorage, asked: Option<&Slug>) -> Result<Self, Failure> {
        if let Some(slug) = asked {
            return Self::named(storage, slug).await;
        }
        let mut tenants = storage.all_tenants().await?;
        match tenants.len() {
            0 => Err(Failure::not_found("there is no tenant yet; make one with `lime tenants create SLUG`")),
            1 => Ok(tenants.remove(0).into()),
            many => {
                let names: Vec<_> = tenants.iter().take(5).map(|tenant| tenant.slug.as_str()).collect();
                let more = if many > names.len() { ", …" } else { "" };
                Err(Failure::usage(format!(
                    "there are {many} tenants: name one with --tenant ({}{more})",
                    names.join(", ")
                )))
            }
        }
    }

    /// Every tenant with --all-tenants, otherwise the one.
    pub(crate) async fn list(
        storage: &PgStorage,
        asked: Option<&Slug>,
        all: bool,
    ) -> Result<Vec<Self>, Failure> {
        match (asked, all) {
            (Some(_), true) => Err(Failure::usage("leave either --tenant or --all-tenants out")),
            (_, true) => Ok(storage.all_tenants().await?.into_iter().map(Self::from).collect()),
            (_, false) => Ok(vec![Self::one(storage, asked).await?]),
        }
    }

    /// The tenant that was asked for, or the one that the run belongs to.
    pub(crate) async fn of_run(
        storage: &PgStorage,
        asked: Option<&Slug>,
        run: Id<AgentRun>,
    ) -> Result<Self, Failure> {
        match asked {
            Some(slug) => Self::named(storage, slug).await,
            None => Ok(storage.tenant_of_run(run).await?.into()),
        }
    }

    /// The tenant that was asked for, or the one that the question belongs to.
    pub(crate) async fn of_approval(
        storage: &PgStorage,
        asked: Option<&Slug>,
        approval: Id<Approval>,
    ) -> Result<Self, Failure> {
        match asked {
            Some(slug) => Self::named(storage, slug).await,
            None => Ok(storage.tenant_of_approval(approval).await?.into()),
        }
    }
}
