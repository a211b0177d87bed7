//! API keys: their form, their proof, and how long they count.
#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use lime_core::identity::{
    ApiKey, ApiKeySecret, KeyHash, KeyPrefix, KeyRefused, MalformedKey, Pepper, Peppers, Permission,
    Permissions, SessionRefused, SessionToken,
};
use lime_core::ports::Entropy;
use lime_core::{Entity, Error, ErrorKind, Result};
use proptest::prelude::*;
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};

const BASE62: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const ZEROS: &str = "lime_0000000000000000000000000000002C8GjS";

/// Bytes as a function fills them.
struct Source<F>(F);

impl<F: Fn(&mut [u8]) -> Result<()> + Send + Sync> Entropy for Source<F> {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        self.0(bytes)
    }
}

/// A source of bytes that is the same every time: SHA-256 of a seed and a counter.
fn source(seed: u64) -> impl Entropy {
    let count = AtomicU64::new(0);
    Source(move |bytes: &mut [u8]| {
        let count = count.fetch_add(1, Ordering::Relaxed) + 1;
        let block = Sha256::digest([seed.to_le_bytes(), count.to_le_bytes()].concat());
        bytes.copy_from_slice(&block);
        Ok(())
    })
}

fn secret(seed: u64) -> ApiKeySecret {
    ApiKeySecret::generate(&source(seed)).unwrap()
}

fn text(seed: u64) -> String {
    secret(seed).reveal().expose_secret().to_owned()
}

fn pepper(id: i32, byte: u8) -> Pepper {
    Pepper::new(id, vec![byte; 32].into()).unwrap()
}

fn peppers() -> Peppers {
    Peppers::new(pepper(1, 7), []).unwrap()
}

fn key(secret: &ApiKeySecret) -> ApiKey {
    let scopes = [Permission::parse("runs:read").unwrap()].into_iter().collect();
    ApiKey::new("ci", scopes, secret, &peppers())
}

fn time(minutes: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::minutes(minutes)
}

#[test]
fn golden_vectors() {
    let zeros = ApiKeySecret::generate(&Source(|bytes: &mut [u8]| {
        bytes.fill(0);
        Ok(())
    }));
    assert_eq!(zeros.unwrap().reveal().expose_secret(), ZEROS);
    let steps = ApiKeySecret::generate(&Source(|bytes: &mut [u8]| {
        (0..).zip(bytes).for_each(|(at, byte): (u8, _)| *byte = at.wrapping_mul(7).wrapping_add(3));
        Ok(())
    }));
    assert_eq!(steps.unwrap().reveal().expose_secret(), "lime_024679BDEGIKLNPRSUWYZbdfgikmnp2iZsDC");

    // The random part and the checksum of a token that GitHub once made, and that is known for it.
    let github = ["lime_", "zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ", "0mLq17"].concat();
    assert!(ApiKeySecret::parse(&github).is_ok());

    // Made by Python's hmac.
    let key: Vec<u8> = (0..32).collect();
    let peppers = Peppers::new(Pepper::new(5, key.into()).unwrap(), []).unwrap();
    let hash = peppers.hash(&ApiKeySecret::parse(ZEROS).unwrap());
    let hex: String = hash.hmac().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "196219d65e0bd213a107f68b4c1ff3362fc3a997c20e7cd5c02ec072ed042d74");
    assert_eq!(hash.pepper_id(), 5);
}

#[test]
fn what_is_no_key_is_refused_with_a_reason() {
    let good = text(1);
    let refusals = [
        (String::new(), MalformedKey::Prefix),
        (good.replace("lime_", "LIME_"), MalformedKey::Prefix),
        (format!(" {good}"), MalformedKey::Prefix),
        ("lime_".into(), MalformedKey::Length(5)),
        (good[..40].into(), MalformedKey::Length(40)),
        (format!("{good}0"), MalformedKey::Length(42)),
        (format!("{good}\n"), MalformedKey::Character(42)),
        (good.replacen('_', "_é", 1), MalformedKey::Character(6)),
    ];
    for (bad, reason) in refusals {
        assert_eq!(ApiKeySecret::parse(&bad).unwrap_err(), reason, "{bad:?}");
        let error = KeyRefused::from(reason).refused("login");
        assert_eq!(error.kind(), ErrorKind::Unauthenticated);
        assert!(!error.report().contains(&good[5..]));
    }
}

