use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::*;
use crate::tools::Sandbox;

struct Place {
    home: tempfile::TempDir,
    workdir: tempfile::TempDir,
    gate: Gate,
    rule: ApprovalRule,
}

fn place(ask: &[&str], sandbox: Sandbox) -> Place {
    let (home, workdir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ask = ask.iter().map(|pattern| ToolPattern::parse(*pattern).unwrap()).collect();
    let gate = Gate::set_up(home.path(), ask).unwrap();
    let rule = ApprovalRule::new(sandbox, workdir.path().to_owned());
    Place { home, workdir, gate, rule }
}

impl Place {
    /// Runs the hook as Codex does.
    fn call(&mut self, id: &str, tool: &str, command: &str) -> Child {
        let run = json!({ "eventName": "preToolUse", "source": "user", "status": "running" });
        let started = Incoming::Notification { method: "hook/started".into(), params: json!({ "run": run }) };
        self.gate.hear(&started).unwrap();
        let mut hook = Command::new("/bin/sh")
            .args(["-c", COMMAND])
            .env("CODEX_HOME", self.home.path())
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let input = json!({ "tool_name": tool, "tool_input": { "command": command }, "tool_use_id": id });
        hook.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
        hook
    }

    fn judged(&mut self) -> Vec<Judged> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut judged = Vec::new();
        while self.gate.is_awaited() {
            assert!(Instant::now() < deadline, "no question comes");
            judged.extend(self.gate.judge(&self.rule));
            std::thread::sleep(Duration::from_millis(5));
        }
        judged
    }
}

/// The hook's exit code, and its reason.
fn end(mut hook: Child) -> (Option<i32>, String) {
    let code = hook.wait().unwrap().code();
    let mut said = String::new();
    hook.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (code, said.trim().to_owned())
}

#[test]
fn calls_that_are_not_meant_pass() {
    let mut place = place(&["shell(git push *)"], Sandbox::WorkspaceWrite);
    let hook = place.call("c", "Bash", "git pull");
    assert_eq!(place.judged(), []);
    assert_eq!(end(hook), (Some(0), String::new()));
}

#[test]
fn a_call_waits_for_its_answer() {
    let mut place = place(&["shell(git push *)"], Sandbox::WorkspaceWrite);
    let one = place.call("one", "Bash", "git push origin main");
    let two = place.call("two", "Bash", "cd x; git pull");
    let three = place.call("three", "Bash", "cd x; git push");
    let mut asked: Vec<String> = place
        .judged()
        .into_iter()
        .map(|judged| match judged {
            Judged::Asked(call) => format!("{} {} {}", call.id, call.tool, call.input["command"]),
            Judged::Denied(call, reason) => panic!("{call:?} {reason}"),
        })
        .collect();
    asked.sort();
    assert_eq!(asked, ["one shell \"git push origin main\"", "three shell \"cd x; git push\""]);
    assert_eq!(end(two), (Some(0), String::new()), "a pull is not meant");
    assert_eq!(place.gate.answer("two", ToolAnswer::Allow), None);
    let denied = place.gate.answer("three", ToolAnswer::Deny("Not today.\nNever.".into())).unwrap();
    assert_eq!((denied.0.tool.as_str(), denied.1.as_str()), ("shell", "Not today.\nNever."));
    assert_eq!(end(three), (Some(2), "Not today.\nNever.".into()));
    assert_eq!(place.gate.answer("one", ToolAnswer::Allow), None);
    assert_eq!(end(one), (Some(0), String::new()));
    assert_eq!(place.gate.answer("one", ToolAnswer::Deny("Late.".into())), None);
}

#[test]
fn a_rule_for_the_same_tool_elsewhere_holds() {
    let mut place = place(&["Bash(git push *)", "Write(*.env)"], Sandbox::WorkspaceWrite);
    let patch = "*** Begin Patch\n*** Add File: .env\n+x\n*** End Patch\n";
    for (tool, command, named) in [("Bash", "git push origin", "Bash"), ("apply_patch", patch, "Write")] {
        let hook = place.call(tool, tool, command);
        let judged = place.judged();
        assert!(matches!(&judged[..], [Judged::Asked(call)] if call.tool == named), "{judged:?}");
        let (call, _) = place.gate.answer(tool, ToolAnswer::Deny("No.".into())).unwrap();
        assert!(["shell", "apply_patch"].contains(&call.tool.as_str()), "events have Codex's names");
        end(hook);
    }
}

