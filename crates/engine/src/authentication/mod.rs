//! Who calls: from the text that a request brings to the [`Caller`] that it is.

mod issue;
mod recent;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use lime_core::identity::{
    ApiKeySecret, Caller, FoundKey, KeyPrefix, KeyRefused, Peppers, SessionRefused, SessionToken, SignedIn,
    Tenant, TokenHash,
};
use lime_core::ports::{Clock, Entropy, Renewal, Storage};
use lime_core::{Id, Result, Scope};
use tokio::time::Instant;

pub use self::issue::{IssuedKey, NewKey};
use self::recent::Recent;
use crate::{SystemClock, SystemEntropy};

/// Recognises callers by API keys and login sessions, and issues those; clones share everything.
///
/// - What it was asked a moment ago it knows without a query, for half a second at most: so a key that was revoked, has
///   expired or may do less, a session that was ended, a person who was disabled and a role that was taken are noticed
///   within a second, by every process. What it knows has its limit, whatever is made up by whoever asks.
/// - Who is refused is told why in an error that never has the text in it.
/// - Needs a tokio runtime.
#[derive(Clone)]
pub struct Authenticator(Arc<Parts>);

struct Parts {
    storage: Arc<dyn Storage>,
    peppers: Peppers,
    entropy: Arc<dyn Entropy>,
    clock: Arc<dyn Clock>,
    keys: Recent<KeyPrefix, KnownKey>,
    members: Recent<(TokenHash, Id<Tenant>), SignedIn>,
}

/// A key that was looked up, and who calls with it.
#[derive(Debug)]
struct KnownKey {
    found: FoundKey,
    caller: Caller,
    is_noted: AtomicBool,
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authenticator")
    }
}

impl Authenticator {
    /// One that asks this storage, and hashes keys with these peppers.
    pub fn new(storage: Arc<dyn Storage>, peppers: Peppers) -> Self {
        Self::with(storage, peppers, Arc::new(SystemEntropy), Arc::new(SystemClock))
    }

    /// The same with other random bytes and another time of day, for tests.
    pub fn with(
        storage: Arc<dyn Storage>,
        peppers: Peppers,
        entropy: Arc<dyn Entropy>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (keys, members) = (Recent::new(), Recent::new());
        Self(Arc::new(Parts { storage, peppers, entropy, clock, keys, members }))
    }

    /// Who calls with this text, the bearer's token of a request to a tenant: an API key or a session.
    ///
    /// - A key of another tenant is as good as none.
    /// - Fails as [`key`](Authenticator::key) and [`session`](Authenticator::session) do.
    pub async fn bearer(&self, text: &str, tenant: Id<Tenant>) -> Result<Caller> {
        const OPERATION: &str = "authentication.bearer";
        if text.starts_with(SessionToken::PREFIX) {
            return self.session(text, tenant).await;
        }
        let caller = self.key(text).await?;
        if caller.scope().tenant() == tenant {
            Ok(caller)
        } else {
            Err(KeyRefused::Unknown.refused(OPERATION))
        }
    }

    /// Who calls with this API key.
    ///
    /// - Text that is none, by its form or its checksum, costs no query.
    /// - That it was used is noted behind the call, at most once in [`LAST_USED_STEP`], as is its hash under the newest
    ///   pepper; the call never fails for it.
    /// - Fails with `Unauthenticated` if it is not known, revoked, expired or of somebody who was disabled, with
    ///   `Missing` if its pepper is not there, with `Unavailable` if that cannot be found out.
    ///
    /// [`LAST_USED_STEP`]: lime_core::identity::ApiKey::LAST_USED_STEP
    pub async fn key(&self, text: &str) -> Result<Caller> {
        const OPERATION: &str = "authentication.key";
        let refused = |why: KeyRefused| why.refused(OPERATION);
        let secret = ApiKeySecret::parse(text).map_err(|malformed| refused(malformed.into()))?;
        let prefix = secret.prefix();
        let look = || {
            let (storage, prefix) = (self.0.storage.clone(), prefix.clone());
            async move { Ok(storage.find_key(&prefix).await?.map(KnownKey::from)) }
        };
        let (known, since) = self.0.keys.get(OPERATION, &prefix, look).await?;
        let known = known.ok_or_else(|| refused(KeyRefused::Unknown))?;
        let now = known.now(since);
        known.found.key.admit(&secret, &self.0.peppers, now).map_err(refused)?;
        known.found.check_owner().map_err(refused)?;
        self.note(&known, &secret, now);
        Ok(known.caller.clone())
    }

    /// Who calls with this session's token, in the tenant that they ask for.
    ///
    /// - Fails with `Unauthenticated` if it has ended or never was, with `PermissionDenied` if the person does not belong
    ///   to the tenant, there is none, or they were disabled in it, with `Unavailable` if that cannot be found out.
    pub async fn session(&self, text: &str, tenant: Id<Tenant>) -> Result<Caller> {
        const OPERATION: &str = "authentication.session";
        let refused = |why: SessionRefused| why.refused(OPERATION);
        let hash = SessionToken::parse(text).map_err(refused)?.hash();
        let look = || {
            let storage = self.0.storage.clone();
            async move { storage.find_member(&hash, tenant).await }
        };
        let (found, _) = self.0.members.get(OPERATION, &(hash, tenant), look).await?;
        found.ok_or_else(|| refused(SessionRefused::Unknown))?.caller(tenant).map_err(refused)
    }

    /// Notes the use of a key behind the call, if that is due.
    fn note(&self, known: &Arc<KnownKey>, secret: &ApiKeySecret, now: DateTime<Utc>) {
        if known.is_noted.load(Ordering::Relaxed) {
            return;
        }
        let key = &known.found.key;
        let renewed = self.0.peppers.renewed(secret, &key.hash);
        let is_due = renewed.is_some() || key.should_note_use(now);
        if !is_due || known.is_noted.swap(true, Ordering::Relaxed) {
            return;
        }
        let renewal = renewed.map(|to| Renewal { from: key.hash.clone(), to });
        let scope = Scope::system(known.found.tenant_id, "noting the use of an API key");
        let (storage, id) = (self.0.storage.clone(), key.id);
        tokio::spawn(async move {
            if let Err(error) = storage.note_use(&scope, id, renewal).await {
                tracing::warn!(%error, key = %id, "the use of an API key was not noted");
            }
        });
    }
}

impl From<FoundKey> for KnownKey {
    fn from(found: FoundKey) -> Self {
        Self { caller: found.caller(), found, is_noted: AtomicBool::new(false) }
    }
}

impl KnownKey {
    /// The time on the database's clock, not earlier than it is.
    fn now(&self, since: Instant) -> DateTime<Utc> {
        let age = TimeDelta::from_std(since.elapsed()).unwrap_or(TimeDelta::MAX);
        self.found.now.checked_add_signed(age).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}