#[test]
fn every_slip_of_one_character_is_caught() {
    let good = text(2);
    for at in 0..good.len() {
        for other in BASE62.chars().chain(" _-\"é\0".chars()).filter(|other| !good[at..].starts_with(*other))
        {
            let bad = format!("{}{other}{}", &good[..at], &good[at + 1..]);
            assert!(ApiKeySecret::parse(&bad).is_err(), "{other:?} at {at} was not seen");
        }
        let lost = format!("{}{}", &good[..at], &good[at + 1..]);
        assert!(ApiKeySecret::parse(&lost).is_err(), "a character was lost at {at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn keys_round_trip(seed: u64) {
        let (made, text) = (secret(seed), text(seed));
        prop_assert_eq!(text.len(), ApiKeySecret::LEN);
        prop_assert!(text[5..].bytes().all(|digit| digit.is_ascii_alphanumeric()));
        let read = ApiKeySecret::parse(&text).unwrap();
        let prefix = read.prefix();
        prop_assert_eq!(prefix.as_str(), &text[5..13]);
        prop_assert_eq!(&KeyPrefix::parse(prefix.as_str()).unwrap(), &made.prefix());
        let shown = read.reveal();
        prop_assert_eq!(shown.expose_secret(), text.as_str());
    }

    #[test]
    fn one_wrong_character_is_caught(seed: u64, at in 0..ApiKeySecret::LEN, other: char) {
        let good = text(seed);
        prop_assume!(!good[at..].starts_with(other));
        let bad = format!("{}{other}{}", &good[..at], &good[at + 1..]);
        prop_assert!(ApiKeySecret::parse(&bad).is_err());
    }

    #[test]
    fn two_neighbours_that_change_places_are_caught(seed: u64, at in 0..ApiKeySecret::LEN - 1) {
        let good = text(seed);
        let mut swapped = good.clone().into_bytes();
        swapped.swap(at, at + 1);
        let swapped = String::from_utf8(swapped).unwrap();
        prop_assume!(swapped != good);
        prop_assert!(ApiKeySecret::parse(&swapped).is_err());
    }

    #[test]
    fn anything_at_all_can_be_read_without_harm(text: String, tail: String) {
        let _ = ApiKeySecret::parse(&text);
        let _ = ApiKeySecret::parse(&format!("lime_{tail}"));
    }
}

/// Chi squared of how often each of the 62 digits comes: about 61 if they are equally likely.
fn chi_squared(digits: impl Iterator<Item = u8>) -> f64 {
    let mut counts = [0.0_f64; 256];
    digits.for_each(|digit| counts[usize::from(digit)] += 1.0);
    let expected = counts.iter().sum::<f64>() / 62.0;
    BASE62.bytes().map(|digit| (counts[usize::from(digit)] - expected).powi(2) / expected).sum()
}

#[test]
fn every_digit_is_as_likely_as_any_other() {
    const KEYS: u64 = 4_000;
    // Of fair digits, one sample in a hundred thousand is above it.
    const BOUND: f64 = 121.0;
    let keys: Vec<_> = (0..KEYS).map(text).collect();
    let all = chi_squared(keys.iter().flat_map(|key| key[5..35].bytes()));
    assert!(all < BOUND, "{all}");
    for at in 5..35 {
        let here = chi_squared(keys.iter().map(|key| key.as_bytes()[at]));
        assert!(here < BOUND, "{here} at {at}");
    }
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());

    // The bound would see a remainder by 62, which prefers the first eight digits.
    let source = source(0);
    let mut bytes = vec![0; 32];
    let by_remainder = (0..KEYS).flat_map(|_| {
        source.fill(&mut bytes).unwrap();
        bytes[..30].iter().map(|byte| BASE62.as_bytes()[usize::from(byte % 62)]).collect::<Vec<_>>()
    });
    assert!(chi_squared(by_remainder) > 5.0 * BOUND);
}

