//! `lime-core` has no runtime, no ORM and no HTTP, and is quick to build.

use std::collections::BTreeSet;

use super::package;
use crate::finding::Finding;

/// Crates that do I/O, or bring a runtime, an ORM or HTTP.
const OUTSIDE: [&str; 18] = [
    "actix-web",
    "async-std",
    "axum",
    "diesel",
    "git2",
    "gix",
    "hyper",
    "octocrab",
    "redis",
    "reqwest",
    "rusqlite",
    "sea-orm",
    "smol",
    "sqlx",
    "sqlx-core",
    "tokio",
    "tonic",
    "ureq",
];

/// The most lines that `cargo tree -p lime-core -e normal --prefix none | sort -u` may have.
const MAX_LINES: usize = 70;

pub(crate) fn free_of_the_outside(tree: &BTreeSet<String>) -> Vec<Finding> {
    let names: BTreeSet<&str> = tree.iter().filter_map(|line| package(line)).map(|it| it.0).collect();
    OUTSIDE
        .into_iter()
        .filter(|name| names.contains(name))
        .map(|name| {
            Finding::new(
                "lime-core",
                format!("depends on {name}; the core does no I/O and has no runtime, ORM or HTTP"),
                format!(
                    "`cargo tree -p lime-core -i {name}` shows through whom; make it a port, and an adapter"
                ),
            )
        })
        .collect()
}

pub(crate) fn light(tree: &BTreeSet<String>) -> Option<Finding> {
    (tree.len() >= MAX_LINES).then(|| {
        Finding::new(
            "lime-core",
            format!("has {} crates in its normal tree; it stays under {MAX_LINES}", tree.len()),
            "`cargo tree -p lime-core -e normal` shows them; drop one, or its features",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(lines: &[&str]) -> BTreeSet<String> {
        lines.iter().map(|&line| line.to_owned()).collect()
    }

    #[test]
    fn a_runtime_in_the_core_is_found_by_its_name() {
        let tree =
            lines(&["lime-core v0.1.0 (/checkout/crates/core)", "tokio v1.54.0 (*)", "serde v1.0.229"]);
        let found = free_of_the_outside(&tree);
        assert_eq!(found.len(), 1);
        assert!(found[0].broken.contains("tokio"));
    }

    #[test]
    fn a_name_that_only_begins_alike_is_not_meant() {
        assert_eq!(free_of_the_outside(&lines(&["tokio-util v0.7.0", "hyperlink v1.0.0"])), []);
    }

    #[test]
    fn the_core_stays_light() {
        let tree: BTreeSet<String> = (0..MAX_LINES).map(|n| format!("crate-{n} v1.0.0")).collect();
        assert!(light(&tree).is_some());
        assert!(light(&tree.into_iter().skip(1).collect()).is_none());
    }
}
