//! What the constraints and the mode of a run do to a recording.

#![allow(clippy::unwrap_used, reason = "a test panics where the behaviour does not hold")]

mod stage;

use lime_conformance::agent::spec;
use lime_core::governance::{Allowlist, ToolLayer};
use lime_core::runs::{AgentMode, Constraints, Limit, Outcome, ToolStatus};
use lime_provider_replay::ReplayProvider;

use self::stage::{folder, play_spec, recording, refusal, tools};

const TWO_TURNS: &str = "
    [[step]]
    write = 'one.txt'
    content = ''
    [[step]]
    usage = { cost_micros = 15_000 }
    [[step]]
    write = 'two.txt'
    content = ''
    [[step]]
    usage = { cost_micros = 15_000 }
";

#[tokio::test]
async fn limits_stop_it_between_turns() {
    let turns = |most| Constraints { max_turns: Some(most), ..Default::default() };
    let cents = |most| Constraints { max_cost_cents: Some(most), ..Default::default() };
    for (constraints, limit) in [
        (turns(1), Some(Limit::Turns)),
        (turns(2), None),
        (cents(1), Some(Limit::Cost)),
        (cents(2), None),
        (Constraints { max_cost_cents: Some(1), ..turns(1) }, Some(Limit::Turns)),
    ] {
        let folder = folder(&[]);
        let mut spec = spec(folder.path(), "Do it.");
        spec.request.constraints = Some(constraints.clone());
        let (_, report) = play_spec(TWO_TURNS, spec).await;
        let expected = limit.map_or(Outcome::Succeeded { summary: None }, Outcome::Limited);
        assert_eq!(report.outcome, expected, "{constraints:?}");
        assert_eq!(report.usage.turns, if limit.is_some() { 1 } else { 2 });
        assert_eq!(folder.path().join("two.txt").exists(), limit.is_none());
    }
}

#[tokio::test]
async fn a_tool_that_is_not_allowed_is_denied_and_does_nothing() {
    let folder = folder(&[]);
    let mut spec = spec(folder.path(), "Do it.");
    spec.tools = Allowlist::parse(ToolLayer::Run, &["Read", "Bash(make *)"]).unwrap();
    let steps = "[[step]]\nwrite = 'a'\ncontent = ''\n[[step]]\nrun = 'make'\noutput = 'ok'\n\
                 [[step]]\nrun = 'make && rm x'\noutput = 'ok'";
    let (events, report) = play_spec(steps, spec).await;
    let expected = [
        ("Write", ToolStatus::Started, ""),
        (
            "Write",
            ToolStatus::Denied,
            "this call of Write is denied by the run list of tools: it is not on the list, which has Bash(make *), Read",
        ),
        ("Bash", ToolStatus::Started, ""),
        ("Bash", ToolStatus::Completed, "ok"),
        ("Bash", ToolStatus::Started, ""),
        (
            "Bash",
            ToolStatus::Denied,
            "this call of Bash is denied by the run list of tools: `rm x` is not on the list, which has Bash(make *)",
        ),
    ];
    assert_eq!(tools(&events), expected);
    assert_eq!(report.denials.len(), 2);
    assert_eq!(report.denials[0].tool, "Write");
    assert!(!folder.path().join("a").exists());
    assert_eq!(report.outcome, Outcome::Succeeded { summary: None });
}

#[tokio::test]
async fn what_a_recording_cannot_keep_is_refused() {
    let folder = folder(&[]);
    let provider = ReplayProvider::new(recording("[[step]]\nsay = 'x'\n[[step]]\nwrite = 'a'\ncontent = ''"));
    for mode in [AgentMode::Plan, AgentMode::Review] {
        let mut spec = spec(folder.path(), "Do it.");
        spec.request.mode = mode;
        let said = refusal(&provider, spec).await;
        assert!(said.contains("line 5") && said.contains("without edits"), "{said}");
    }
}