#[test]
fn a_source_is_asked_until_there_is_enough_and_its_failure_is_passed_on() {
    let asked = AtomicU64::new(0);
    let key = ApiKeySecret::generate(&Source(|bytes: &mut [u8]| {
        // At first 62 and 63, which are no digits.
        bytes.fill(if asked.fetch_add(1, Ordering::Relaxed) < 2 { 0xF8 } else { 0 });
        Ok(())
    }));
    assert_eq!(key.unwrap().reveal().expose_secret(), ZEROS);
    assert_eq!(asked.into_inner(), 3);
    let none = Source(|_: &mut [u8]| Err(Error::new(ErrorKind::Unavailable, "test", "no entropy")));
    assert_eq!(ApiKeySecret::generate(&none).unwrap_err().message(), "no entropy");
    assert_eq!(SessionToken::generate(&none).unwrap_err().message(), "no entropy");
}

#[test]
fn a_sessions_token_is_64_digits_and_is_shown_once() {
    let token = SessionToken::generate(&source(1)).unwrap();
    assert!(!format!("{token:?}").contains("lime_session_"));
    let hash = token.hash();
    let text = token.reveal();
    let text = text.expose_secret();
    assert_eq!((text.len(), SessionToken::LEN), (77, 77));
    assert_eq!(hash.bytes(), <[u8; 32]>::from(Sha256::digest(text)));
    assert_eq!(SessionToken::parse(text).unwrap().hash(), hash);
    let other = SessionToken::generate(&source(2)).unwrap().hash();
    assert_ne!(hash, other);
    for bad in [
        "",
        "lime_session_",
        &text[..76],
        &format!("{text}0"),
        &text.to_uppercase(),
        &format!("{}g", &text[..76]),
    ] {
        assert_eq!(SessionToken::parse(bad).unwrap_err(), SessionRefused::Malformed, "{bad}");
    }
}

#[test]
fn peppers_are_read_from_one_text_that_no_error_repeats() {
    let one = format!("1:{}", "A".repeat(43) + "=");
    let two = format!("2:{}", "B".repeat(42) + "A=");
    let newer = Peppers::parse(&format!("{two}, {one}").into()).unwrap();
    let older = Peppers::parse(&one.clone().into()).unwrap();
    let secret = secret(1);
    let hash = older.hash(&secret);
    assert_eq!(newer.verify(&secret, &hash), Ok(()));
    assert_eq!(newer.renewed(&secret, &hash).unwrap().pepper_id(), 2);
    let twice = format!("{one},{one}");
    for bad in ["", "BBBB", "x:AAAA", "1:AAAA", "1:!", &twice] {
        let refused = Peppers::parse(&bad.into()).unwrap_err().to_string();
        assert!(!refused.contains("AAAA") && !refused.contains("BBBB"), "{refused}");
    }
}

#[test]
fn only_the_key_itself_is_verified() {
    let peppers = peppers();
    let hash = peppers.hash(&secret(1));
    assert_eq!(peppers.verify(&secret(1), &hash), Ok(()));
    assert_eq!(peppers.verify(&secret(2), &hash), Err(KeyRefused::Unknown));
    let row = KeyHash::from_row(hash.pepper_id(), hash.hmac());
    assert_eq!(row, hash);
    for at in 0..32 {
        let mut hmac = hash.hmac();
        hmac[at] ^= 1;
        let other = KeyHash::from_row(hash.pepper_id(), hmac);
        assert_ne!(other, hash);
        assert_eq!(peppers.verify(&secret(1), &other), Err(KeyRefused::Unknown));
    }
}

