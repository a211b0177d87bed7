//! The rules of `docs/architecture.md` that hold between crates.

mod arrows;
mod core_tree;
mod inherited;
mod versions;

use std::path::Path;

use crate::finding::Finding;
use crate::{Outcome, cargo};

pub(crate) fn check(root: &Path) -> Outcome<Vec<Finding>> {
    let mut findings = Vec::new();
    for member in cargo::members(root)? {
        let manifest = std::fs::read_to_string(&member.manifest_path)?;
        findings.extend(arrows::check(&member, root));
        findings.extend(inherited::check(&member.name, &manifest.parse()?));
    }
    let all_features = cargo::tree(root, &["--package=lime-core", "--edges=normal", "--all-features"])?;
    findings.extend(core_tree::free_of_the_outside(&all_features));
    let default = cargo::tree(root, &["--package=lime-core", "--edges=normal"])?;
    findings.extend(core_tree::light(&default));
    findings.extend(versions::check(&cargo::tree(root, &versions::tree_args())?));
    Ok(findings)
}

/// The name and version of a line of `cargo tree`.
fn package(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split_whitespace();
    Some((words.next()?, words.next()?.strip_prefix('v')?))
}
