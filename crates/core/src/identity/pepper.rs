use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::digest::CtOutput;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use sha2::Sha256;

use super::api_key::KeyRefused;
use super::key_secret::ApiKeySecret;
use crate::Invalid;

type HmacSha256 = Hmac<Sha256>;

/// A secret of the installation, without which the hashes of API keys say nothing.
///
/// - It is kept where the database is not, such as in the environment of the server: who has the rows alone can
///   neither use a key nor try one out.
#[derive(Debug)]
pub struct Pepper {
    id: i32,
    key: SecretSlice<u8>,
}

impl Pepper {
    /// The fewest bytes: as many as the hash has.
    pub const MIN_BYTES: usize = 32;

    /// A pepper with the id that hashes name it by.
    ///
    /// - An id is given out once: a pepper that comes after another has another id.
    pub fn new(id: i32, key: SecretSlice<u8>) -> Result<Self, Invalid> {
        let bytes = key.expose_secret().len();
        if bytes < Self::MIN_BYTES {
            let rule = format!("must have {} random bytes or more, it has {bytes}", Self::MIN_BYTES);
            return Err(Invalid::new("pepper", rule));
        }
        Ok(Self { id, key })
    }

    fn parse(entry: &str, place: usize) -> Result<Self, Invalid> {
        let wrong = |why: &str| {
            let rule = format!(
                "must be `id:key` with 32 bytes or more in base64, or several with commas; pepper {place} {why}"
            );
            Invalid::new(Peppers::VARIABLE, rule)
        };
        let (id, key) = entry.split_once(':').ok_or_else(|| wrong("has no id"))?;
        let id = id.parse().map_err(|_| wrong("has an id that is no whole number"))?;
        let key = STANDARD.decode(key).map_err(|_| wrong("is no base64"))?;
        if key.len() < Self::MIN_BYTES {
            return Err(wrong("is too short"));
        }
        Self::new(id, key.into())
    }

    fn hash(&self, secret: &ApiKeySecret) -> KeyHash {
        let mac =
            HmacSha256::new_from_slice(self.key.expose_secret()).expect("HMAC takes a key of any length");
        let hmac = mac.chain_update(secret.expose()).finalize();
        KeyHash { pepper_id: self.id, hmac }
    }
}

/// The peppers of an installation: one to hash with, and those before it.
///
/// - To change the pepper, put a new one in front. Keys in use come over one by one ([`renewed`](Peppers::renewed));
///   the old one can go when no key that counts names its id any more.
#[derive(Debug)]
pub struct Peppers {
    current: Pepper,
    older: Vec<Pepper>,
}

impl Peppers {
    /// The variable of the environment that operators keep them in.
    pub const VARIABLE: &str = "LIME_API_KEY_PEPPERS";

    /// These peppers; no two may have the same id.
    pub fn new(current: Pepper, older: impl IntoIterator<Item = Pepper>) -> Result<Self, Invalid> {
        let older: Vec<_> = older.into_iter().collect();
        let mut ids: Vec<_> = older.iter().map(|pepper| pepper.id).chain([current.id]).collect();
        ids.sort_unstable();
        match ids.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => {
                Err(Invalid::new("pepper", format!("two have the id {}; a new one needs another", pair[0])))
            }
            None => Ok(Self { current, older }),
        }
    }

    /// Reads `id:key`, or several with commas between them, the current one first; a key is 32 bytes or more in base64,
    /// as `openssl rand -base64 32` makes them.
    ///
    /// - What is refused is named by its place, never by its text.
    pub fn parse(text: &SecretString) -> Result<Self, Invalid> {
        let mut peppers = Vec::new();
        for (entry, place) in text.expose_secret().split(',').zip(1..) {
            peppers.push(Pepper::parse(entry.trim(), place)?);
        }
        let mut peppers = peppers.into_iter();
        let current = peppers.next().ok_or_else(|| Invalid::new(Self::VARIABLE, "must have a pepper"))?;
        Self::new(current, peppers)
    }

    /// The hash of a key under the current pepper, to be stored in its stead.
    pub fn hash(&self, secret: &ApiKeySecret) -> KeyHash {
        self.current.hash(secret)
    }

    /// Whether this is the key that was hashed, compared in constant time.
    pub fn verify(&self, secret: &ApiKeySecret, hash: &KeyHash) -> Result<(), KeyRefused> {
        let pepper =
            [&self.current].into_iter().chain(&self.older).find(|pepper| pepper.id == hash.pepper_id);
        match pepper {
            None => Err(KeyRefused::PepperMissing(hash.pepper_id)),
            Some(pepper) if pepper.hash(secret) == *hash => Ok(()),
            Some(_) => Err(KeyRefused::Unknown),
        }
    }

    /// The hash to store in the place of this one, if it is under an older pepper.
    ///
    /// - For a key that was verified; a store writes it together with [`last_used_at`](super::ApiKey::last_used_at).
    pub fn renewed(&self, secret: &ApiKeySecret, hash: &KeyHash) -> Option<KeyHash> {
        (hash.pepper_id != self.current.id).then(|| self.hash(secret))
    }
}

/// What is stored of an API key: HMAC-SHA-256 of its text, and the id of the pepper that is the HMAC's key.
///
/// - 003 says bcrypt, which is slow because people choose weak passwords; a key is random, and asked about with every
///   request.
/// - Two are compared in constant time.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyHash {
    pepper_id: i32,
    hmac: CtOutput<HmacSha256>,
}

impl KeyHash {
    /// The hash in a row.
    pub fn from_row(pepper_id: i32, hmac: [u8; 32]) -> Self {
        Self { pepper_id, hmac: CtOutput::new(hmac.into()) }
    }

    /// The id of the pepper.
    pub fn pepper_id(&self) -> i32 {
        self.pepper_id
    }

    /// The HMAC, for its column `key_hash`.
    pub fn hmac(&self) -> [u8; 32] {
        self.hmac.into_bytes().into()
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyHash").field("pepper_id", &self.pepper_id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_compared_in_constant_time() {
        // By the derived `==` of this type, which leaves no byte out and is no shorter for the first that differs.
        let _: fn(&KeyHash) -> &CtOutput<HmacSha256> = |hash| &hash.hmac;
        let hash = |byte: u8| KeyHash::from_row(1, [byte; 32]);
        assert_eq!(hash(1), hash(1));
        assert_ne!(hash(1), hash(2));
        assert_ne!(hash(1), KeyHash::from_row(2, [1; 32]));
    }
}
