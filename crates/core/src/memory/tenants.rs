//! Tenants that are there, those that were deleted, and the roles that each of them has.

use chrono::{DateTime, Utc};

use super::{MemoryStorage, State};
use crate::identity::{BuiltInRole, Role, Slug, Tenant};
use crate::{Error, ErrorKind, Id, Result, Stored};

impl State {
    pub(super) fn is_deleted(&self, tenant: Id<Tenant>) -> bool {
        self.deleted_tenants.contains(&tenant)
    }

    /// A tenant that was not deleted.
    pub(super) fn tenant_mut(
        &mut self,
        operation: &'static str,
        tenant: Id<Tenant>,
    ) -> Result<&mut Stored<Tenant>> {
        let gone = self.is_deleted(tenant);
        let found = self.tenants.iter_mut().find(|known| known.id == tenant && !gone);
        found.ok_or_else(|| Error::not_found(operation, "tenant", tenant))
    }

    /// Whether runs can be submitted to a tenant.
    pub(super) fn check_open(&self, operation: &'static str, tenant: Id<Tenant>) -> Result<()> {
        if self.is_deleted(tenant) {
            let message = "the tenant was deleted, and takes no new runs";
            return Err(Error::new(ErrorKind::Conflict, operation, message).with("tenant", tenant));
        }
        Ok(())
    }

    pub(super) fn check_slug(
        &self,
        operation: &'static str,
        this: Option<Id<Tenant>>,
        slug: &Slug,
    ) -> Result<()> {
        if self.tenants.iter().any(|known| known.slug == *slug && Some(known.id) != this) {
            let message = format!("a tenant with the slug {} exists, or was deleted", slug.as_str());
            return Err(Error::new(ErrorKind::AlreadyExists, operation, message));
        }
        Ok(())
    }

    /// Inserts the built-in roles that a tenant lacks and changes those that differ; gives how many these are.
    pub(super) fn seed_roles_of(&mut self, tenant: Id<Tenant>, now: DateTime<Utc>) -> usize {
        let mut changed = 0;
        for role in BuiltInRole::ALL.iter().map(|role| Role::built_in(*role)) {
            let table = self.table::<Role>();
            let same_name =
                |row: &&mut super::Row<Role>| row.tenant == tenant && row.stored.name == role.name;
            match table.rows.values_mut().find(same_name) {
                None => drop(table.push(tenant, now, role)),
                Some(row) if !row.stored.is_built_in || row.stored.value == role => continue,
                Some(row) => {
                    row.stored.value = role;
                    row.stored.version += 1;
                    row.stored.updated_at = now;
                }
            }
            changed += 1;
        }
        changed
    }
}

impl MemoryStorage {
    pub(super) fn replace_tenant(&self, tenant: &Stored<Tenant>) -> Result<Stored<Tenant>> {
        const OPERATION: &str = "tenants.update";
        tenant.value.validate().map_err(|invalid| invalid.refused(OPERATION, "tenant"))?;
        let now = self.now();
        let mut state = self.lock();
        let newest = state.tenant_mut(OPERATION, tenant.id)?.version;
        if newest != tenant.version {
            let message = format!("the tenant {} has been changed meanwhile; read it again", tenant.id);
            return Err(Error::new(ErrorKind::Conflict, OPERATION, message)
                .with("version", tenant.version)
                .with("newest", newest));
        }
        state.check_slug(OPERATION, Some(tenant.id), &tenant.slug)?;
        let stored = state.tenant_mut(OPERATION, tenant.id)?;
        stored.value = tenant.value.clone();
        stored.version += 1;
        stored.updated_at = now;
        Ok(stored.clone())
    }
}
