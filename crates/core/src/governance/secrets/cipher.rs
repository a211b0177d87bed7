use std::fmt;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use secrecy::zeroize::Zeroizing;

use crate::Result;
use crate::ports::Entropy;

/// The bytes of a key of AES-256.
pub(super) const KEY_BYTES: usize = 32;
/// The bytes of a nonce. They are random, so one key is good for 2^32 values (NIST SP 800-38D, 8.3).
const NONCE_BYTES: usize = 12;
/// The bytes of the tag that proves all others.
const TAG_BYTES: usize = 16;

/// AES-256-GCM with random nonces, which are kept in front of what they belong to.
///
/// - The key is wiped from memory when this is dropped.
#[derive(Clone)]
pub(super) struct Cipher(Aes256Gcm);

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher")
    }
}

impl Cipher {
    /// By how many bytes a text grows.
    pub(super) const MORE_BYTES: usize = NONCE_BYTES + TAG_BYTES;

    pub(super) fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self(Aes256Gcm::new(&Key::<Aes256Gcm>::from(*key)))
    }

    /// The nonce and the sealed text; `context` has to be the same when it is opened.
    pub(super) fn seal(&self, context: &[u8], text: &[u8], entropy: &dyn Entropy) -> Result<Vec<u8>> {
        let mut nonce = [0; NONCE_BYTES];
        entropy.fill(&mut nonce)?;
        let sealed = self.0.encrypt(&Nonce::from(nonce), Payload { msg: text, aad: context });
        let sealed = sealed.expect("texts of less than 64 GiB can be sealed, and callers limit theirs");
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// The text; none, if anything about it was changed.
    pub(super) fn open(&self, context: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        let opened = self.0.decrypt(&Nonce::from(*nonce), Payload { msg: sealed, aad: context });
        opened.ok().map(Zeroizing::new)
    }
}
