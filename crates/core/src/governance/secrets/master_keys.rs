use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};

use super::DataKeyBytes;
use super::cipher::{Cipher, KEY_BYTES};
use crate::identity::Tenant;
use crate::ports::{Entropy, KeyWrapper};
use crate::{Error, ErrorKind, Id, Invalid, Result};

/// The name of a master key: 1 to 40 lower-case letters, digits, `-` and `_`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MasterKeyId(String);

impl MasterKeyId {
    const MOST_CHARS: usize = 40;

    /// Checks a name.
    pub fn parse(text: impl Into<String>) -> Result<Self, Invalid> {
        let text = text.into();
        let is_known = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'_');
        if !(1..=Self::MOST_CHARS).contains(&text.len()) || !text.bytes().all(is_known) {
            let rule = "must have 1 to 40 lower-case letters, digits, `-` and `_`";
            return Err(Invalid::new("master key id", rule));
        }
        Ok(Self(text))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MasterKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A data key under a master key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// The master key that opens it.
    pub master_key: MasterKeyId,
    /// What the key wrapper made of the key.
    pub bytes: Vec<u8>,
}

/// Master keys in the process, as `ENCRYPTION_MASTER_KEY` has them (000 §15): the first one wraps, all of them unwrap.
///
/// - To change the master key, put a new one in front, rotate, and take the old one out.
pub struct MasterKeys {
    newest: MasterKey,
    older: Vec<MasterKey>,
    entropy: Arc<dyn Entropy>,
}

struct MasterKey {
    id: MasterKeyId,
    cipher: Cipher,
}

impl fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all().map(|key| &key.id)).finish()
    }
}

impl MasterKeys {
    const VARIABLE: &str = "ENCRYPTION_MASTER_KEY";

    /// Reads `id:key`, or several with commas between them; a key is 32 bytes in base64, as `openssl rand -base64 32`
    /// makes them.
    ///
    /// - No two may have the same id. What is refused is named by its place, never by its text.
    pub fn parse(text: &SecretString, entropy: Arc<dyn Entropy>) -> Result<Self, Invalid> {
        let mut keys = Vec::new();
        for (entry, place) in text.expose_secret().split(',').zip(1..) {
            let key = MasterKey::parse(entry.trim(), place)?;
            if keys.iter().any(|other: &MasterKey| other.id == key.id) {
                return Err(Invalid::new(Self::VARIABLE, format!("has two keys with the id {}", key.id)));
            }
            keys.push(key);
        }
        let mut keys = keys.into_iter();
        let newest = keys.next().ok_or_else(|| Invalid::new(Self::VARIABLE, "must have a key"))?;
        Ok(Self { newest, older: keys.collect(), entropy })
    }

    fn all(&self) -> impl Iterator<Item = &MasterKey> {
        [&self.newest].into_iter().chain(&self.older)
    }
}

impl MasterKey {
    fn parse(entry: &str, place: usize) -> Result<Self, Invalid> {
        let wrong = |why: &str| {
            let rule = format!(
                "must be `id:key` with 32 bytes in base64, or several with commas; key {place} {why}"
            );
            Invalid::new(MasterKeys::VARIABLE, rule)
        };
        let (id, key) = entry.split_once(':').ok_or_else(|| wrong("has no id"))?;
        let id =
            MasterKeyId::parse(id).map_err(|_| wrong("has an id with other characters than `a-z0-9_-`"))?;
        let key = Zeroizing::new(STANDARD.decode(key).map_err(|_| wrong("is no base64"))?);
        let key = <&[u8; KEY_BYTES]>::try_from(key.as_slice()).map_err(|_| wrong("has another length"))?;
        Ok(Self { id, cipher: Cipher::new(key) })
    }

    fn context(&self, tenant: Id<Tenant>) -> Vec<u8> {
        [b"data key 1".as_slice(), &tenant.raw().to_be_bytes(), self.id.0.as_bytes()].concat()
    }
}

#[async_trait]
impl KeyWrapper for MasterKeys {
    async fn wrap(&self, tenant: Id<Tenant>, key: &DataKeyBytes) -> Result<WrappedKey> {
        let MasterKey { id, cipher } = &self.newest;
        let bytes = cipher.seal(&self.newest.context(tenant), key.expose(), &*self.entropy)?;
        Ok(WrappedKey { master_key: id.clone(), bytes })
    }

    async fn unwrap(&self, tenant: Id<Tenant>, wrapped: &WrappedKey) -> Result<DataKeyBytes> {
        const OPERATION: &str = "secrets.unwrap";
        let Some(master) = self.all().find(|key| key.id == wrapped.master_key) else {
            let message = format!(
                "the master key {} is not there; add it to {} behind the others",
                wrapped.master_key,
                Self::VARIABLE
            );
            return Err(Error::new(ErrorKind::Missing, OPERATION, message));
        };
        let opened = master.cipher.open(&master.context(tenant), &wrapped.bytes);
        opened.and_then(|bytes| DataKeyBytes::from_slice(&bytes)).ok_or_else(|| {
            let message = format!(
                "a data key does not open with the master key {}: it is another key of this name, or the row was changed",
                wrapped.master_key
            );
            Error::new(ErrorKind::Corrupt, OPERATION, message)
        })
    }

    fn is_newest(&self, wrapped: &WrappedKey) -> bool {
        wrapped.master_key == self.newest.id
    }
}
