//! What an agent is told: the order, held against a plain model of it; limits; differences; what is kept.
#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

use lime_core::agents::{
    CustomInstruction, InstructionLayer, InstructionScope, InstructionsTooLong, LayerChange, LayerRecord,
    LayerScope, LayerSource, ResolvedInstructions,
};
use lime_core::ports::{CommittedFile, CommittedFiles};
use lime_core::repos::RepositoryConfig;
use lime_core::runs::{AgentMode, ProviderId};
use lime_core::{Id, Stored};
use proptest::prelude::*;
use serde_json::json;

const CLAUDE: ProviderId = ProviderId::from_static("claude");
const CODEX: ProviderId = ProviderId::from_static("codex");

fn layer(scope: LayerScope, priority: i32, content: &str) -> InstructionLayer {
    InstructionLayer { priority, ..InstructionLayer::new(scope, content, content) }
}

fn resolve(layers: &[InstructionLayer]) -> ResolvedInstructions {
    ResolvedInstructions::resolve(layers, &CLAUDE, AgentMode::Implement).unwrap()
}

#[test]
fn the_order_of_the_lead_document() {
    let for_provider = |provider, content| InstructionLayer {
        provider: Some(provider),
        ..layer(LayerScope::Default, 100, content)
    };
    let for_mode =
        |mode, content| InstructionLayer { mode: Some(mode), ..layer(LayerScope::Tenant, 50, content) };
    let layers = [
        layer(LayerScope::Ticket, 100, "ticket"),
        layer(LayerScope::Repository, 100, "repository"),
        layer(LayerScope::Project, 1, "strong"),
        layer(LayerScope::Project, 200, "weak"),
        for_mode(AgentMode::Implement, "implement"),
        for_mode(AgentMode::Review, "review"),
        layer(LayerScope::Tenant, 50, "tenant"),
        for_provider(CLAUDE, "own"),
        for_provider(CODEX, "other"),
        layer(LayerScope::Default, 100, "any"),
        layer(LayerScope::Checkout, 1, "files"),
        InstructionLayer { enabled: false, ..layer(LayerScope::Ticket, 1, "disabled") },
        layer(LayerScope::Ticket, 1, " \n"),
    ];
    let resolved = resolve(&layers);
    let expected = "files any own tenant implement weak strong repository ticket";
    assert_eq!(resolved.text.replace("\n\n", " "), expected);
    // As `printf any | sha256sum` says.
    let any = "d6a7cd2a7371b1a15d543196979ff74fdb027023ebf187d5d329be11055c77fd";
    assert_eq!(resolved.layers[1].sha256, any);
    let told = resolved.told().unwrap();
    let again: Vec<_> = told.iter().map(|(layer, text)| (layer.source.to_string(), *text)).collect();
    assert!(again.iter().all(|(source, text)| source == text), "{again:?}");
    assert_eq!(again.len(), 9);
}

/// The order, said plainly: one scope after the other, and in each the weakest first.
fn model(layers: &[InstructionLayer], provider: &ProviderId, mode: AgentMode) -> Vec<String> {
    let mut told = Vec::new();
    for scope in LayerScope::ALL {
        for for_any in [true, false] {
            let mut of_scope: Vec<_> = layers
                .iter()
                .filter(|layer| layer.scope == *scope && layer.provider.is_none() == for_any)
                .filter(|layer| for_any || layer.provider.as_ref() == Some(provider))
                .filter(|layer| layer.mode.is_none() || layer.mode == Some(mode))
                .filter(|layer| layer.enabled && !layer.content_md.trim().is_empty())
                .collect();
            while !of_scope.is_empty() {
                let weakest = of_scope.iter().map(|layer| layer.priority).max().unwrap();
                let next = of_scope
                    .iter()
                    .position(|layer| layer.priority == weakest && layer.mode.is_none())
                    .or_else(|| of_scope.iter().position(|layer| layer.priority == weakest));
                told.push(of_scope.remove(next.unwrap()).content_md.trim().to_owned());
            }
        }
    }
    told
}

fn any_layer() -> impl Strategy<Value = InstructionLayer> {
    let scope = prop::sample::select(LayerScope::ALL);
    let provider = prop::sample::select(vec![None, Some(CLAUDE), Some(CODEX)]);
    let mode = prop::option::of(prop::sample::select(AgentMode::ALL));
    let text = prop::sample::select(vec!["a", " b\n", "", " ", "é é", "\n\nc\n\nd"]);
    (scope, provider, mode, -2..3, any::<bool>(), text, 0..1_000_u32).prop_map(
        |(scope, provider, mode, priority, enabled, text, id)| InstructionLayer {
            provider,
            mode,
            priority,
            enabled,
            ..InstructionLayer::new(scope, format!("custom_instructions {}", id + 1), text)
        },
    )
}

