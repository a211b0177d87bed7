//! Instructions and lists of tools: what is kept of them, and which of them mean a run.

#![allow(missing_docs, reason = "each name says the whole of it")]

use lime_core::agents::{
    CustomInstruction, DefaultInstruction, InstructionScope, LayerSource, ResolvedInstructions,
};
use lime_core::governance::{DefaultTools, ToolPattern};
use lime_core::planning::{Board, Ticket, Workflow};
use lime_core::ports::{CommittedFile, LeftOut, RunTarget, WhyLeftOut};
use lime_core::repos::{Repository, RepositoryConfig, RepositoryInstructions};
use lime_core::runs::AgentMode;
use lime_core::{ErrorKind, Id, LookupExt, Query, Store, Stored};

use super::entities::{round_trip, time};
use crate::scene::{OTHER_PROVIDER, PROVIDER, Scene, Subject};

async fn refused<E>(storage: &Subject, scene: &Scene, field: &str, bad: E)
where
    E: lime_core::Editable,
    dyn lime_core::ports::Storage: Store<E>,
{
    let error = storage.insert(&scene.scope, bad).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains(field), "{error}");
}

/// Instructions for each scope that there is.
async fn scopes(storage: &Subject, scene: &Scene) -> [InstructionScope; 4] {
    [
        InstructionScope::Tenant,
        InstructionScope::Project(scene.project.id),
        InstructionScope::Repository(scene.repository(storage).await.id),
        InstructionScope::Ticket(scene.ticket(storage).await.id),
    ]
}

pub async fn a_custom_instruction_comes_back_as_it_was(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let scopes = scopes(&storage, &scene).await;
    let modes = AgentMode::ALL.iter().copied().map(Some).chain([None]);
    let every = modes.flat_map(|mode| scopes.map(|scope| (mode, scope))).map(|(mode, scope)| {
        let content = format!(" # {scope}\r\n\té {mode:?}\n");
        let priority = if mode.is_none() { i32::MIN } else { i32::MAX };
        CustomInstruction { mode, priority, enabled: false, ..CustomInstruction::new(scope, content) }
    });
    let longest = "é".repeat(ResolvedInstructions::MAX_LAYER_BYTES / 2);
    let longest = CustomInstruction::new(InstructionScope::Tenant, longest);
    round_trip(&storage, &scene.scope, every.chain([longest])).await;
    let wanted = Query::all().filter(CustomInstruction::SCOPE.eq(scopes[2]));
    assert_eq!((*storage).all(&scene.scope, wanted).await.unwrap().len(), 5);
    let wanted = Query::all()
        .filter(CustomInstruction::TICKET_ID.eq(scopes[3].ticket()))
        .filter(CustomInstruction::MODE.eq("plan"));
    assert_eq!((*storage).all(&scene.scope, wanted).await.unwrap().len(), 1);
}

pub async fn instructions_have_rules(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let new = |content: &str| CustomInstruction::new(InstructionScope::Tenant, content);
    let too_long = "é".repeat(ResolvedInstructions::MAX_LAYER_BYTES / 2) + "x";
    for bad in ["", " \n\t", "a\0b", &*too_long] {
        refused(&storage, &scene, "content_md", new(bad)).await;
        let default = DefaultInstruction { provider: None, enabled: true, content_md: bad.into() };
        refused(&storage, &scene, "content_md", default).await;
    }
    let missing = Id::new(i64::MAX);
    for (field, scope) in [
        ("project_id", InstructionScope::Project(missing)),
        ("repository_id", InstructionScope::Repository(Id::new(missing.raw()))),
        ("ticket_id", InstructionScope::Ticket(Id::new(missing.raw()))),
    ] {
        refused(&storage, &scene, field, CustomInstruction::new(scope, "x")).await;
    }
    let kept = storage.insert(&scene.scope, new("x")).await.unwrap();
    let error = storage.insert(&scene.scope, new("y")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.to_string().contains("scope, mode, priority"), "{error}");
    for other in [
        CustomInstruction { priority: 99, ..kept.value.clone() },
        CustomInstruction { mode: Some(AgentMode::Plan), ..kept.value.clone() },
        CustomInstruction { scope: InstructionScope::Project(scene.project.id), ..kept.value.clone() },
    ] {
        storage.insert(&scene.scope, other).await.unwrap();
    }
}

