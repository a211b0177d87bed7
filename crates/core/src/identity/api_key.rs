use chrono::{DateTime, TimeDelta, Utc};

use super::key_secret::{ApiKeySecret, KeyPrefix, MalformedKey};
use super::pepper::{KeyHash, Peppers};
use super::permission::Permissions;
use super::user::User;
use crate::planning::Project;
use crate::{Error, ErrorKind, Id, Invalid, entity};

/// A key by which software uses the API: automation, agents, CI (000 §5.7; 003 §2).
///
/// - The key itself is an [`ApiKeySecret`], shown once; here is what is left of it.
/// - What it may do is [`Authority::of_key`](super::Authority::of_key).
/// - It is made, used and revoked, and not [edited](crate::Editable): what a key may do is settled when somebody makes
///   it, and no update may undo that it was revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// The person who made it for themselves; the tenant's own, if none (000).
    pub user_id: Option<Id<User>>,
    /// The project that it is limited to; the whole tenant, if none (003).
    pub project_id: Option<Id<Project>>,
    /// What it is for, 1 to 100 characters.
    pub name: String,
    /// What it is looked up by (003 `key_prefix`).
    pub prefix: KeyPrefix,
    /// The hash of the key (000 `key_hash`), and the pepper in it.
    pub hash: KeyHash,
    /// The most that it may do; at least one permission.
    pub scopes: Permissions,
    /// When it was last used, [roughly](ApiKey::should_note_use).
    pub last_used_at: Option<DateTime<Utc>>,
    /// From when on it may not be used; never, if none (003).
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked, which is for good (000 `status` 0).
    pub revoked_at: Option<DateTime<Utc>>,
}

impl ApiKey {
    /// How old [`last_used_at`](ApiKey::last_used_at) may be before a use is written down: 5 minutes.
    pub const LAST_USED_STEP: TimeDelta = TimeDelta::minutes(5);

    /// A key of the tenant, in the whole of it, that does not expire.
    pub fn new(
        name: impl Into<String>,
        scopes: Permissions,
        secret: &ApiKeySecret,
        peppers: &Peppers,
    ) -> Self {
        Self {
            user_id: None,
            project_id: None,
            name: name.into(),
            prefix: secret.prefix(),
            hash: peppers.hash(secret),
            scopes,
            last_used_at: None,
            expires_at: None,
            revoked_at: None,
        }
    }

    /// Whether this secret lets its bearer in now.
    ///
    /// - Only who proves to have the key hears that it was revoked or has expired; to others it is unknown, as a key
    ///   that never was.
    pub fn admit(
        &self,
        secret: &ApiKeySecret,
        peppers: &Peppers,
        now: DateTime<Utc>,
    ) -> Result<(), KeyRefused> {
        peppers.verify(secret, &self.hash)?;
        self.check_usable(now)
    }

    /// Whether it is neither revoked nor past its time.
    pub fn check_usable(&self, now: DateTime<Utc>) -> Result<(), KeyRefused> {
        match (self.revoked_at, self.expires_at) {
            (Some(_), _) => Err(KeyRefused::Revoked),
            (None, Some(end)) if end <= now => Err(KeyRefused::Expired(end)),
            (None, _) => Ok(()),
        }
    }

    /// Whether a use now is worth a write.
    ///
    /// - Once in [`LAST_USED_STEP`](ApiKey::LAST_USED_STEP) is enough to find the keys that nobody uses, and a key that
    ///   is used a hundred times a second costs twelve writes an hour.
    pub fn should_note_use(&self, now: DateTime<Utc>) -> bool {
        self.last_used_at.is_none_or(|last| now - last >= Self::LAST_USED_STEP)
    }
}

entity! {
    ApiKey as "API key" in "api_keys" {
        USER_ID: Option<Id<User>> = user_id => |key| key.user_id;
        PROJECT_ID: Option<Id<Project>> = project_id => |key| key.project_id;
        PREFIX: KeyPrefix = prefix => |key| key.prefix.clone();
        PEPPER_ID: i32 = pepper_id => |key| key.hash.pepper_id();
        REVOKED_AT: Option<DateTime<Utc>> = revoked_at => |key| key.revoked_at;
    }
    unique [PREFIX];
    refers USER_ID -> User Cascade; // emptied, either would be the whole tenant's
    refers PROJECT_ID -> Project Cascade;
    validate |key| {
        Invalid::text("name", &key.name, 1, 100)?;
        Invalid::no_nul("name", &key.name)?;
        if key.scopes.is_empty() {
            return Err(Invalid::new("scopes_json", "must have a permission; without one the key is good for nothing"));
        }
        Ok(())
    };
}

/// Why an API key does not let its bearer in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefused {
    /// It is none, which costs no query to see.
    #[error(transparent)]
    Malformed(#[from] MalformedKey),
    /// No such key was ever made.
    #[error("this API key is not known; make a new one")]
    Unknown,
    /// It was revoked.
    #[error("this API key was revoked; make a new one")]
    Revoked,
    /// Its time is up.
    #[error("this API key expired at {0}; make a new one")]
    Expired(DateTime<Utc>),
    /// The person whose key it is may no longer act.
    #[error("the person whose API key this is was disabled; ask an admin")]
    OwnerDisabled,
    /// The pepper that it was hashed with is not there, so nobody can tell.
    #[error(
        "the pepper {0}, with which this API key was hashed, is missing; configure it again, among the older ones"
    )]
    PepperMissing(i32),
}

impl KeyRefused {
    /// The error of a call that was refused for it.
    ///
    /// - [`Missing`](ErrorKind::Missing) for a pepper, which is the operator's to mend; else
    ///   [`Unauthenticated`](ErrorKind::Unauthenticated).
    pub fn refused(self, operation: &'static str) -> Error {
        let kind = match self {
            Self::Malformed(_) | Self::Unknown | Self::Revoked | Self::Expired(_) | Self::OwnerDisabled => {
                ErrorKind::Unauthenticated
            }
            Self::PepperMissing(_) => ErrorKind::Missing,
        };
        Error::new(kind, operation, self.to_string())
    }
}
