//! The wire of requests and events as JSON Schema, for clients in other languages.

use std::fs;
use std::path::Path;

use lime_core::runs::{AgentEvent, AgentRunRequest, RunEvent};
use schemars::Schema;
use schemars::generate::SchemaSettings;

use crate::Outcome;
use crate::finding::Finding;

const FOLDER: &str = "docs/schema";

/// Each file of `docs/schema`, and what it says.
fn schemas() -> [(&'static str, Schema); 3] {
    // A request is what we accept, an event is what we send: they differ in the fields that must be there.
    let accepted = || SchemaSettings::draft2020_12().for_deserialize().into_generator();
    let sent = || SchemaSettings::draft2020_12().for_serialize().into_generator();
    [
        ("agent-run-request.schema.json", accepted().into_root_schema_for::<AgentRunRequest>()),
        ("agent-event.schema.json", sent().into_root_schema_for::<AgentEvent>()),
        ("run-event.schema.json", sent().into_root_schema_for::<RunEvent>()),
    ]
}

pub(crate) fn write(root: &Path) -> Outcome<()> {
    let folder = root.join(FOLDER);
    fs::create_dir_all(&folder)?;
    for (file, schema) in schemas() {
        fs::write(folder.join(file), text(&schema)?)?;
    }
    Ok(())
}

pub(crate) fn check(root: &Path) -> Outcome<Vec<Finding>> {
    let mut findings = Vec::new();
    for (file, schema) in schemas() {
        let path = format!("{FOLDER}/{file}");
        // A file that cannot be read is out of date as well.
        if fs::read_to_string(root.join(&path)).ok() != Some(text(&schema)?) {
            findings.push(Finding::new(
                path,
                "does not say what the types in lime-core say",
                "run `cargo xtask schema`, and read the difference: it is what clients will see",
            ));
        }
    }
    Ok(findings)
}

fn text(schema: &Schema) -> Outcome<String> {
    Ok(serde_json::to_string_pretty(schema)? + "\n")
}
