//! Secrets at rest: what opens them, and what does not.
#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt;
use lime_core::governance::{Cell, DataKey, DataKeyBytes, MasterKeys, Sealed, WrappedKey};
use lime_core::ports::{Entropy, KeyWrapper};
use lime_core::{ErrorKind, Id, Result};
use proptest::prelude::*;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// Bytes that look random and are the same in each run of a test.
#[derive(Default)]
struct Counted(AtomicU64);

impl Entropy for Counted {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        for chunk in bytes.chunks_mut(32) {
            let number = self.0.fetch_add(1, Ordering::Relaxed);
            chunk.copy_from_slice(&Sha256::digest(number.to_be_bytes())[..chunk.len()]);
        }
        Ok(())
    }
}

fn cell() -> Cell {
    Cell { tenant: Id::new(7), table: "env_vars", column: "value_enc", row: 12 }
}

fn key(id: i64, entropy: &Counted) -> DataKey {
    DataKey::new(Id::new(id), &DataKeyBytes::generate(entropy).unwrap())
}

fn secret(text: &str) -> SecretString {
    text.into()
}

fn again(sealed: &Sealed, change: impl FnOnce(&mut Vec<u8>)) -> Result<Sealed> {
    let mut bytes = sealed.as_bytes().to_vec();
    change(&mut bytes);
    Sealed::from_row(bytes)
}

