//! Arrows run one way: `core <- engine <- examples`, `core <- adapters <- examples`.

use std::path::Path;

use crate::cargo::Member;
use crate::finding::Finding;

const CORE: &[&str] = &["lime-core"];
const PROVIDER: &[&str] = &["lime-core", "lime-provider-cli"];
/// What tests may use besides.
const TEST_PARTS: &[&str] = &["lime-conformance", "lime-scripted-model"];
/// What the tests of the queue on Redis may use: it stands before a storage, and is tested before the real one.
const BEFORE_A_STORAGE: &[&str] = &["lime-conformance", "lime-storage-postgres"];

pub(crate) fn check(member: &Member, root: &Path) -> Vec<Finding> {
    let Some((normal, tests)) = allowed(member, root) else {
        return Vec::new();
    };
    // A crate may turn its own features on for its tests.
    let of_workspace = member.dependencies.iter().filter(|it| it.path.is_some() && it.name != member.name);
    let too_far = of_workspace.filter(|it| {
        let name = it.name.as_str();
        let in_tests = it.kind.as_deref() == Some("dev") && tests.contains(&name);
        !normal.contains(&name) && !in_tests
    });
    too_far
        .map(|it| {
            let kind = it.kind.as_deref().unwrap_or("normal");
            Finding::new(
                &member.name,
                format!("the {kind} dependency {} points the wrong way; {}", it.name, may(normal, tests)),
                "take what you need through a port of lime-core, or move the code to where both are known",
            )
        })
        .collect()
}

/// The workspace crates that a crate may depend on, and those that its tests may besides; `None` for all.
fn allowed(member: &Member, root: &Path) -> Option<(&'static [&'static str], &'static [&'static str])> {
    let assembles = ["examples", "benches"]
        .iter()
        .any(|folder| Path::new(&member.manifest_path).starts_with(root.join(folder)));
    match member.name.as_str() {
        "assembly-lime" | "lime" => None,
        _ if assembles => None,
        "lime-core" | "lime-provider-cli" | "lime-scripted-model" => Some((&[], &[])),
        "lime-queue-redis" => Some((CORE, BEFORE_A_STORAGE)),
        "xtask" => Some((CORE, &[])),
        name if name.starts_with("lime-provider-") => Some((PROVIDER, TEST_PARTS)),
        _ => Some((CORE, TEST_PARTS)),
    }
}

fn may(normal: &[&str], tests: &[&str]) -> String {
    match (normal, tests) {
        ([], _) => "it may depend on no crate of the workspace".into(),
        (_, []) => format!("it may depend on {}", normal.join(", ")),
        _ => format!("it may depend on {}, its tests on {} too", normal.join(", "), tests.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn broken(name: &str, folder: &str, dependency: &str, kind: Option<&str>) -> bool {
        let member = serde_json::from_value(json!({
            "name": name,
            "manifest_path": format!("/checkout/{folder}/Cargo.toml"),
            "dependencies": [
                { "name": dependency, "kind": kind, "path": "/checkout/crates/it" },
                { "name": "tokio", "kind": null, "path": null },
            ],
        }))
        .unwrap();
        !check(&member, Path::new("/checkout")).is_empty()
    }

    #[test]
    fn the_core_and_the_kernels_depend_on_no_crate_of_the_workspace() {
        for name in ["lime-core", "lime-provider-cli", "lime-scripted-model"] {
            assert!(broken(name, "crates/it", "lime-conformance", None));
            assert!(broken(name, "crates/it", "lime-conformance", Some("dev")));
        }
    }

    #[test]
    fn an_adapter_knows_the_core_and_no_other_adapter() {
        for name in ["lime-git", "lime-storage-postgres", "lime-provider-codex", "lime-engine"] {
            assert!(!broken(name, "crates/it", "lime-core", None));
            assert!(broken(name, "crates/it", "lime-queue-redis", None));
            assert!(broken(name, "crates/it", "lime-queue-redis", Some("dev")));
            assert!(broken(name, "crates/it", "lime-queue-redis", Some("build")));
            assert!(broken(name, "crates/it", "assembly-lime", None));
        }
        assert!(broken("lime-git", "crates/it", "lime-engine", None));
    }

    #[test]
    fn only_providers_share_the_subprocess_kernel() {
        assert!(!broken("lime-provider-codex", "crates/it", "lime-provider-cli", None));
        assert!(broken("lime-git", "crates/it", "lime-provider-cli", None));
    }

    #[test]
    fn the_suites_and_the_scripted_model_are_for_tests() {
        for part in TEST_PARTS {
            assert!(!broken("lime-provider-codex", "crates/it", part, Some("dev")));
            assert!(broken("lime-provider-codex", "crates/it", part, None));
        }
    }

    #[test]
    fn the_queue_on_redis_is_tested_before_a_real_storage() {
        assert!(!broken("lime-queue-redis", "crates/it", "lime-storage-postgres", Some("dev")));
        assert!(broken("lime-queue-redis", "crates/it", "lime-storage-postgres", None));
        assert!(broken("lime-queue-redis", "crates/it", "lime-engine", Some("dev")));
    }

    #[test]
    fn who_assembles_may_know_everything() {
        assert!(!broken("assembly-lime", "crates/it", "lime-git", None));
        assert!(!broken("quickstart", "examples/quickstart", "lime-git", None));
        assert!(broken("xtask", "xtask", "lime-git", None));
    }
}
