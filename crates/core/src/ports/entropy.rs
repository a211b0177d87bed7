use crate::Result;

/// Random bytes of which nobody can guess the next, so that a test can set them.
///
/// - Keys and nonces are made of them: an implementation takes them from the operating system, or from a generator
///   that is made for cryptography.
#[cfg_attr(feature = "mocks", mockall::automock)]
pub trait Entropy: Send + Sync {
    /// Fills all of the bytes.
    ///
    /// - Fails with `Unavailable` if there are none; then the bytes mean nothing.
    fn fill(&self, bytes: &mut [u8]) -> Result<()>;
}
