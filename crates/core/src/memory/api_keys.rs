use async_trait::async_trait;

use super::{MemoryStorage, State};
use crate::identity::{ApiKey, FoundKey, Grant, KeyPrefix, Member, Role, Tenant, User, UserRole};
use crate::ports::{ApiKeys, Renewal};
use crate::{Entity, Error, ErrorKind, Id, Result, Scope, Stored};

impl State {
    /// A person of a tenant, and what their roles permit.
    pub(super) fn member(&mut self, tenant: Id<Tenant>, user: Id<User>) -> Option<Member> {
        let row = self.table::<User>().rows.get(&user).filter(|row| row.tenant == tenant)?;
        let user = row.stored.clone();
        let rows = self.table::<UserRole>().rows.values();
        let theirs = rows.filter(|row| row.stored.user_id == user.id);
        let given: Vec<_> = theirs.map(|row| (row.stored.role_id, row.stored.project_id)).collect();
        let roles = &self.table::<Role>().rows;
        let grant = |(role, project_id)| {
            Some(Grant { permissions: roles.get(&role)?.stored.permissions.clone(), project_id })
        };
        Some(Member { grants: given.into_iter().filter_map(grant).collect(), user })
    }
}

#[async_trait]
impl ApiKeys for MemoryStorage {
    async fn create_key(&self, scope: &Scope, key: ApiKey) -> Result<Stored<ApiKey>> {
        const OPERATION: &str = "api_keys.create";
        let now = self.now();
        let mut state = self.lock();
        state.check_fence(scope, OPERATION, now)?;
        state.check(scope, OPERATION, None, &key)?;
        if state.table::<ApiKey>().rows.values().any(|row| row.stored.prefix == key.prefix) {
            let message = format!("a {} with the same prefix exists", ApiKey::NAME);
            return Err(Error::new(ErrorKind::AlreadyExists, OPERATION, message));
        }
        Ok(state.table().push(scope.tenant(), now, key))
    }

    async fn find_key(&self, prefix: &KeyPrefix) -> Result<Option<FoundKey>> {
        let now = self.now();
        let mut state = self.lock();
        let found = state.table::<ApiKey>().rows.values().find(|row| row.stored.prefix == *prefix);
        let Some((tenant_id, key)) = found.map(|row| (row.tenant, row.stored.clone())) else {
            return Ok(None);
        };
        if state.is_deleted(tenant_id) {
            return Ok(None);
        }
        let owner = key.user_id.and_then(|user| state.member(tenant_id, user));
        Ok(Some(FoundKey { tenant_id, key, owner, now }))
    }

    async fn note_use(&self, scope: &Scope, key: Id<ApiKey>, renewed: Option<Renewal>) -> Result<bool> {
        const OPERATION: &str = "api_keys.note_use";
        let now = self.now();
        let mut state = self.lock();
        let Ok(row) = state.row(scope, OPERATION, key) else { return Ok(false) };
        let key = &mut row.stored.value;
        let renewed = renewed.filter(|renewed| renewed.from == key.hash);
        if key.revoked_at.is_some() || (renewed.is_none() && !key.should_note_use(now)) {
            return Ok(false);
        }
        key.last_used_at = Some(now);
        if let Some(renewed) = renewed {
            key.hash = renewed.to;
        }
        Ok(true)
    }

    async fn revoke_key(&self, scope: &Scope, key: Id<ApiKey>) -> Result<Stored<ApiKey>> {
        const OPERATION: &str = "api_keys.revoke";
        let now = self.now();
        let mut state = self.lock();
        state.check_fence(scope, OPERATION, now)?;
        let stored = &mut state.row(scope, OPERATION, key)?.stored;
        if stored.revoked_at.is_none() {
            stored.value.revoked_at = Some(now);
            stored.version += 1;
            stored.updated_at = now;
        }
        Ok(stored.clone())
    }
}
