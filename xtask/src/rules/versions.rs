//! One version of each dependency: two are built twice, and their types don't fit each other.

use std::collections::{BTreeMap, BTreeSet};

use super::package;
use crate::finding::Finding;

/// Crates whose own dependencies are not looked at.
///
/// `pglite-oxide` is wasmer with its alphas, and behind the feature `embedded`; `virtual-mio` and `virtual-net` are
/// pinned for it. What they bring twice is theirs to mend.
const APART: [&str; 3] = ["pglite-oxide", "virtual-mio", "virtual-net"];

/// An old version that somebody else still needs.
struct Exception {
    name: &'static str,
    /// The old version as far as it matters, like `0.10`.
    version: &'static str,
    reason: &'static str,
}

const EXCEPTIONS: [Exception; 13] = [
    old("base64", "0.22", "sqlx 0.9"),
    old("block-buffer", "0.10", "sha2 0.10"),
    old("cpufeatures", "0.2", "sha2 0.10"),
    old("crypto-common", "0.1", "sha2 0.10"),
    old("digest", "0.10", "sha2 0.10"),
    old("getrandom", "0.2", "ring 0.17, under rustls"),
    old("getrandom", "0.3", "opentelemetry_sdk 0.33, under rand 0.9"),
    old("hashbrown", "0.16", "sqlx 0.9"),
    old("heck", "0.4", "the macros of sea-orm 2.0"),
    old("rand", "0.9", "opentelemetry_sdk 0.33"),
    old("rand_core", "0.9", "opentelemetry_sdk 0.33, under rand 0.9"),
    old("sha2", "0.10", "sqlx-core 0.9, where sqlx-postgres 0.9 has 0.11"),
    old("syn", "2", "macros that have not moved to syn 3; at build time only"),
];

const fn old(name: &'static str, version: &'static str, reason: &'static str) -> Exception {
    Exception { name, version, reason }
}

/// The arguments of the `cargo tree` that is judged: all of what is built, for tests too.
///
/// One platform is named so that the answer is the same on every machine.
pub(crate) fn tree_args() -> Vec<&'static str> {
    let mut args = vec![
        "--workspace",
        "--all-features",
        "--edges=normal,build,dev",
        "--target=x86_64-unknown-linux-gnu",
    ];
    args.extend(APART.iter().flat_map(|name| ["--prune", name]));
    args
}

pub(crate) fn check(tree: &BTreeSet<String>) -> Vec<Finding> {
    judge(tree, &EXCEPTIONS)
}

fn judge(tree: &BTreeSet<String>, exceptions: &[Exception]) -> Vec<Finding> {
    let mut twice: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, version) in tree.iter().filter_map(|line| package(line)) {
        twice.entry(name).or_default().insert(version);
    }
    twice.retain(|_, versions| versions.len() > 1);

    let mut findings = Vec::new();
    for exception in exceptions {
        let let_in = twice.get_mut(exception.name).is_some_and(|versions| {
            let before = versions.len();
            versions.retain(|version| !exception.is(version));
            versions.len() < before
        });
        if !let_in {
            findings.push(exception.no_longer_needed());
        }
    }
    twice.retain(|_, versions| versions.len() > 1);
    findings.extend(twice.iter().map(|(name, versions)| more_than_one(name, versions)));
    findings
}

fn more_than_one(name: &str, versions: &BTreeSet<&str>) -> Finding {
    let versions: Vec<&str> = versions.iter().copied().collect();
    Finding::new(
        name,
        format!("comes in more than one version: {}", versions.join(", ")),
        format!(
            "`cargo tree --workspace --all-features -i {name}@VERSION` shows for whom; choose versions that agree, or \
             add the old one with its reason to xtask/src/rules/versions.rs"
        ),
    )
}

impl Exception {
    fn is(&self, version: &str) -> bool {
        version.strip_prefix(self.version).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    fn no_longer_needed(&self) -> Finding {
        Finding::new(
            self.name,
            format!("{} is no second version any more; it was let in for {}", self.version, self.reason),
            "delete its line in xtask/src/rules/versions.rs",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYN: Exception = old("syn", "2", "old macros");

    fn broken(tree: &[&str], exceptions: &[Exception]) -> Vec<String> {
        let tree = tree.iter().map(|&line| line.to_owned()).collect();
        judge(&tree, exceptions).into_iter().map(|it| it.broken).collect()
    }

    #[test]
    fn one_version_is_well_however_often_it_is_listed() {
        let tree = ["syn v3.0.9 (proc-macro)", "syn v3.0.9 (proc-macro) (*)", "quote v1.0.0"];
        assert_eq!(broken(&tree, &[]), [""; 0]);
    }

    #[test]
    fn a_second_version_is_found_unless_it_has_a_reason() {
        let tree = ["syn v2.0.119", "syn v3.0.9"];
        assert_eq!(broken(&tree, &[]), ["comes in more than one version: 2.0.119, 3.0.9"]);
        assert_eq!(broken(&tree, &[SYN]), [""; 0]);
    }

    #[test]
    fn a_reason_is_for_its_own_version_only() {
        let tree = ["syn v2.0.119", "syn v3.0.9", "syn v4.0.0"];
        assert_eq!(broken(&tree, &[SYN]), ["comes in more than one version: 3.0.9, 4.0.0"]);
        let tree = ["syn v20.0.0", "syn v3.0.9"];
        assert_eq!(broken(&tree, &[SYN]).len(), 2, "20 is not 2");
    }

    #[test]
    fn a_reason_that_is_no_longer_needed_is_found() {
        assert_eq!(
            broken(&["syn v3.0.9"], &[SYN]),
            ["2 is no second version any more; it was let in for old macros"]
        );
    }
}