proptest! {
    #[test]
    fn layers_are_told_as_the_model_says(layers in prop::collection::vec(any_layer(), 0..30)) {
        for provider in [&CLAUDE, &CODEX] {
            for mode in AgentMode::ALL {
                let resolved = ResolvedInstructions::resolve(&layers, provider, *mode).unwrap();
                let told: Vec<_> = resolved.told().unwrap().iter().map(|(_, text)| (*text).to_owned()).collect();
                prop_assert_eq!(&told, &model(&layers, provider, *mode));
                prop_assert_eq!(&resolved.text, &told.join("\n\n"));
            }
        }
    }

    #[test]
    fn what_a_diff_says_makes_one_the_other(
        before in prop::collection::vec(any_layer(), 0..12),
        after in prop::collection::vec(any_layer(), 0..12),
        kept in prop::collection::vec(any_layer(), 0..12),
    ) {
        let (before, after) = (
            resolve(&before.into_iter().chain(kept.clone()).collect::<Vec<_>>()),
            resolve(&after.into_iter().chain(kept).collect::<Vec<_>>()),
        );
        prop_assert_eq!(before.diff(&before), vec![]);
        let diff = before.diff(&after);
        let count = |wanted: fn(&LayerChange) -> bool| diff.iter().filter(|change| wanted(change)).count();
        let added = count(|change| matches!(change, LayerChange::Added { .. }));
        let removed = count(|change| matches!(change, LayerChange::Removed { .. }));
        prop_assert_eq!(before.layers.len() + added, after.layers.len() + removed);
        if diff.is_empty() {
            prop_assert_eq!(&before.layers, &after.layers);
            prop_assert_eq!(&before.sha256, &after.sha256);
        }
        // The other way round it is as much, with what was added removed.
        let back = after.diff(&before);
        let backwards = |wanted: fn(&LayerChange) -> bool| back.iter().filter(|change| wanted(change)).count();
        prop_assert_eq!(backwards(|change| matches!(change, LayerChange::Removed { .. })), added);
        prop_assert_eq!(backwards(|change| matches!(change, LayerChange::Added { .. })), removed);
    }
}

#[test]
fn what_is_too_long_is_named() {
    let most = ResolvedInstructions::MAX_LAYER_BYTES;
    let of = |n: i64, priority, bytes: usize| {
        let source = LayerSource::Custom(Id::new(n));
        InstructionLayer { priority, ..InstructionLayer::new(LayerScope::Project, source, "x".repeat(bytes)) }
    };
    let refused = |layers: &[InstructionLayer]| {
        ResolvedInstructions::resolve(layers, &CLAUDE, AgentMode::Plan).unwrap_err()
    };
    let one = refused(&[of(7, 5, most + 1)]);
    assert!(matches!(&one, InstructionsTooLong::Layer { bytes, .. } if *bytes == most + 1));
    assert_eq!(
        one.to_string(),
        "the layer `custom_instructions 7` of the scope project with the priority 5 has 65537 bytes; a layer may have \
         65536: shorten it"
    );
    // Four of them with three blank lines between them are six bytes too many.
    let four = [of(1, 4, most), of(2, 1, most), of(3, 3, most), of(4, 2, most)];
    assert_eq!(
        refused(&four).to_string(),
        "the layer `custom_instructions 2` of the scope project with the priority 1 with its 65536 bytes brings the \
         instructions to 262150 bytes; all together may have 262144: shorten or disable some"
    );
    let fits = [of(1, 4, most), of(2, 1, most - 6), of(3, 3, most), of(4, 2, most)];
    let resolved = ResolvedInstructions::resolve(&fits, &CLAUDE, AgentMode::Plan).unwrap();
    assert_eq!(resolved.text.len(), ResolvedInstructions::MAX_BYTES);
}

fn told(layers: &[(i64, &str)]) -> ResolvedInstructions {
    let layer = |&(id, content): &(i64, &str)| {
        let source = LayerSource::Custom(Id::new(id));
        InstructionLayer::new(LayerScope::Tenant, source, content)
    };
    resolve(&layers.iter().map(layer).collect::<Vec<_>>())
}

fn changes(before: &[(i64, &str)], after: &[(i64, &str)]) -> Vec<String> {
    let name = |layer: &LayerRecord| layer.source.to_string().replace("custom_instructions ", "");
    let said = |change: &LayerChange| match change {
        LayerChange::Added { layer } => format!("+{}", name(layer)),
        LayerChange::Removed { layer } => format!("-{}", name(layer)),
        LayerChange::Changed { before, after } => format!("{}!{}", name(before), name(after)),
        LayerChange::Moved { layer } => format!("~{}", name(layer)),
    };
    told(before).diff(&told(after)).iter().map(said).collect()
}

#[test]
fn a_diff_names_what_is_different() {
    let plain = [(1, "a"), (2, "b"), (3, "c"), (4, "d")];
    assert_eq!(changes(&plain, &plain), [""; 0]);
    assert_eq!(changes(&plain, &[(1, "a"), (3, "c"), (5, "e")]), ["-2", "-4", "+5"]);
    assert_eq!(changes(&plain, &[(1, "a"), (2, "B"), (3, "c"), (4, "d")]), ["2!2"]);
    // One of four has moved, not three.
    assert_eq!(changes(&plain, &[(4, "d"), (1, "a"), (2, "b"), (3, "c")]), ["~4"]);
    assert_eq!(changes(&plain, &[(2, "b"), (3, "c"), (4, "d"), (1, "a")]), ["~1"]);
    assert_eq!(changes(&plain, &[(5, "e"), (4, "d"), (2, "x"), (3, "c")]), ["-1", "+5", "~4", "2!2"]);
    assert_eq!(changes(&[], &[(1, "a")]), ["+1"]);
}

