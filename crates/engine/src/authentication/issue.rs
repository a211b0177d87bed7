use std::net::IpAddr;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use lime_core::identity::{
    Action, ApiKey, ApiKeySecret, Caller, Grant, Identity, LoginSession, NewSession, Permissions, Resource,
    SessionToken, Target, User,
};
use lime_core::planning::Project;
use lime_core::{Error, ErrorKind, Id, Invalid, Lookup, Result, Stored};

use super::Authenticator;

/// An API key to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    /// What it is for, 1 to 100 characters.
    pub name: String,
    /// The most that it may do.
    pub scopes: Permissions,
    /// The person whose it is to be; the tenant's own, if none.
    pub user_id: Option<Id<User>>,
    /// The project that it is limited to; the whole tenant, if none.
    pub project_id: Option<Id<Project>>,
    /// From when on it may not be used; never, if none.
    pub expires_at: Option<DateTime<Utc>>,
}

/// An API key that was made, and its text, which nobody can show again.
#[derive(Debug)]
pub struct IssuedKey {
    /// What is stored of it.
    pub key: Stored<ApiKey>,
    /// The text, for who asked for it.
    pub secret: ApiKeySecret,
}

/// A key of the caller's own, or somebody else's; it belongs to its project.
fn target(caller: &Caller, user: Option<Id<User>>, project: Option<Id<Project>>) -> Target {
    let is_own = user.is_some() && user == caller.scope().user();
    if is_own { Resource::OwnApiKey.within(project) } else { Resource::ApiKey.within(project) }
}

impl Authenticator {
    /// Makes an API key.
    ///
    /// - The caller needs `own_api_keys:create` for a key of their own and `api_keys:create` for any other, and must have
    ///   each permission that the key gets, where it is to hold.
    /// - Fails with `PermissionDenied` otherwise, with `Invalid` for a broken rule: one of the key, a time that is past,
    ///   one that is later than the tenant's [`max_key_days`](lime_core::identity::TenantSettings::max_key_days) allow;
    ///   with `Unavailable` if there are no random bytes.
    pub async fn create_key(&self, caller: &Caller, new: NewKey) -> Result<IssuedKey> {
        const OPERATION: &str = "api_keys.create";
        /// Prefixes that are taken are rare, so that three in a row are a fault and no bad luck.
        const TRIES: usize = 3;
        caller.authorize(OPERATION, Action::Create, target(caller, new.user_id, new.project_id))?;
        let grant = Grant { permissions: new.scopes.clone(), project_id: new.project_id };
        caller.authority().check_grant(&grant).map_err(|denied| denied.refused(OPERATION))?;
        self.check_expiry(OPERATION, caller, new.expires_at).await?;
        let mut tries = 0;
        loop {
            tries += 1;
            let secret = ApiKeySecret::generate(&*self.0.entropy)?;
            let NewKey { name, scopes, user_id, project_id, expires_at } = new.clone();
            let key = ApiKey {
                user_id,
                project_id,
                expires_at,
                ..ApiKey::new(name, scopes, &secret, &self.0.peppers)
            };
            match self.0.storage.create_key(caller.scope(), key).await {
                Err(error) if error.kind() == ErrorKind::AlreadyExists && tries < TRIES => {}
                made => return made.map(|key| IssuedKey { key, secret }),
            }
        }
    }

    /// Revokes an API key, for good; doing it again changes nothing.
    ///
    /// - The caller needs `own_api_keys:delete` for a key of their own and `api_keys:delete` for any other.
    /// - It lets nobody in after a second, in whatever process.
    /// - Fails with `NotFound` and with `PermissionDenied`.
    pub async fn revoke_key(&self, caller: &Caller, key: Id<ApiKey>) -> Result<Stored<ApiKey>> {
        const OPERATION: &str = "api_keys.revoke";
        let found: Stored<ApiKey> = Lookup::get(&*self.0.storage, caller.scope(), key).await?;
        caller.authorize(OPERATION, Action::Delete, target(caller, found.user_id, found.project_id))?;
        self.0.storage.revoke_key(caller.scope(), key).await
    }

    /// Opens a login session for a person who has proven to be it; gives it with its token, which nobody can show again.
    ///
    /// - Fails as [`open_session`](lime_core::ports::Identities::open_session) does, and with `Unavailable` if there are
    ///   no random bytes.
    pub async fn open_session(
        &self,
        identity_id: Id<Identity>,
        lasts: Duration,
        ip_address: Option<IpAddr>,
        user_agent: Option<String>,
    ) -> Result<(Stored<LoginSession>, SessionToken)> {
        let token = SessionToken::generate(&*self.0.entropy)?;
        let new = NewSession { identity_id, token: token.hash(), lasts, ip_address, user_agent };
        Ok((self.0.storage.open_session(new).await?, token))
    }

    async fn check_expiry(
        &self,
        operation: &'static str,
        caller: &Caller,
        expires_at: Option<DateTime<Utc>>,
    ) -> Result<()> {
        let now = self.0.clock.now();
        let refused = |rule: String| Invalid::new("expires_at", rule).refused(operation, "API key");
        if expires_at.is_some_and(|end| end <= now) {
            return Err(refused("must be ahead".to_owned()));
        }
        let tenant = self.0.storage.tenant(caller.scope().tenant()).await?;
        let Some(days) = tenant.settings.max_key_days else { return Ok(()) };
        let latest = now.checked_add_signed(TimeDelta::days(days.into()));
        if expires_at.is_some_and(|end| latest.is_none_or(|latest| end <= latest)) {
            return Ok(());
        }
        Err::<(), Error>(refused(format!("must be at most {days} days ahead, since the tenant says so")))
    }
}