pub async fn a_default_instruction_comes_back_as_it_was(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let new = |provider| DefaultInstruction { provider, enabled: true, content_md: "Be brief.\n".into() };
    let disabled = DefaultInstruction { enabled: false, ..new(Some(PROVIDER)) };
    round_trip(&storage, &scene.scope, [new(None), new(Some(OTHER_PROVIDER)), disabled]).await;
    let error = storage.insert(&scene.scope, new(None)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "there is one for any provider");
}

pub async fn default_tools_come_back_as_they_were(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let pattern = |text: &str| ToolPattern::parse(text).unwrap();
    let full = DefaultTools {
        provider: Some(OTHER_PROVIDER),
        allowed: vec![pattern("Read"), pattern("Bash(git *)"), pattern("mcp__*")],
        denied: vec![pattern("Bash(git push *)")],
        enabled: false,
    };
    let empty = DefaultTools { provider: None, allowed: vec![], denied: vec![], enabled: true };
    round_trip(&storage, &scene.scope, [full.clone(), empty]).await;
    let many = DefaultTools { provider: Some(PROVIDER), denied: vec![pattern("X"); 201], ..full.clone() };
    refused(&storage, &scene, "denied_tools_json", many).await;
    let error = storage.insert(&scene.scope, full).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
}

pub async fn a_repository_config_comes_back_as_it_was(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let repository = scene.repository(&storage).await;
    let other = Repository { full_name: "/srv/other".into(), ..repository.value.clone() };
    let other = storage.insert(&scene.scope, other).await.unwrap();
    let file = |path: &str| CommittedFile { path: path.into(), content: "# Rules\n\né".into() };
    let left_out = |why| LeftOut { path: format!(".claude/{why}"), why };
    let full = RepositoryConfig {
        config_path: "tools/agents".into(),
        config_sha: Some("b".repeat(40)),
        config: RepositoryInstructions {
            files: vec![file("AGENTS.md"), file("tools/agents/rules/a.md")],
            left_out: WhyLeftOut::ALL.iter().map(|&why| left_out(why)).collect(),
        },
        last_synced_at: Some(time()),
        sync_error: Some("no disk".into()),
        ..RepositoryConfig::new(repository.id)
    };
    round_trip(&storage, &scene.scope, [full, RepositoryConfig::new(other.id)]).await;
    for bad in ["", "/etc", "..", "a/../b", "a//b", "-x", "a*", "a/"] {
        let bad = RepositoryConfig { config_path: bad.into(), ..RepositoryConfig::new(repository.id) };
        refused(&storage, &scene, "config_path", bad).await;
    }
    let error = storage.insert(&scene.scope, RepositoryConfig::new(other.id)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "a repository has one");
    Store::delete(&*storage, &scene.scope, &repository).await.unwrap();
    let left = (*storage).all(&scene.scope, Query::<RepositoryConfig>::all()).await.unwrap();
    assert_eq!(left.len(), 1, "it goes with its repository");
}

async fn told(storage: &Subject, scene: &Scene, target: RunTarget) -> Vec<String> {
    let mut told: Vec<_> = storage
        .layers(&scene.scope, target)
        .await
        .unwrap()
        .into_iter()
        .filter(|layer| layer.enabled)
        .map(|layer| layer.content_md)
        .collect();
    told.sort_unstable();
    told
}

async fn another_ticket(storage: &Subject, scene: &Scene) -> Stored<Ticket> {
    let board = Board { project_id: scene.project.id, name: "More".into(), workflow: Workflow::delivery() };
    let board = storage.insert(&scene.scope, board).await.unwrap();
    let ticket = Ticket::new(scene.project.id, board.id, "backlog", "Another ticket");
    storage.insert(&scene.scope, ticket).await.unwrap()
}