#[test]
fn a_file_is_the_same_at_every_commit() {
    let at = |commit: &str, content: &str| {
        let source = format!("repositories 7 docs/a@b.md@{commit}");
        resolve(&[InstructionLayer::new(LayerScope::Checkout, source, content)])
    };
    assert!(at("aa", "x").diff(&at("bb", "x")).is_empty());
    assert!(matches!(&at("aa", "x").diff(&at("bb", "y"))[..], [LayerChange::Changed { .. }]));
    let source = &at("aa", "x").layers[0].source;
    let file = LayerSource::File { repository: Id::new(7), path: "docs/a@b.md".into(), commit: "aa".into() };
    assert_eq!(*source, file);
}

#[test]
fn what_runs_of_before_have_kept_is_read() {
    let old = json!({
        "layers": [
            { "scope": "default", "source": "house rules", "priority": 100, "sha256": "aa" },
            { "scope": "tenant", "source": "custom_instructions 12", "priority": 1, "sha256": "bb" },
        ],
        "sha256": "cc",
        "text": "Be brief.\n\nBe kind.",
    });
    let read: ResolvedInstructions = serde_json::from_value(old.clone()).unwrap();
    assert_eq!(read.layers[0].source, LayerSource::Named("house rules".into()));
    assert_eq!(read.layers[1].source, LayerSource::Custom(Id::new(12)));
    assert_eq!(read.told(), None, "it was not kept how long each was");
    assert_eq!(serde_json::to_value(&read).unwrap(), old);
    let new = serde_json::to_value(told(&[(3, "x")])).unwrap();
    assert_eq!(new["layers"][0]["source"], "custom_instructions 3");
    assert_eq!(new["layers"][0]["bytes"], 1);
}

#[test]
fn texts_that_are_no_rows_are_names() {
    for name in
        ["", "custom_instructions", "custom_instructions 0", "custom_instructions x", "tickets -1", "a b"]
    {
        assert_eq!(LayerSource::from(name), LayerSource::Named(name.into()));
    }
}

#[test]
fn a_scope_means_its_own_runs() {
    let target = lime_core::ports::RunTarget {
        project_id: Id::new(1),
        repository_id: None,
        ticket_id: Some(Id::new(3)),
    };
    for (scope, applies) in [
        (InstructionScope::Tenant, true),
        (InstructionScope::Project(Id::new(1)), true),
        (InstructionScope::Project(Id::new(2)), false),
        (InstructionScope::Repository(Id::new(1)), false),
        (InstructionScope::Ticket(Id::new(3)), true),
        (InstructionScope::Ticket(Id::new(1)), false),
    ] {
        assert_eq!(scope.applies(target), applies, "{scope}");
    }
    let stored = Stored {
        id: Id::new(9),
        version: 1,
        created_at: chrono::DateTime::UNIX_EPOCH,
        updated_at: chrono::DateTime::UNIX_EPOCH,
        value: CustomInstruction::new(InstructionScope::Project(Id::new(1)), "x"),
    };
    let layer = InstructionLayer::from(stored);
    assert_eq!((layer.scope, layer.source), (LayerScope::Project, LayerSource::Custom(Id::new(9))));
}

#[test]
fn files_of_a_repository_are_told_once() {
    let file = |path: &str, content: &str| CommittedFile { path: path.into(), content: content.into() };
    let files = vec![
        file("AGENTS.md", "Use tabs.\n"),
        file("CLAUDE.md", "Use tabs."),
        file(".claude/CLAUDE.md", "Think."),
        file(".claude/rules/a.md", "Think."),
    ];
    let files = CommittedFiles { files, left_out: vec![] };
    let config = RepositoryConfig::new(Id::new(7));
    assert!(config.layers(|_| false).is_empty(), "nobody has read it yet");
    let config = config.synced(&"c".repeat(40), files, chrono::DateTime::UNIX_EPOCH);
    let told = |provider, reads: fn(&str) -> bool| {
        let layers = config.layers(reads);
        ResolvedInstructions::resolve(&layers, &provider, AgentMode::Plan).unwrap().text
    };
    assert_eq!(told(CLAUDE, |_| false), "Use tabs.\n\nThink.");
    assert_eq!(told(CODEX, |_| false), "Use tabs.");
    assert_eq!(told(CODEX, |path| path == "AGENTS.md"), "");
    // An agent that reads CLAUDE.md has read what AGENTS.md says.
    assert_eq!(told(CLAUDE, |path| path == "CLAUDE.md"), "Think.");
    let source = config.layers(|_| false).remove(0).source;
    assert_eq!(source.to_string(), format!("repositories 7 AGENTS.md@{}", "c".repeat(40)));
}
