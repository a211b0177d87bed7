//! `lime instructions`: what an agent would be told, and what two runs were told differently.

use lime_core::agents::{LayerChange, LayerRecord, ResolvedInstructions};
use lime_core::planning::Ticket;
use lime_core::ports::CommitId;
use lime_core::repos::Repository;
use lime_core::runs::{AgentMode, AgentRun, ProviderId};
use lime_core::{Id, Lookup, Stored};
use lime_engine::Factory;
use serde::Serialize;

use crate::args::{InstructionsCommand, PreviewArgs};
use crate::desk::Desk;
use crate::exit::Failure;
use crate::out::{Table, say};
use crate::runs::find_project;
use crate::text::{clean, first_line};
use crate::whose::Whose;

/// How many characters of a hash are shown in a table.
const HASH: usize = 12;
/// How many columns of a source are shown in a table.
const SOURCE: usize = 80;

pub(crate) async fn run(desk: &Desk, command: InstructionsCommand) -> Result<(), Failure> {
    match command {
        InstructionsCommand::Preview(args) => preview(desk, args).await,
        InstructionsCommand::Diff { before, after } => diff(desk, before, after).await,
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PreviewDocument {
    tenant: String,
    provider: ProviderId,
    mode: AgentMode,
    model: Option<String>,
    repository_id: Option<Id<Repository>>,
    /// The commit whose files are told.
    commit: Option<CommitId>,
    instructions: ResolvedInstructions,
}

async fn preview(desk: &Desk, args: PreviewArgs) -> Result<(), Failure> {
    let PreviewArgs { project, repository, ticket, provider, mode } = args;
    let whose = Whose::one(&desk.storage, desk.tenant.as_ref()).await?;
    let ticket: Option<Stored<Ticket>> = match ticket {
        Some(ticket) => Some(Lookup::get(&desk.storage, &whose.scope, ticket).await?),
        None => None,
    };
    let project_id = match (&project, &ticket) {
        (Some(project), _) => find_project(desk, &whose, project).await?,
        (None, Some(ticket)) => ticket.project_id,
        (None, None) => return Err(Failure::usage("which runs? Name a --project or a --ticket")),
    };
    let run = AgentRun {
        repository_id: repository.or_else(|| ticket.as_ref()?.repository_id),
        ticket_id: ticket.map(|ticket| ticket.id),
        ..AgentRun::new(project_id, provider, mode, String::new())
    };
    let factory = Factory::builder(desk.storage.clone()).build();
    let preview = factory.preview(&whose.scope, &run).await?;
    let document = PreviewDocument {
        tenant: whose.slug.as_str().to_owned(),
        provider: run.provider,
        mode: run.mode,
        model: preview.model,
        repository_id: run.repository_id,
        commit: preview.repository.and_then(|repository| repository.config_sha),
        instructions: preview.instructions,
    };
    desk.out.answer(&document, || document.text())?;
    if !desk.out.json && document.instructions.layers.is_empty() {
        say("Nothing is written for such a run.");
    }
    Ok(())
}

impl PreviewDocument {
    fn text(&self) -> String {
        if self.instructions.layers.is_empty() {
            return String::new();
        }
        let mut table = Table::new(["SCOPE", "SOURCE", "PRIORITY", "BYTES", "SHA256"]);
        for layer in &self.instructions.layers {
            table.row([
                layer.scope.to_string(),
                first_line(&layer.source.to_string(), SOURCE),
                layer.priority.to_string(),
                bytes(layer),
                short(&layer.sha256),
            ]);
        }
        format!("{}\n{}", table.text(), clean(&self.instructions.text))
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DiffDocument {
    before: Told,
    after: Told,
    same: bool,
    changes: Vec<LayerChange>,
}

/// What a run was told, by its hash.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    run_id: Id<AgentRun>,
    sha256: String,
}

async fn diff(desk: &Desk, before: Id<AgentRun>, after: Id<AgentRun>) -> Result<(), Failure> {
    let (first, second) = (told(desk, before).await?, told(desk, after).await?);
    let document = DiffDocument {
        same: first.sha256 == second.sha256,
        changes: first.diff(&second),
        before: Told { run_id: before, sha256: first.sha256 },
        after: Told { run_id: after, sha256: second.sha256 },
    };
    desk.out.answer(&document, || document.table())?;
    if !desk.out.json && document.changes.is_empty() {
        say("Both were told the same.");
    }
    Ok(())
}

async fn told(desk: &Desk, id: Id<AgentRun>) -> Result<ResolvedInstructions, Failure> {
    let whose = Whose::of_run(&desk.storage, desk.tenant.as_ref(), id).await?;
    let run: Stored<AgentRun> = desk.storage.get(&whose.scope, id).await?;
    run.value.instructions.ok_or_else(|| {
        Failure::failed(format!("the run {id} has not been told anything yet: no agent has begun it"))
    })
}

impl DiffDocument {
    fn table(&self) -> String {
        if self.changes.is_empty() {
            return String::new();
        }
        let mut table = Table::new(["CHANGE", "SCOPE", "SOURCE", "PRIORITY", "BYTES", "SHA256"]);
        for change in &self.changes {
            let (name, before, after) = match change {
                LayerChange::Added { layer } => ("added", layer, layer),
                LayerChange::Removed { layer } => ("removed", layer, layer),
                LayerChange::Moved { layer } => ("moved", layer, layer),
                LayerChange::Changed { before, after } => ("changed", before, after),
            };
            let both = |of: fn(&LayerRecord) -> String| {
                let (before, after) = (of(before), of(after));
                if before == after { after } else { format!("{before} -> {after}") }
            };
            table.row([
                name.to_owned(),
                both(|layer| layer.scope.to_string()),
                first_line(&after.source.to_string(), SOURCE),
                both(|layer| layer.priority.to_string()),
                both(bytes),
                both(|layer| short(&layer.sha256)),
            ]);
        }
        table.text()
    }
}

fn bytes(layer: &LayerRecord) -> String {
    layer.bytes.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string())
}

fn short(hash: &str) -> String {
    hash.chars().take(HASH).collect()
}