#[test]
fn a_pepper_is_changed_without_changing_keys() {
    let hash = Peppers::new(pepper(1, 7), []).unwrap().hash(&secret(1));
    let rotated = Peppers::new(pepper(2, 8), [pepper(1, 7)]).unwrap();
    assert_eq!(rotated.verify(&secret(1), &hash), Ok(()));
    let renewed = rotated.renewed(&secret(1), &hash).unwrap();
    assert_eq!(renewed.pepper_id(), 2);
    assert_ne!(renewed.hmac(), hash.hmac());
    assert_eq!(rotated.verify(&secret(1), &renewed), Ok(()));
    assert_eq!(rotated.renewed(&secret(1), &renewed), None);

    let retired = Peppers::new(pepper(2, 8), []).unwrap();
    let missing = retired.verify(&secret(1), &hash).unwrap_err();
    assert_eq!(missing, KeyRefused::PepperMissing(1));
    assert_eq!(missing.refused("login").kind(), ErrorKind::Missing);
    assert_eq!(retired.verify(&secret(1), &renewed), Ok(()));
}

#[test]
fn peppers_are_long_and_told_apart() {
    assert!(Pepper::new(1, vec![0; 31].into()).is_err());
    assert!(Peppers::new(pepper(1, 7), [pepper(2, 8), pepper(1, 9)]).is_err());
    assert!(Peppers::new(pepper(1, 7), [pepper(2, 8), pepper(2, 8)]).is_err());
}

#[test]
fn a_key_counts_until_it_expires_or_is_revoked() {
    let fresh = key(&secret(1));
    assert_eq!(fresh.check_usable(time(0)), Ok(()));
    let short = ApiKey { expires_at: Some(time(10)), ..fresh };
    assert_eq!(short.check_usable(time(10) - TimeDelta::nanoseconds(1)), Ok(()));
    assert_eq!(short.check_usable(time(10)), Err(KeyRefused::Expired(time(10))));
    let revoked = ApiKey { revoked_at: Some(time(3)), ..short };
    for now in [0, 3, 11] {
        assert_eq!(revoked.check_usable(time(now)), Err(KeyRefused::Revoked));
    }
}

#[test]
fn only_who_has_the_key_hears_what_became_of_it() {
    let revoked = ApiKey { revoked_at: Some(time(1)), ..key(&secret(1)) };
    assert_eq!(revoked.admit(&secret(1), &peppers(), time(2)), Err(KeyRefused::Revoked));
    assert_eq!(revoked.admit(&secret(2), &peppers(), time(2)), Err(KeyRefused::Unknown));
    assert_eq!(key(&secret(1)).admit(&secret(1), &peppers(), time(2)), Ok(()));
}

#[test]
fn a_use_is_written_down_once_in_a_while() {
    let fresh = key(&secret(1));
    assert!(fresh.should_note_use(time(0)));
    let used = ApiKey { last_used_at: Some(time(10)), ..fresh };
    for (now, worth) in [(9, false), (10, false), (14, false), (15, true), (99, true)] {
        assert_eq!(used.should_note_use(time(now)), worth, "{now}");
    }
}

#[test]
fn a_key_that_is_stored_has_a_name_and_a_scope() {
    let good = key(&secret(1));
    good.validate().unwrap();
    let bad = [
        ApiKey { name: " ".into(), ..good.clone() },
        ApiKey { name: "a\0".into(), ..good.clone() },
        ApiKey { scopes: Permissions::default(), ..good },
    ];
    assert_eq!(bad.map(|key| key.validate().unwrap_err().field), ["name", "name", "scopes_json"]);
}

#[test]
fn debug_carries_nothing() {
    let (shown, made) = (text(1), secret(1));
    let row = key(&made);
    let random = &shown[5..];
    let all =
        format!("{made:?} {:?} {:?} {row:?} {:#?}", pepper(1, 77), Peppers::new(pepper(1, 77), []), row.hash);
    assert!(!all.contains(random) && !all.contains(&random[8..16]), "{all}");
    assert!(!all.contains("77"), "{all}");
    for bytes in row.hash.hmac().windows(2) {
        assert!(!all.contains(&format!("{}, {}", bytes[0], bytes[1])), "{all}");
    }
    assert!(format!("{made:?}").contains("REDACTED") && !format!("{made:?}").contains(&random[..8]));
}