proptest! {
    #[test]
    fn a_value_opens_in_its_place(text in ".{0,300}", row in any::<i64>(), tenant in any::<i64>()) {
        let entropy = Counted::default();
        let key = key(3, &entropy);
        let cell = Cell { tenant: Id::new(tenant), row, ..cell() };
        let sealed = key.seal(cell, &secret(&text), &entropy).unwrap();
        let sealed = Sealed::from_row(sealed.as_bytes().to_vec()).unwrap();
        prop_assert_eq!(sealed.key(), Id::new(3));
        let opened = key.open(cell, &sealed).unwrap();
        prop_assert_eq!(opened.expose_secret(), &text);
    }

    #[test]
    fn a_value_opens_nowhere_else(other_row in any::<i64>(), other_tenant in any::<i64>(), table in "[a-z_]{1,20}") {
        let entropy = Counted::default();
        let key = key(3, &entropy);
        let sealed = key.seal(cell(), &secret("a secret value"), &entropy).unwrap();
        prop_assume!(other_row != 12 && other_tenant != 7 && table != "env_vars");
        let table: &'static str = table.leak();
        for place in [
            Cell { row: other_row, ..cell() },
            Cell { tenant: Id::new(other_tenant), ..cell() },
            Cell { table, ..cell() },
            Cell { column: table, ..cell() },
            // The same letters, cut elsewhere.
            Cell { table: "env_var", column: "svalue_enc", ..cell() },
        ] {
            prop_assert_eq!(key.open(place, &sealed).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }
}

#[test]
fn a_value_opens_with_its_own_key_only() {
    let entropy = Counted::default();
    let (first, second) = (key(1, &entropy), key(2, &entropy));
    let sealed = first.seal(cell(), &secret("a secret value"), &entropy).unwrap();
    assert_eq!(second.open(cell(), &sealed).unwrap_err().kind(), ErrorKind::Corrupt);
    // The same bytes of a key under another id are another key.
    let bytes = DataKeyBytes::generate(&entropy).unwrap();
    let (one, other) = (DataKey::new(Id::new(1), &bytes), DataKey::new(Id::new(2), &bytes));
    let sealed = one.seal(cell(), &secret("a secret value"), &entropy).unwrap();
    let renamed = again(&sealed, |bytes| bytes[8] = 2).unwrap();
    assert_eq!(renamed.key(), other.id());
    for key in [&one, &other] {
        assert_eq!(key.open(cell(), &renamed).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn each_single_bit_counts() {
    let entropy = Counted::default();
    let key = key(5, &entropy);
    for record in 0..100 {
        let cell = Cell { row: record, ..cell() };
        let sealed = key.seal(cell, &secret(&format!("value {record}")), &entropy).unwrap();
        for bit in 0..sealed.as_bytes().len() * 8 {
            let refused = again(&sealed, |bytes| bytes[bit / 8] ^= 1 << (bit % 8))
                .and_then(|changed| key.open(cell, &changed))
                .unwrap_err();
            assert!(matches!(refused.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported), "bit {bit}");
        }
        for length in 0..sealed.as_bytes().len() {
            let cut = again(&sealed, |bytes| bytes.truncate(length)).and_then(|cut| key.open(cell, &cut));
            assert_eq!(cut.unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }
}

#[test]
fn the_same_value_is_never_sealed_alike() {
    let entropy = Counted::default();
    let key = key(5, &entropy);
    let sealed: HashSet<Vec<u8>> = (0..10_000)
        .map(|_| key.seal(cell(), &secret("the same"), &entropy).unwrap().as_bytes()[9..21].to_vec())
        .collect();
    assert_eq!(sealed.len(), 10_000, "a nonce was used twice");
}

#[test]
fn a_value_that_is_too_long_is_refused() {
    let entropy = Counted::default();
    let key = key(5, &entropy);
    let most = "x".repeat(DataKey::MOST_BYTES);
    key.seal(cell(), &secret(&most), &entropy).unwrap();
    let refused = key.seal(cell(), &secret(&(most + "x")), &entropy).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert_eq!(refused.message(), "a secret has 65537 bytes, more than 65536");
}

const ONE: &str = "2026-11:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const TWO: &str = "2025-02:HxweHRobGBkWFxQVEhMQEQ4PDA0KCwgJBgcEBQIDAAE=";

fn masters(text: &str) -> MasterKeys {
    MasterKeys::parse(&secret(text), Arc::new(Counted::default())).unwrap()
}

/// The ports' calls that need nobody else are ready at once.
fn now<T>(call: impl Future<Output = T>) -> T {
    call.now_or_never().unwrap()
}

#[test]
fn the_first_master_key_wraps_and_all_unwrap() {
    let (old, both, new) = (masters(TWO), masters(&format!("{ONE}, {TWO}")), masters(ONE));
    let key = DataKeyBytes::generate(&Counted::default()).unwrap();
    let tenant = Id::new(7);
    let by_old = now(old.wrap(tenant, &key)).unwrap();
    assert_eq!(now(both.unwrap(tenant, &by_old)).unwrap().expose(), key.expose());
    assert!(old.is_newest(&by_old) && !both.is_newest(&by_old));
    let by_new = now(both.wrap(tenant, &key)).unwrap();
    assert!(both.is_newest(&by_new));
    assert_eq!(now(new.unwrap(tenant, &by_new)).unwrap().expose(), key.expose());
    let missing = now(new.unwrap(tenant, &by_old)).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Missing);
    assert_eq!(
        missing.message(),
        "the master key 2025-02 is not there; add it to ENCRYPTION_MASTER_KEY behind the others"
    );
}

#[test]
fn a_wrapped_key_is_its_tenants_and_as_it_was() {
    let masters = masters(ONE);
    let key = DataKeyBytes::generate(&Counted::default()).unwrap();
    let wrapped = now(masters.wrap(Id::new(7), &key)).unwrap();
    assert_eq!(now(masters.unwrap(Id::new(8), &wrapped)).unwrap_err().kind(), ErrorKind::Corrupt);
    for bit in 0..wrapped.bytes.len() * 8 {
        let mut bytes = wrapped.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let changed = WrappedKey { bytes, ..wrapped.clone() };
        assert_eq!(now(masters.unwrap(Id::new(7), &changed)).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn master_keys_that_are_wrong_are_refused_without_being_told() {
    let (_, key) = ONE.split_once(':').unwrap();
    for (text, why) in [
        (key.to_owned(), "key 1 has no id"),
        (format!("{ONE},{key}"), "key 2 has no id"),
        (format!("A:{key}"), "key 1 has an id with other characters than `a-z0-9_-`"),
        (format!("a:{}", &key[..20]), "key 1 has another length"),
        (format!("a:{}*", &key[..20]), "key 1 is no base64"),
        (format!("a:{key},a:{key}"), "has two keys with the id a"),
    ] {
        let refused = MasterKeys::parse(&secret(&text), Arc::new(Counted::default())).unwrap_err();
        let said = refused.to_string();
        assert!(said.ends_with(why), "{said}");
        assert!(!said.contains(&key[..10]), "{said}");
    }
}

#[test]
fn nothing_shows_a_key_or_a_value() {
    let entropy = Counted::default();
    let bytes = DataKeyBytes::generate(&entropy).unwrap();
    let key = DataKey::new(Id::new(5), &bytes);
    let sealed = key.seal(cell(), &secret("hunter2hunter2"), &entropy).unwrap();
    let shown = format!("{bytes:?} {key:?} {sealed:?} {:?}", masters(ONE));
    assert!(!shown.contains("hunter2"), "{shown}");
    let listed = bytes.expose()[..4].iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    assert!(!shown.contains(&listed), "{shown}");
}