#[test]
fn a_no_has_a_reason_always() {
    let mut place = place(&["*"], Sandbox::WorkspaceWrite);
    let hook = place.call("c", "view_image", "x");
    assert_eq!(place.judged().len(), 1);
    place.gate.answer("c", ToolAnswer::Deny(" \n".into())).unwrap();
    assert_eq!(end(hook), (Some(2), "It was denied.".into()));
}

#[test]
fn what_the_script_cannot_do_is_a_no() {
    let place = place(&["*"], Sandbox::WorkspaceWrite);
    fs::remove_dir(place.home.path().join("asks")).unwrap();
    let hook = Command::new("/bin/sh")
        .args(["-c", COMMAND])
        .env("CODEX_HOME", place.home.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(hook.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&hook.stderr).contains("Nobody could be asked"));
}

#[test]
fn a_patch_is_known_by_its_files_wherever_it_stands() {
    let patch =
        "*** Begin Patch\n*** Add File: a.rs\n+x\n*** Update File: b.rs\n*** Move to: c.env\n*** End Patch\n";
    let mut place = place(&["apply_patch(*.env)"], Sandbox::WorkspaceWrite);
    for (tool, command) in
        [("apply_patch", patch.to_owned()), ("Bash", format!("apply_patch <<'X'\n{patch}X\n"))]
    {
        let hook = place.call(tool, tool, &command);
        let judged = place.judged();
        let [Judged::Asked(call)] = &judged[..] else { panic!("{judged:?}") };
        assert_eq!(call.tool, "apply_patch");
        let paths: Vec<_> = call.input["changes"].as_array().unwrap().iter().map(|c| &c["path"]).collect();
        assert_eq!(paths, ["a.rs", "b.rs", "c.env"]);
        assert_eq!(call.input["patch"], command);
        place.gate.answer(tool, ToolAnswer::Allow);
        assert_eq!(end(hook).0, Some(0));
    }
}

#[test]
fn nobody_is_asked_about_a_patch_that_is_refused_anyway() {
    let patch = |path: &str| format!("*** Begin Patch\n*** Add File: {path}\n+x\n*** End Patch\n");
    for (sandbox, path) in [(Sandbox::WorkspaceWrite, "/etc/x"), (Sandbox::ReadOnly, "a.rs")] {
        let mut place = place(&["apply_patch"], sandbox);
        let hook = place.call("c", "apply_patch", &patch(path));
        assert!(matches!(&place.judged()[..], [Judged::Denied(..)]), "{path}");
        assert_eq!(end(hook).0, Some(2));
    }
    let mut place = place(&["apply_patch"], Sandbox::WorkspaceWrite);
    let inside = place.workdir.path().join("a.rs");
    let hook = place.call("c", "apply_patch", &patch(inside.to_str().unwrap()));
    assert!(matches!(&place.judged()[..], [Judged::Asked(_)]));
    place.gate.answer("c", ToolAnswer::Allow);
    assert_eq!(end(hook).0, Some(0));
}

#[test]
fn a_call_that_gets_round_the_gate_is_noticed() {
    let mut place = place(&["shell"], Sandbox::WorkspaceWrite);
    let item = |id: &str| Incoming::Notification {
        method: "item/started".into(),
        params: json!({ "item": { "type": "commandExecution", "id": id, "command": "x" } }),
    };
    let hook = place.call("known", "Bash", "ls");
    place.judged();
    assert_eq!(place.gate.hear(&item("known")), Ok(()));
    assert_eq!(place.gate.hear(&item("unknown")), Err(Breach));
    place.gate.answer("known", ToolAnswer::Allow);
    end(hook);
    let run = json!({
        "eventName": "preToolUse", "source": "user", "status": "failed",
    });
    let failed = Incoming::Notification { method: "hook/completed".into(), params: json!({ "run": run }) };
    assert_eq!(place.gate.hear(&failed), Err(Breach));
}
