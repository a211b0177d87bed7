use std::fmt;

use secrecy::{ExposeSecret, SecretBox, SecretString};

use super::WrappedKey;
use super::cipher::{Cipher, KEY_BYTES};
use crate::identity::Tenant;
use crate::ports::Entropy;
use crate::{Editable, Error, ErrorKind, Id, Invalid, Result, entity};

/// A data key of a tenant as it is kept: wrapped, so that the rows alone open nothing (ours).
///
/// - The newest seals; the others are there for as long as something is sealed with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantKey {
    /// The key under a master key.
    pub wrapped: WrappedKey,
}

entity! {
    TenantKey as "data key" in "tenant_keys" {
        MASTER_KEY: String = master_key => |key| key.wrapped.master_key.as_str();
    }
    validate |key| {
        if !(1..=4096).contains(&key.wrapped.bytes.len()) {
            return Err(Invalid::new("wrapped", "must have 1 to 4,096 bytes"));
        }
        Ok(())
    };
}
impl Editable for TenantKey {}

/// The bytes of a data key, which `Debug` never shows and which are wiped when dropped.
#[derive(Debug)]
pub struct DataKeyBytes(SecretBox<[u8; KEY_BYTES]>);

impl DataKeyBytes {
    /// A new key.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self> {
        let mut key = Box::new([0; KEY_BYTES]);
        entropy.fill(key.as_mut_slice())?;
        Ok(Self(SecretBox::new(key)))
    }

    /// A key that was unwrapped; none, if these are not 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let mut key = Box::new([0; KEY_BYTES]);
        if bytes.len() != KEY_BYTES {
            return None;
        }
        key.copy_from_slice(bytes);
        Some(Self(SecretBox::new(key)))
    }

    /// The bytes, to wrap them.
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        self.0.expose_secret()
    }
}

/// The place of a sealed value: a column of one row of one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// Whose it is.
    pub tenant: Id<Tenant>,
    /// The table.
    pub table: &'static str,
    /// The column.
    pub column: &'static str,
    /// The id of the row, which a store draws before it inserts.
    pub row: i64,
}

/// A value that was sealed, as its column has it: the version (1 byte), the id of the data key (8), then nonce (12),
/// text and tag (16).
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Vec<u8>);

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

impl Sealed {
    const VERSION: u8 = 1;
    const HEAD: usize = 9;
    const OPERATION: &str = "secrets.open";

    /// What a row has.
    ///
    /// - Fails with `Corrupt` for what is no sealed value, with `Unsupported` for one of a later version.
    pub fn from_row(bytes: Vec<u8>) -> Result<Self> {
        match bytes.first() {
            Some(&Self::VERSION) if bytes.len() >= Self::HEAD + Cipher::MORE_BYTES => Ok(Self(bytes)),
            None | Some(&Self::VERSION) => {
                Err(Error::new(ErrorKind::Corrupt, Self::OPERATION, "a sealed value is cut off"))
            }
            Some(version) => {
                let message =
                    format!("a value was sealed in version {version}; this program knows version 1");
                Err(Error::new(ErrorKind::Unsupported, Self::OPERATION, message))
            }
        }
    }

    /// The bytes for the row.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The data key that it was sealed with.
    pub fn key(&self) -> Id<TenantKey> {
        let id = self.0[1..Self::HEAD].try_into().expect("a sealed value has its head");
        Id::new(i64::from_be_bytes(id))
    }
}

/// A tenant's key, which seals its secrets with AES-256-GCM.
///
/// - What is sealed opens in its own [`Cell`] only, and only with the key that it names: moved to another tenant, table,
///   column, row or key, or changed in any bit, it is refused.
/// - Good for 2^32 values, since nonces are random; a rotation brings another key.
#[derive(Debug, Clone)]
pub struct DataKey {
    id: Id<TenantKey>,
    cipher: Cipher,
}

impl DataKey {
    /// The most bytes of a value: 64 KiB.
    pub const MOST_BYTES: usize = 64 << 10;

    /// The key of the row that it is wrapped in.
    pub fn new(id: Id<TenantKey>, key: &DataKeyBytes) -> Self {
        Self { id, cipher: Cipher::new(key.expose()) }
    }

    /// The row that it is wrapped in.
    pub fn id(&self) -> Id<TenantKey> {
        self.id
    }

    /// Seals a value for its place.
    ///
    /// - Fails with `Invalid` for more than [`MOST_BYTES`](Self::MOST_BYTES), with `Unavailable` without entropy.
    pub fn seal(&self, cell: Cell, value: &SecretString, entropy: &dyn Entropy) -> Result<Sealed> {
        let value = value.expose_secret().as_bytes();
        if value.len() > Self::MOST_BYTES {
            let message = format!("a secret has {} bytes, more than {}", value.len(), Self::MOST_BYTES);
            return Err(Error::invalid("secrets.seal", message));
        }
        let sealed = self.cipher.seal(&self.context(cell), value, entropy)?;
        Ok(Sealed([&[Sealed::VERSION], self.id.raw().to_be_bytes().as_slice(), &sealed].concat()))
    }

    /// Opens a value in its place.
    ///
    /// - Fails with `Corrupt` if it was sealed for another place or with another key, or was changed.
    pub fn open(&self, cell: Cell, sealed: &Sealed) -> Result<SecretString> {
        let opened = self.cipher.open(&self.context(cell), &sealed.0[Sealed::HEAD..]);
        let opened = opened.filter(|_| sealed.key() == self.id);
        let text = opened.and_then(|mut text| String::from_utf8(std::mem::take(&mut *text)).ok());
        text.map(SecretString::from).ok_or_else(|| {
            let message = format!(
                "a secret in {}.{} does not belong there, or was changed; restore it from a backup, or set it anew",
                cell.table, cell.column
            );
            Error::new(ErrorKind::Corrupt, Sealed::OPERATION, message).with("row", cell.row)
        })
    }

    /// What a value is bound to; each part has its length or is of one, so that no two places have the same.
    fn context(&self, cell: Cell) -> Vec<u8> {
        let mut context = Vec::with_capacity(64);
        context.push(Sealed::VERSION);
        for number in [self.id.raw(), cell.tenant.raw(), cell.row] {
            context.extend_from_slice(&number.to_be_bytes());
        }
        for name in [cell.table, cell.column] {
            context.extend_from_slice(&(name.len() as u64).to_be_bytes());
            context.extend_from_slice(name.as_bytes());
        }
        context
    }
}
