//! What is the same for every crate is set once, in the workspace.

use toml::{Table, Value};

use crate::finding::Finding;

const PACKAGE_FIELDS: [&str; 5] = ["version", "edition", "rust-version", "license", "repository"];
const DEPENDENCY_TABLES: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

pub(crate) fn check(name: &str, manifest: &Table) -> Vec<Finding> {
    let package = manifest.get("package").and_then(Value::as_table);
    let fields = PACKAGE_FIELDS
        .into_iter()
        .filter(|field| !package.and_then(|it| it.get(*field)).is_some_and(inherits))
        .map(|field| {
            Finding::new(
                name,
                format!("sets its own {field}"),
                format!("write `{field}.workspace = true` under [package]"),
            )
        });
    let lints = (!manifest.get("lints").is_some_and(inherits)).then(|| {
        Finding::new(
            name,
            "does not take the lints of the workspace",
            "write `workspace = true` under [lints]; a lint that must differ is allowed in the code, with its reason",
        )
    });
    // A crate that turns its own features on for its tests must not name a version, which is not published yet.
    let others = dependencies(manifest).filter(|(dependency, _)| dependency.as_str() != name);
    let dependencies = others.filter(|(_, dependency)| !inherits(dependency)).map(|(dependency, _)| {
        Finding::new(
            name,
            format!("sets the version or path of {dependency} itself"),
            format!("set it in [workspace.dependencies], and write `{dependency}.workspace = true`"),
        )
    });
    fields.chain(lints).chain(dependencies).collect()
}

/// The dependencies of every kind, those for some platforms too.
fn dependencies(manifest: &Table) -> impl Iterator<Item = (&String, &Value)> {
    let platforms = manifest.get("target").and_then(Value::as_table);
    let platforms = platforms.into_iter().flat_map(Table::values).filter_map(Value::as_table);
    platforms
        .chain([manifest])
        .flat_map(|it| DEPENDENCY_TABLES.map(|table| it.get(table)))
        .flatten()
        .filter_map(Value::as_table)
        .flatten()
}

fn inherits(value: &Value) -> bool {
    value.get("workspace").and_then(Value::as_bool) == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        [package]
        name = "it"
        version.workspace = true
        edition.workspace = true
        rust-version.workspace = true
        license.workspace = true
        repository.workspace = true

        [lints]
        workspace = true

        [dependencies]
        serde.workspace = true
        tokio = { workspace = true, optional = true }
    "#;

    fn broken(manifest: &str) -> Vec<String> {
        let findings = check("it", &manifest.parse().unwrap());
        findings.into_iter().map(|it| it.broken).collect()
    }

    #[test]
    fn a_crate_that_inherits_everything_is_well() {
        assert_eq!(broken(GOOD), [""; 0]);
    }

    #[test]
    fn a_field_of_its_own_is_found() {
        for field in PACKAGE_FIELDS {
            let own = GOOD.replace(&format!("\n        {field}.workspace = true"), "");
            assert_eq!(broken(&own), [format!("sets its own {field}")]);
            let own =
                GOOD.replace(&format!("\n        {field}.workspace = true"), &format!("\n{field} = \"1\""));
            assert_eq!(broken(&own), [format!("sets its own {field}")]);
        }
    }

    #[test]
    fn lints_of_its_own_are_found() {
        let own = GOOD.replace("[lints]\n        workspace = true", "");
        assert_eq!(broken(&own), ["does not take the lints of the workspace"]);
    }

    #[test]
    fn a_version_of_its_own_is_found_in_every_kind_of_dependency() {
        for table in [
            "dev-dependencies",
            "build-dependencies",
            "target.'cfg(unix)'.dependencies",
            "target.'cfg(unix)'.dev-dependencies",
        ] {
            let own = format!("{GOOD}\n[{table}]\nlibc = \"0.2\"");
            assert_eq!(broken(&own), ["sets the version or path of libc itself"]);
        }
        let own = GOOD.replace("serde.workspace = true", "serde = { path = \"../serde\" }");
        assert_eq!(broken(&own), ["sets the version or path of serde itself"]);
    }
}