pub async fn a_run_has_the_layers_of_what_it_is_about(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let others = Scene::new(&storage).await;
    let everywhere = scopes(&storage, &scene).await;
    let elsewhere = scopes(&storage, &others).await;
    for (scene, scopes) in [(&scene, everywhere), (&others, elsewhere)] {
        for scope in scopes {
            let name = if scene.scope == others.scope { "theirs" } else { "ours" };
            let content = format!("{name} {}", scope.layer());
            storage.insert(&scene.scope, CustomInstruction::new(scope, content)).await.unwrap();
        }
    }
    let default = |provider, text: &str| DefaultInstruction {
        provider,
        enabled: text != "disabled",
        content_md: text.into(),
    };
    storage.insert(&scene.scope, default(None, "any")).await.unwrap();
    storage.insert(&scene.scope, default(Some(PROVIDER), "own")).await.unwrap();
    storage.insert(&scene.scope, default(Some(OTHER_PROVIDER), "disabled")).await.unwrap();
    let off = CustomInstruction::new(InstructionScope::Tenant, "disabled too");
    storage.insert(&scene.scope, CustomInstruction { priority: 1, enabled: false, ..off }).await.unwrap();
    let other = InstructionScope::Ticket(another_ticket(&storage, &scene).await.id);
    storage.insert(&scene.scope, CustomInstruction::new(other, "another ticket")).await.unwrap();

    let [_, _, repository, ticket] = everywhere;
    let project = RunTarget { project_id: scene.project.id, repository_id: None, ticket_id: None };
    let whole = RunTarget { repository_id: repository.repository(), ticket_id: ticket.ticket(), ..project };
    assert_eq!(told(&storage, &scene, project).await, ["any", "ours project", "ours tenant", "own"]);
    assert_eq!(
        told(&storage, &scene, whole).await,
        ["any", "ours project", "ours repository", "ours tenant", "ours ticket", "own"]
    );
    // The ids of another tenant mean nothing here.
    let foreign = RunTarget {
        project_id: others.project.id,
        repository_id: elsewhere[2].repository(),
        ticket_id: elsewhere[3].ticket(),
    };
    assert_eq!(told(&storage, &scene, foreign).await, ["any", "ours tenant", "own"]);
}

pub async fn a_layer_says_where_it_comes_from(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let content = " é\n\\x41 'quoted' \r\n";
    let default = DefaultInstruction { provider: Some(PROVIDER), enabled: true, content_md: content.into() };
    let default = storage.insert(&scene.scope, default).await.unwrap();
    let custom = CustomInstruction {
        mode: Some(AgentMode::Plan),
        priority: -5,
        ..CustomInstruction::new(InstructionScope::Project(scene.project.id), content)
    };
    let custom = storage.insert(&scene.scope, custom).await.unwrap();
    let changed = CustomInstruction { content_md: "Changed.".into(), ..custom.value.clone() };
    let custom = storage.update(&scene.scope, &Stored { value: changed, ..custom }).await.unwrap();
    let target = RunTarget { project_id: scene.project.id, repository_id: None, ticket_id: None };
    let layers = storage.layers(&scene.scope, target).await.unwrap();
    let resolved = ResolvedInstructions::resolve(&layers, &PROVIDER, AgentMode::Plan).unwrap();
    let sources: Vec<_> =
        resolved.layers.iter().map(|layer| (layer.source.clone(), layer.priority)).collect();
    assert_eq!(sources, [(LayerSource::Default(default.id), 100), (LayerSource::Custom(custom.id), -5)]);
    // What a store keeps of the content's hash is what the content gives.
    let bare: Vec<_> = layers
        .into_iter()
        .map(|layer| lime_core::agents::InstructionLayer { content_sha256: None, ..layer })
        .collect();
    assert_eq!(ResolvedInstructions::resolve(&bare, &PROVIDER, AgentMode::Plan).unwrap(), resolved);
}

pub async fn instructions_go_with_what_they_are_for(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let [_, project, repository, ticket] = scopes(&storage, &scene).await;
    for scope in [InstructionScope::Tenant, project, repository, ticket] {
        storage.insert(&scene.scope, CustomInstruction::new(scope, "x")).await.unwrap();
    }
    let left = async || {
        let all = (*storage).all(&scene.scope, Query::<CustomInstruction>::all()).await.unwrap();
        all.into_iter().map(|left| left.scope).collect::<Vec<_>>()
    };
    let ticket: Stored<Ticket> =
        lime_core::Lookup::get(&*storage, &scene.scope, ticket.ticket().unwrap()).await.unwrap();
    Store::delete(&*storage, &scene.scope, &ticket).await.unwrap();
    assert_eq!(left().await, [InstructionScope::Tenant, project, repository]);
    let stored: Stored<Repository> =
        lime_core::Lookup::get(&*storage, &scene.scope, repository.repository().unwrap()).await.unwrap();
    Store::delete(&*storage, &scene.scope, &stored).await.unwrap();
    assert_eq!(left().await, [InstructionScope::Tenant, project]);
    Store::delete(&*storage, &scene.scope, &scene.project).await.unwrap();
    assert_eq!(left().await, [InstructionScope::Tenant]);
}
