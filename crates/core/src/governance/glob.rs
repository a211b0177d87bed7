//! Texts in which `*` stands for any text.

/// Whether a text is like a pattern.
///
/// - Between two patterns it says whether every text like the second is like the first: its `*` can be matched by
///   nothing but a `*`.
pub(crate) fn is_like(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut pieces = pieces.peekable();
    if pieces.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return rest.ends_with(piece);
        }
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    true
}

/// Whether some text is like both patterns.
pub(crate) fn overlap(one: &str, other: &str) -> bool {
    match (ends(one), ends(other)) {
        // With a `*` in both, whatever is between their ends can be written one after the other.
        (Some((head, tail)), Some((other_head, other_tail))) => {
            (head.starts_with(other_head) || other_head.starts_with(head))
                && (tail.ends_with(other_tail) || other_tail.ends_with(tail))
        }
        (Some(_), None) => is_like(one, other),
        (None, Some(_) | None) => is_like(other, one),
    }
}

/// What a pattern begins and ends with; `None` if it has no `*`.
fn ends(pattern: &str) -> Option<(&str, &str)> {
    let (head, rest) = pattern.split_once('*')?;
    Some((head, rest.rsplit_once('*').map_or(rest, |(_, tail)| tail)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn both_say_what_texts_say(
            one in "[ab*]{0,5}", other in "[ab*]{0,5}", texts in prop::collection::vec("[ab]{0,7}", 40),
        ) {
            for text in &texts {
                let both = is_like(&one, text) && is_like(&other, text);
                prop_assert!(!both || overlap(&one, &other), "{one} {other} {text}");
                if is_like(&one, &other) && is_like(&other, text) {
                    prop_assert!(is_like(&one, text), "{one} {other} {text}");
                }
            }
        }

        #[test]
        fn an_overlap_has_a_witness(one in "[ab*]{0,5}", other in "[ab*]{0,5}") {
            let witness = |text: &String| is_like(&one, text) && is_like(&other, text);
            prop_assert_eq!(overlap(&one, &other), words(10).iter().any(witness), "{} {}", one, other);
        }
    }

    /// Every word of `a` and `b` up to this length.
    fn words(length: u32) -> Vec<String> {
        (0..=length)
            .flat_map(|length| (0..1_u32 << length).map(move |bits| (length, bits)))
            .map(|(length, bits)| (0..length).map(|at| if bits >> at & 1 == 0 { 'a' } else { 'b' }).collect())
            .collect()
    }
}
