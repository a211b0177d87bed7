use lime_core::ports::Entropy;
use lime_core::{Error, ErrorKind, Result};

/// The random bytes of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        getrandom::fill(bytes).map_err(|error| {
            let message = "the operating system gives no random bytes";
            Error::new(ErrorKind::Unavailable, "entropy.fill", message).because(error)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// As many as a nonce has: a million of them are all different.
    #[test]
    fn no_nonce_comes_twice() {
        let mut seen = HashSet::new();
        for _ in 0..1_000_000 {
            let mut nonce = [0; 12];
            SystemEntropy.fill(&mut nonce).unwrap();
            assert!(seen.insert(nonce));
        }
    }
}
