//! What agents are told of what is stored, and of what their repository says.

#![allow(clippy::unwrap_used, reason = "a test panics where things are not as it says")]

mod support;

use lime_core::agents::{
    CustomInstruction, DefaultInstruction, InstructionLayer, InstructionScope, LayerChange, LayerScope,
    LayerSource, ResolvedInstructions,
};
use lime_core::ports::{CommittedFile, CommittedFiles, LeftOut, WhyLeftOut};
use lime_core::repos::RepositoryConfig;
use lime_core::runs::{AgentMode, AgentRun, FailureKind, RunStatus};
use lime_core::{ErrorKind, Store};

use support::{Ground, Play, STUB, Scene, Stub, told};

fn file(path: &str, content: &str) -> CommittedFile {
    CommittedFile { path: path.into(), content: content.into() }
}

fn files<const N: usize>(files: [CommittedFile; N]) -> CommittedFiles {
    CommittedFiles { files: files.into(), left_out: vec![] }
}

async fn write(scene: &Scene, scope: InstructionScope, content: &str) -> CustomInstruction {
    let instruction = CustomInstruction::new(scope, content);
    scene.storage.insert(&scene.scope, instruction).await.unwrap().value
}

async fn work(scene: &Scene) -> (lime_core::Stored<AgentRun>, String) {
    let (run, log) = scene.work(scene.submit_one().await).await;
    (run, told(&log))
}

#[tokio::test]
async fn an_agent_is_told_what_is_stored_for_it() {
    let scene = Scene::new([Play::work()]).await;
    let default =
        |provider, text: &str| DefaultInstruction { provider, enabled: true, content_md: text.into() };
    let any = scene.storage.insert(&scene.scope, default(None, "any")).await.unwrap();
    scene.storage.insert(&scene.scope, default(Some(STUB), "own")).await.unwrap();
    write(&scene, InstructionScope::Repository(scene.repository.id), "repository").await;
    write(&scene, InstructionScope::Project(scene.project.id), "project").await;
    let tenant = write(&scene, InstructionScope::Tenant, "tenant").await;
    let plan = CustomInstruction { mode: Some(AgentMode::Plan), content_md: "plan".into(), ..tenant };
    scene.storage.insert(&scene.scope, plan).await.unwrap();
    scene.ground.commit_files(files([file("AGENTS.md", "files\n")]));

    let (run, _) = work(&scene).await;
    let expected = "files any own tenant project repository";
    assert_eq!(scene.agent.specs()[0].instructions.replace("\n\n", " "), expected);
    let kept = run.value.instructions.unwrap();
    assert_eq!(kept.text, scene.agent.specs()[0].instructions);
    assert_eq!(kept.layers[1].source, LayerSource::Default(any.id));
    let file = LayerSource::File {
        repository: scene.repository.id,
        path: "AGENTS.md".into(),
        commit: "b".repeat(40),
    };
    assert_eq!((kept.layers[0].scope, &kept.layers[0].source), (LayerScope::Checkout, &file));

    let rule = scene.all::<CustomInstruction>().await.remove(0);
    scene.storage.delete(&scene.scope, &rule).await.unwrap();
    let (next, _) = work(&scene).await;
    let next = next.value.instructions.unwrap();
    let diff = kept.diff(&next);
    assert!(
        matches!(&diff[..], [LayerChange::Removed { layer }] if layer.source == LayerSource::Custom(rule.id))
    );
}

