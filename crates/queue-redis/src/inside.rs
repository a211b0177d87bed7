//! What has nothing to do with Redis, and is asked of the storage inside.

use std::time::Duration;

use async_trait::async_trait;
use lime_core::identity::{
    ApiKey, FoundKey, Identity, KeyPrefix, LoginSession, Membership, NewSession, SignedIn, Tenant, TokenHash,
    User,
};
use lime_core::ports::{ApiKeys, Identities, Renewal};
use lime_core::{Id, Result, Scope, Stored};

use crate::RedisQueue;

#[async_trait]
impl<S: ApiKeys + ?Sized> ApiKeys for RedisQueue<S> {
    async fn create_key(&self, scope: &Scope, key: ApiKey) -> Result<Stored<ApiKey>> {
        self.inner.create_key(scope, key).await
    }

    async fn find_key(&self, prefix: &KeyPrefix) -> Result<Option<FoundKey>> {
        self.inner.find_key(prefix).await
    }

    async fn note_use(&self, scope: &Scope, key: Id<ApiKey>, renewed: Option<Renewal>) -> Result<bool> {
        self.inner.note_use(scope, key, renewed).await
    }

    async fn revoke_key(&self, scope: &Scope, key: Id<ApiKey>) -> Result<Stored<ApiKey>> {
        self.inner.revoke_key(scope, key).await
    }
}

#[async_trait]
impl<S: Identities + ?Sized> Identities for RedisQueue<S> {
    async fn identify(&self, identity: Identity) -> Result<Stored<Identity>> {
        self.inner.identify(identity).await
    }

    async fn link_user(&self, scope: &Scope, user: Id<User>, identity: Id<Identity>) -> Result<()> {
        self.inner.link_user(scope, user, identity).await
    }

    async fn memberships(&self, identity: Id<Identity>) -> Result<Vec<Membership>> {
        self.inner.memberships(identity).await
    }

    async fn open_session(&self, session: NewSession) -> Result<Stored<LoginSession>> {
        self.inner.open_session(session).await
    }

    async fn find_session(&self, token: &TokenHash) -> Result<Option<Stored<LoginSession>>> {
        self.inner.find_session(token).await
    }

    async fn find_member(&self, token: &TokenHash, tenant: Id<Tenant>) -> Result<Option<SignedIn>> {
        self.inner.find_member(token, tenant).await
    }

    async fn extend_session(&self, token: &TokenHash, lasts: Duration) -> Result<Stored<LoginSession>> {
        self.inner.extend_session(token, lasts).await
    }

    async fn end_session(&self, token: &TokenHash) -> Result<()> {
        self.inner.end_session(token).await
    }

    async fn end_sessions(&self, identity: Id<Identity>) -> Result<usize> {
        self.inner.end_sessions(identity).await
    }
}
