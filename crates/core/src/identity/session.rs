use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use super::person::Identity;
use crate::ports::Entropy;
use crate::{Error, ErrorKind, Id, Invalid};

/// What a person is signed in by (003 §2 sessions).
///
/// - It is of a person and not of a tenant: it lets them into every tenant that they belong to.
/// - What is stored of its [token](SessionToken) is a hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginSession {
    /// The person.
    pub identity_id: Id<Identity>,
    /// When it ends by itself, on the database's clock.
    pub expires_at: DateTime<Utc>,
    /// Where it was opened from.
    pub ip_address: Option<IpAddr>,
    /// The program that it was opened with, as it calls itself.
    pub user_agent: Option<String>,
}

/// A login session to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSession {
    /// The person, who has proven to be it.
    pub identity_id: Id<Identity>,
    /// The hash of the token.
    pub token: TokenHash,
    /// How long it counts, from 1 s to [`MAX_LENGTH`](LoginSession::MAX_LENGTH).
    pub lasts: Duration,
    /// Where it is opened from.
    pub ip_address: Option<IpAddr>,
    /// The program that it is opened with; what is longer than
    /// [`MAX_USER_AGENT_CHARS`](LoginSession::MAX_USER_AGENT_CHARS) is cut.
    pub user_agent: Option<String>,
}

impl LoginSession {
    /// The longest that a session counts without being extended: 90 days.
    pub const MAX_LENGTH: Duration = Duration::from_secs(90 * 24 * 60 * 60);
    /// The most characters of a program's name for itself.
    pub const MAX_USER_AGENT_CHARS: usize = 500;

    /// Checks how long a session is to count.
    pub fn check_length(lasts: Duration) -> Result<(), Invalid> {
        if lasts < Duration::from_secs(1) || lasts > Self::MAX_LENGTH {
            return Err(Invalid::new("expires_at", "must be 1 second to 90 days ahead"));
        }
        Ok(())
    }
}

impl NewSession {
    /// What a program calls itself, as it is stored: without NUL, and not longer than allowed.
    pub fn user_agent(&self) -> Option<String> {
        let kept = |text: &String| {
            text.chars().filter(|it| *it != '\0').take(LoginSession::MAX_USER_AGENT_CHARS).collect()
        };
        self.user_agent.as_ref().map(kept)
    }
}

/// The text that a signed-in person's browser sends: `lime_session_` and 64 characters of `0-9a-f` (256 bits).
///
/// - It is shown once, by [`reveal`](SessionToken::reveal); `Debug` never shows it.
#[derive(Debug)]
pub struct SessionToken(SecretString);

impl SessionToken {
    /// What every token begins with.
    pub const PREFIX: &'static str = "lime_session_";
    /// How many characters a token has.
    pub const LEN: usize = Self::PREFIX.len() + 2 * Self::BYTES;
    const BYTES: usize = 32;

    /// A new token; fails only as the [`Entropy`] does.
    pub fn generate(entropy: &dyn Entropy) -> crate::Result<Self> {
        let mut bytes = Zeroizing::new([0; Self::BYTES]);
        entropy.fill(bytes.as_mut_slice())?;
        let mut text = String::with_capacity(Self::LEN); // no growing, which would leave copies
        text.push_str(Self::PREFIX);
        let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        text.extend(digits.filter_map(|digit| char::from_digit(digit.into(), 16)));
        Ok(Self(text.into()))
    }

    /// Reads a token, exactly as it was shown; that it is well formed says nothing about who has it.
    pub fn parse(text: &str) -> Result<Self, SessionRefused> {
        let digits = text.strip_prefix(Self::PREFIX).ok_or(SessionRefused::Malformed)?;
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != Self::LEN || !digits.bytes().all(is_digit) {
            return Err(SessionRefused::Malformed);
        }
        Ok(Self(text.into()))
    }

    /// What it is stored and found by.
    pub fn hash(&self) -> TokenHash {
        TokenHash(Sha256::digest(self.0.expose_secret()).into())
    }

    /// Gives the text away, to the person's browser; afterwards only its hash is left.
    pub fn reveal(self) -> SecretString {
        self.0
    }
}

/// What is stored of a session's token: its SHA-256.
///
/// - Without a pepper and found by itself: the token is random, so that nobody finds one that has a given hash, and who
///   times the look-ups of hashes learns of hashes only.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The bytes, for their column `token_hash`.
    pub fn bytes(&self) -> [u8; 32] {
        self.0
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash")
    }
}

/// Why a login session does not let its bearer in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionRefused {
    /// It is none, which costs no query to see.
    #[error("this is no session's token; sign in again")]
    Malformed,
    /// There is no such session: it has ended, or never was.
    #[error("this session has ended; sign in again")]
    Unknown,
    /// The person does not belong to the tenant, or there is no such tenant.
    #[error("there is no such tenant, or you do not belong to it; ask its admin to invite you")]
    NotAMember,
    /// The person was disabled in the tenant.
    #[error("you were disabled in this tenant; ask its admin")]
    Disabled,
}

impl SessionRefused {
    /// The error of a call that was refused for it.
    ///
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied) if the session is in order and the tenant is not theirs; else
    ///   [`Unauthenticated`](ErrorKind::Unauthenticated).
    pub fn refused(self, operation: &'static str) -> Error {
        let kind = match self {
            Self::Malformed | Self::Unknown => ErrorKind::Unauthenticated,
            Self::NotAMember | Self::Disabled => ErrorKind::PermissionDenied,
        };
        Error::new(kind, operation, self.to_string())
    }
}