#[tokio::test]
async fn a_preview_is_what_is_told_and_stores_nothing() {
    let scene = Scene::new([Play::work()]).await;
    write(&scene, InstructionScope::Tenant, "tenant").await;
    scene.ground.commit_files(files([file("AGENTS.md", "files")]));
    scene.watched.calls();
    let run = AgentRun { model: Some("m".into()), ..scene.a_run() };
    let before = scene.factory.preview(&scene.scope, &run).await.unwrap();
    assert_eq!(before.instructions.text, "tenant", "nobody has read the repository yet");
    assert_eq!((before.model.as_deref(), before.repository), (Some("m"), None));
    assert_eq!(before.prompt, run.input_prompt);
    let calls = scene.watched.calls();
    assert!(calls.iter().all(|call| !call.starts_with("insert") && !call.starts_with("update")), "{calls:?}");

    let (worked, _) = work(&scene).await;
    let after = scene.factory.preview(&scene.scope, &run).await.unwrap();
    assert_eq!(Some(&after.instructions), worked.instructions.as_ref());
    assert_eq!(after.instructions.text, "files\n\ntenant");
    assert_eq!(after.repository.unwrap().config_sha, Some("b".repeat(40)));

    let foreign = AgentRun { project_id: lime_core::Id::new(99), ..run };
    let error = scene.factory.preview(&scene.scope, &foreign).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn what_is_too_long_fails_the_run_by_its_name() {
    let scene = Scene::new([Play::work()]).await;
    let half = "x".repeat(ResolvedInstructions::MAX_LAYER_BYTES);
    for priority in 1..=5 {
        let instruction =
            CustomInstruction { priority, ..CustomInstruction::new(InstructionScope::Tenant, &*half) };
        scene.storage.insert(&scene.scope, instruction).await.unwrap();
    }
    let named = "`custom_instructions 2` of the scope tenant with the priority 2 with its 65536 bytes";
    let error = scene.factory.preview(&scene.scope, &scene.a_run()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains(named), "{error}");
    let (run, _) = work(&scene).await;
    let failure = run.failure.clone().unwrap();
    assert_eq!((run.status, failure.kind), (RunStatus::Failed, FailureKind::InvalidRequest));
    assert!(failure.message.contains(named), "{failure:?}");
    assert_eq!(scene.agent.starts(), 0);
}

#[tokio::test]
async fn a_repository_is_read_once_for_each_commit() {
    let scene = Scene::new([Play::work()]).await;
    let left_out = vec![LeftOut { path: "CLAUDE.md".into(), why: WhyLeftOut::NoFile }];
    scene.ground.commit_files(CommittedFiles { left_out, ..files([file("AGENTS.md", "one")]) });
    for _ in 0..2 {
        let (run, log) = work(&scene).await;
        assert_eq!(run.value.instructions.unwrap().text, "one");
        assert!(log.contains("this is not told: CLAUDE.md (no plain file)"), "{log}");
    }
    assert_eq!(scene.ground.read(), 1);
    scene.ground.set_branch("main", &"c".repeat(40));
    scene.ground.commit_files(files([file("AGENTS.md", "two")]));
    let (run, log) = work(&scene).await;
    assert_eq!(run.value.instructions.unwrap().text, "two");
    assert!(!log.contains("not told"));
    assert_eq!(scene.ground.read(), 2);
    let rows = scene.all::<RepositoryConfig>().await;
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].version, rows[0].config_sha.clone()), (2, Some("c".repeat(40))));
    assert!(rows[0].last_synced_at.is_some());
}

#[tokio::test]
async fn a_repository_that_cannot_be_read_says_why() {
    let scene = Scene::new([Play::work()]).await;
    scene.ground.fail_read(lime_core::Error::new(ErrorKind::Corrupt, "git.files", "git's list is torn"));
    let (run, _) = work(&scene).await;
    let failure = run.failure.clone().unwrap();
    assert_eq!(failure.kind, FailureKind::Workspace);
    assert!(failure.message.contains("torn"));
    let row = scene.all::<RepositoryConfig>().await.remove(0);
    assert_eq!((row.config_sha.clone(), row.sync_error.as_deref()), (None, Some("git's list is torn")));
    // The next run reads it anew.
    let (run, _) = work(&scene).await;
    assert_eq!(run.status, RunStatus::Succeeded);
    assert_eq!(scene.all::<RepositoryConfig>().await[0].sync_error, None);
}

#[tokio::test]
async fn nothing_is_told_twice_and_nothing_if_nobody_wants_it() {
    let told = async |reads: Option<&'static str>, wanted: bool| {
        let ground = Ground::default();
        ground.commit_files(files([file("AGENTS.md", "one"), file("CLAUDE.md", "for another")]));
        let agent = Stub::new([Play::work()], ground.clone());
        let agent = reads.map_or(agent.clone(), |path| agent.reading(path));
        let scene = Scene::with([], ground.clone(), |builder| {
            let builder = builder.repos(ground.clone()).workspaces(ground.clone()).provider(agent.clone());
            builder.repository_instructions(wanted)
        })
        .await;
        let (run, _) = work(&scene).await;
        assert_eq!(ground.read(), usize::from(wanted));
        run.value.instructions.unwrap().text
    };
    assert_eq!(told(None, true).await, "one");
    assert_eq!(told(Some("AGENTS.md"), true).await, "");
    assert_eq!(told(None, false).await, "");
}

#[tokio::test]
async fn another_source_is_asked_instead_of_the_storage() {
    let ground = Ground::default();
    let layer = InstructionLayer::new(LayerScope::Tenant, "house rules", "Be kind.");
    let scene = Scene::with([Play::work()], ground.clone(), |builder| {
        builder.repos(ground.clone()).workspaces(ground).instructions(vec![layer])
    })
    .await;
    write(&scene, InstructionScope::Tenant, "tenant").await;
    let (run, _) = work(&scene).await;
    assert_eq!(run.value.instructions.unwrap().text, "Be kind.");
    assert_eq!(
        scene.factory.preview(&scene.scope, &scene.a_run()).await.unwrap().instructions.text,
        "Be kind."
    );
}
