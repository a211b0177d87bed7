use std::fmt;

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};

use crate::ports::Entropy;
use crate::{Invalid, Value};

/// The text of an API key, such as `lime_` and 36 characters more; who has it has what the key permits.
///
/// - `lime_`, then 30 random characters of `0-9A-Za-z` (178 bits), then 6 that are the CRC-32 (IEEE) of those 30, as
///   a number in base 62 with leading zeros, the digits in this order. It is GitHub's way: scanners find a leaked key
///   by its form, and one that was mistyped or made up is refused before anything is asked of a database.
/// - The checksum is no secret and proves nothing; [`Peppers::verify`](super::Peppers::verify) does.
/// - It is shown once, by [`reveal`](ApiKeySecret::reveal), to who asked for the key; `Debug` never shows it.
#[derive(Debug)]
pub struct ApiKeySecret(SecretString);

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

impl ApiKeySecret {
    /// What every key begins with.
    pub const PREFIX: &'static str = "lime_";
    /// How many characters a key has.
    pub const LEN: usize = Self::PREFIX.len() + Self::RANDOM + Self::CHECKSUM;
    const RANDOM: usize = 30;
    const CHECKSUM: usize = 6;

    /// A new key.
    ///
    /// - Fails only as the [`Entropy`] does. It is asked for 32 bytes, which nearly always do, and again while they don't:
    ///   six bits of each byte are one of 64 numbers, and the two that are no digit are passed over, so that every
    ///   key is as likely as any other.
    pub fn generate(entropy: &dyn Entropy) -> crate::Result<Self> {
        let mut text = String::with_capacity(Self::LEN); // no growing, which would leave copies
        text.push_str(Self::PREFIX);
        let mut bytes = Zeroizing::new([0; 32]);
        let random = Self::PREFIX.len() + Self::RANDOM;
        while text.len() < random {
            entropy.fill(bytes.as_mut_slice())?;
            let digits = bytes.iter().filter_map(|byte| BASE62.get(usize::from(byte >> 2)));
            text.extend(digits.take(random - text.len()).map(|digit| char::from(*digit)));
        }
        let checksum = checksum(&text[Self::PREFIX.len()..]);
        text.extend(checksum.map(char::from));
        Ok(Self(text.into()))
    }

    /// Reads a key, exactly as it was shown.
    ///
    /// - That it is well formed says nothing about who has it.
    pub fn parse(text: &str) -> Result<Self, MalformedKey> {
        let rest = text.strip_prefix(Self::PREFIX).ok_or(MalformedKey::Prefix)?;
        if let Some(at) = rest.chars().position(|digit| !digit.is_ascii_alphanumeric()) {
            return Err(MalformedKey::Character(Self::PREFIX.len() + at + 1));
        }
        if text.len() != Self::LEN {
            return Err(MalformedKey::Length(text.len()));
        }
        let (random, sum) = rest.split_at(Self::RANDOM);
        if sum.as_bytes() != checksum(random) {
            return Err(MalformedKey::Checksum);
        }
        Ok(Self(text.into()))
    }

    /// What the key is looked up by.
    pub fn prefix(&self) -> KeyPrefix {
        let random = &self.expose()[Self::PREFIX.len()..];
        KeyPrefix(random[..KeyPrefix::LEN].to_owned())
    }

    /// Gives the text away, to be shown to who asked for the key; afterwards only its hash is left.
    pub fn reveal(self) -> SecretString {
        self.0
    }

    pub(super) fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

/// The CRC-32 of the random characters, in base 62.
fn checksum(random: &str) -> [u8; ApiKeySecret::CHECKSUM] {
    let mut rest = crc32(random.as_bytes());
    let mut digits = [b'0'; ApiKeySecret::CHECKSUM];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(rest % 62) as usize];
        rest /= 62;
    }
    digits
}

/// The CRC-32 of IEEE 802.3, bit by bit: 30 bytes are not worth a crate.
fn crc32(bytes: &[u8]) -> u32 {
    let bit = |crc: u32, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), bit))
}

/// The first 8 random characters of an API key, by which people recognise it and a store finds it (000 §5.7).
///
/// - It is no secret. The 22 characters after it are 131 bits, more than anybody can try; 8 is the most that leaves
///   128.
/// - It is unique: two of a million keys are alike with a chance of 1 in 400. Whoever gets `AlreadyExists` makes
///   another key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyPrefix(String);

impl KeyPrefix {
    /// How many characters it has.
    pub const LEN: usize = 8;

    /// Checks a prefix, without `lime_`.
    pub fn parse(text: impl Into<String>) -> Result<Self, Invalid> {
        let text = text.into();
        if text.len() != Self::LEN || !text.bytes().all(|digit| digit.is_ascii_alphanumeric()) {
            return Err(Invalid::new("prefix", "must be the 8 letters and digits that follow `lime_`"));
        }
        Ok(Self(text))
    }

    /// The characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<KeyPrefix> for Value {
    fn from(prefix: KeyPrefix) -> Self {
        Self::Text(prefix.0)
    }
}

/// Why a text is no API key; it never tells the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MalformedKey {
    /// It begins otherwise.
    #[error("an API key begins with `lime_`; check that no other token was given")]
    Prefix,
    /// The character at this place, from 1, is in no key.
    #[error("character {0} of the API key is no letter or digit; copy it without quotes and blanks")]
    Character(usize),
    /// It has this many characters.
    #[error("an API key has {len} characters, this has {0}; copy it whole", len = ApiKeySecret::LEN)]
    Length(usize),
    /// Its last six characters do not belong to the others.
    #[error("the API key has a typing error, since its checksum is wrong; copy it again")]
    Checksum,
}
