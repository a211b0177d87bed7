//! `lime tenants`: who there is, and their limits.

use chrono::{DateTime, Utc};
use lime_core::governance::TimeZone;
use lime_core::identity::{Slug, Tenant, Tenants};
use lime_core::{Id, Stored};
use lime_storage_postgres::TenantLoad;
use serde::Serialize;

use crate::args::{Most, TenantsCommand};
use crate::desk::Desk;
use crate::exit::Failure;
use crate::out::{Table, say};
use crate::text::{or_dash, stamp};
use crate::whose::Whose;

pub(crate) async fn run(desk: &Desk, command: TenantsCommand) -> Result<(), Failure> {
    match command {
        TenantsCommand::List => list(desk).await,
        TenantsCommand::Create { slug, name } => create(desk, slug, name).await,
        TenantsCommand::TimeZone { slug, zone } => time_zone(desk, &slug, zone).await,
        TenantsCommand::Limit { slug, most: Most(most) } => limit(desk, &slug, most).await,
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TenantView {
    id: Id<Tenant>,
    slug: String,
    name: String,
    max_concurrent_runs: Option<i32>,
    time_zone: &'static str,
    created_at: DateTime<Utc>,
}

impl From<Stored<Tenant>> for TenantView {
    fn from(tenant: Stored<Tenant>) -> Self {
        let Stored { id, created_at, value, .. } = tenant;
        Self {
            id,
            slug: value.slug.as_str().to_owned(),
            name: value.name,
            max_concurrent_runs: value.max_concurrent_runs,
            time_zone: value.time_zone.as_str(),
            created_at,
        }
    }
}

#[derive(Debug, Serialize)]
struct LoadView {
    #[serde(flatten)]
    tenant: TenantView,
    waiting: u64,
    leased: u64,
    paused: u64,
}

#[derive(Debug, Serialize)]
struct Document {
    tenants: Vec<LoadView>,
}

async fn list(desk: &Desk) -> Result<(), Failure> {
    let loads = desk.storage.tenant_loads().await?;
    let view = |load: TenantLoad| LoadView {
        tenant: load.tenant.into(),
        waiting: load.waiting,
        leased: load.leased,
        paused: load.paused,
    };
    let document = Document { tenants: loads.into_iter().map(view).collect() };
    desk.out.answer(&document, || {
        let mut table = Table::new(["ID", "SLUG", "WAITING", "LEASED", "PAUSED", "LIMIT", "CREATED", "NAME"]);
        for LoadView { tenant, waiting, leased, paused } in &document.tenants {
            table.row([
                tenant.id.to_string(),
                tenant.slug.clone(),
                waiting.to_string(),
                leased.to_string(),
                paused.to_string(),
                or_dash(tenant.max_concurrent_runs),
                stamp(tenant.created_at),
                tenant.name.clone(),
            ]);
        }
        table.text()
    })?;
    if !desk.out.json && document.tenants.is_empty() {
        say("There are none; make one with `lime tenants create SLUG`.");
    }
    Ok(())
}

async fn create(desk: &Desk, slug: Slug, name: Option<String>) -> Result<(), Failure> {
    let name = name.unwrap_or_else(|| slug.as_str().to_owned());
    let tenant: TenantView = desk.storage.create_tenant(Tenant::new(name, slug)).await?.into();
    desk.out.answer(&tenant, || format!("Made the tenant {} with the id {}.", tenant.slug, tenant.id))
}

async fn limit(desk: &Desk, slug: &Slug, most: Option<i32>) -> Result<(), Failure> {
    let whose = Whose::named(&desk.storage, slug).await?;
    let tenant: TenantView = desk.storage.limit_runs(whose.scope.tenant(), most).await?.into();
    desk.out.answer(&tenant, || match tenant.max_concurrent_runs {
        Some(most) => {
            format!("At most {most} runs of {} are worked at once; those under way go on.", tenant.slug)
        }
        None => format!("Runs of {} have no limit of their own.", tenant.slug),
    })
}

async fn time_zone(desk: &Desk, slug: &Slug, zone: TimeZone) -> Result<(), Failure> {
    let whose = Whose::named(&desk.storage, slug).await?;
    let mut tenant = Tenants::tenant(&desk.storage, whose.scope.tenant()).await?;
    tenant.value.time_zone = zone;
    let tenant: TenantView = desk.storage.update_tenant(&tenant).await?.into();
    desk.out
        .answer(&tenant, || format!("The days of {} begin at midnight of {}.", tenant.slug, tenant.time_zone))
}
