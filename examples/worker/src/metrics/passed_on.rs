//! Passed on as it is: who may act is nothing that is counted.

use std::time::Duration;

use assembly_lime::governance::{SealedStore, Sealing};
use assembly_lime::identity::{
    ApiKey, FoundKey, Identity, KeyPrefix, LoginSession, Membership, NewSession, SignedIn, Tenant, TokenHash,
    User,
};
use assembly_lime::ports::{ApiKeys, Identities, Renewal, Storage};
use assembly_lime::{Id, Result, Scope, Stored};
use async_trait::async_trait;

use super::Counted;

#[async_trait]
impl ApiKeys for Counted {
    async fn create_key(&self, scope: &Scope, key: ApiKey) -> Result<Stored<ApiKey>> {
        self.inner().create_key(scope, key).await
    }

    async fn find_key(&self, prefix: &KeyPrefix) -> Result<Option<FoundKey>> {
        self.inner().find_key(prefix).await
    }

    async fn note_use(&self, scope: &Scope, key: Id<ApiKey>, renewed: Option<Renewal>) -> Result<bool> {
        self.inner().note_use(scope, key, renewed).await
    }

    async fn revoke_key(&self, scope: &Scope, key: Id<ApiKey>) -> Result<Stored<ApiKey>> {
        self.inner().revoke_key(scope, key).await
    }
}

#[async_trait]
impl Identities for Counted {
    async fn identify(&self, identity: Identity) -> Result<Stored<Identity>> {
        self.inner().identify(identity).await
    }

    async fn link_user(&self, scope: &Scope, user: Id<User>, identity: Id<Identity>) -> Result<()> {
        self.inner().link_user(scope, user, identity).await
    }

    async fn memberships(&self, identity: Id<Identity>) -> Result<Vec<Membership>> {
        self.inner().memberships(identity).await
    }

    async fn open_session(&self, session: NewSession) -> Result<Stored<LoginSession>> {
        self.inner().open_session(session).await
    }

    async fn find_session(&self, token: &TokenHash) -> Result<Option<Stored<LoginSession>>> {
        self.inner().find_session(token).await
    }

    async fn find_member(&self, token: &TokenHash, tenant: Id<Tenant>) -> Result<Option<SignedIn>> {
        self.inner().find_member(token, tenant).await
    }

    async fn extend_session(&self, token: &TokenHash, lasts: Duration) -> Result<Stored<LoginSession>> {
        self.inner().extend_session(token, lasts).await
    }

    async fn end_session(&self, token: &TokenHash) -> Result<()> {
        self.inner().end_session(token).await
    }

    async fn end_sessions(&self, identity: Id<Identity>) -> Result<usize> {
        self.inner().end_sessions(identity).await
    }
}

#[async_trait]
impl<E: Sealing> SealedStore<E> for Counted
where
    dyn Storage: SealedStore<E>,
{
    async fn draw_id(&self, scope: &Scope) -> Result<Id<E>> {
        SealedStore::<E>::draw_id(self.inner(), scope).await
    }

    async fn insert_as(&self, scope: &Scope, id: Id<E>, value: E) -> Result<Stored<E>> {
        SealedStore::<E>::insert_as(self.inner(), scope, id, value).await
    }
}
