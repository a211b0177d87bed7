//! Turns neutral steps into calls of the tools that the calling agent offers.

use serde_json::{Value, json};

use crate::request::ModelRequest;
use crate::step::{Api, Step};

/// One part of an answer, ready for either wire.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Block {
    Text(String),
    Thinking(String),
    Call(Call),
}

/// A tool call without its id.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) namespace: Option<String>,
    pub(crate) input: Input,
}

/// What a tool is given.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Input {
    Json(Value),
    Freeform(String),
}

/// A step that no offered tool can do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the script wants to {wish}, and no offered tool can do it (offered: {offered})")]
pub(crate) struct NoTool {
    wish: &'static str,
    offered: String,
}

/// Maps steps to blocks, leaving out those meant for the other API.
pub(crate) fn blocks(steps: &[Step], request: &ModelRequest) -> Result<Vec<Block>, NoTool> {
    steps.iter().filter_map(|step| block(step, request).transpose()).collect()
}

fn block(step: &Step, request: &ModelRequest) -> Result<Option<Block>, NoTool> {
    let call = match step {
        Step::Say(text) => return Ok(Some(Block::Text(text.clone()))),
        Step::Think(text) => return Ok(Some(Block::Thinking(text.clone()))),
        Step::CallTool { only: Some(api), .. } if *api != request.api => return Ok(None),
        Step::CallTool { name, input, .. } => named(request, name, request.fill_value(input)),
        Step::ReadFile(path) => {
            let path = request.absolute(path);
            json_tool(request, "Read", json!({ "file_path": path }))
                .or_else(|| shell(request, &format!("cat {}", quoted(&path))))
                .ok_or_else(|| no_tool("read a file", request))?
        }
        Step::WriteFile { path, contents } => {
            write(request, path, contents).ok_or_else(|| no_tool("write a file", request))?
        }
        Step::ReplaceLines { path, old, new } => {
            replace(request, path, old, new).ok_or_else(|| no_tool("edit a file", request))?
        }
        Step::RunCommand(command) => {
            shell(request, command).ok_or_else(|| no_tool("run a command", request))?
        }
    };
    Ok(Some(Block::Call(call)))
}

fn no_tool(wish: &'static str, request: &ModelRequest) -> NoTool {
    let names: Vec<_> = request.tools.iter().map(|tool| tool.name.as_str()).collect();
    NoTool { wish, offered: if names.is_empty() { "none".to_owned() } else { names.join(", ") } }
}

fn named(request: &ModelRequest, name: &str, input: Value) -> Call {
    let offered = request.tool(name);
    let input = match input {
        Value::String(text) if request.api == Api::Openai && offered.is_none_or(|tool| tool.freeform) => {
            Input::Freeform(text)
        }
        input => Input::Json(input),
    };
    Call { name: name.to_owned(), namespace: offered.and_then(|tool| tool.namespace.clone()), input }
}

fn json_tool(request: &ModelRequest, name: &str, input: Value) -> Option<Call> {
    request.tool(name).filter(|tool| !tool.freeform)?;
    Some(named(request, name, input))
}

fn write(request: &ModelRequest, path: &str, contents: &str) -> Option<Call> {
    if request.api == Api::Anthropic {
        let input = json!({ "file_path": request.absolute(path), "content": contents });
        if let Some(call) = json_tool(request, "Write", input) {
            return Some(call);
        }
    }
    let path = request.fill(path);
    // A patch knows whole lines only, and cannot say an empty file.
    let lines = contents.strip_suffix('\n').filter(|_| !contents.contains('\r'));
    if let Some(lines) = lines
        && request.api == Api::Openai
    {
        return patch(request, &format!("*** Add File: {path}\n{}", prefixed('+', lines)));
    }
    let dir = path.rsplit_once('/').map_or(".", |(dir, _)| if dir.is_empty() { "/" } else { dir });
    let script = format!("mkdir -p {} && printf '%s' {} > {}", quoted(dir), quoted(contents), quoted(&path));
    shell(request, &script)
}

fn replace(request: &ModelRequest, path: &str, old: &str, new: &str) -> Option<Call> {
    if request.api == Api::Anthropic {
        let input = json!({ "file_path": request.absolute(path), "old_string": old, "new_string": new });
        return json_tool(request, "Edit", input);
    }
    let path = request.fill(path);
    let change = format!("{}{}", prefixed('-', old), prefixed('+', new));
    patch(request, &format!("*** Update File: {path}\n@@\n{change}"))
}

fn prefixed(sign: char, lines: &str) -> String {
    lines.split('\n').map(|line| format!("{sign}{line}\n")).collect()
}

/// Applies a patch by Codex's tool, in whichever form it is offered.
fn patch(request: &ModelRequest, hunk: &str) -> Option<Call> {
    let patch = format!("*** Begin Patch\n{hunk}*** End Patch\n");
    if let Some(tool) = request.tool("apply_patch") {
        let input = if tool.freeform { Value::String(patch) } else { json!({ "input": patch }) };
        return Some(named(request, "apply_patch", input));
    }
    if code_mode(request) {
        let source = format!("text(await tools.apply_patch({}));\n", Value::String(patch));
        return Some(named(request, "exec", Value::String(source)));
    }
    let mut delimiter = "PATCH".to_owned();
    while patch.lines().any(|line| line == delimiter) {
        delimiter.push('_');
    }
    shell(request, &format!("apply_patch <<'{delimiter}'\n{patch}{delimiter}\n"))
}

/// Codex's "code mode" offers one free-form tool, `exec`, that runs JavaScript.
fn code_mode(request: &ModelRequest) -> bool {
    request.tool("exec").is_some_and(|tool| tool.freeform)
}

/// Runs a command by the first shell tool that is offered.
fn shell(request: &ModelRequest, command: &str) -> Option<Call> {
    if code_mode(request) {
        let source = format!("text(await tools.exec_command({}));\n", json!({ "cmd": command }));
        return Some(named(request, "exec", Value::String(source)));
    }
    json_tool(request, "Bash", json!({ "command": command, "description": "Scripted command" }))
        .or_else(|| json_tool(request, "exec_command", json!({ "cmd": command })))
        .or_else(|| json_tool(request, "shell_command", json!({ "command": command })))
        .or_else(|| json_tool(request, "shell", json!({ "command": ["bash", "-lc", command] })))
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::OfferedTool;

    fn request(api: Api, tools: &[(&str, bool)]) -> ModelRequest {
        let offered = |&(name, freeform): &(&str, bool)| OfferedTool {
            name: name.to_owned(),
            namespace: None,
            freeform,
        };
        ModelRequest {
            api,
            model: "m".to_owned(),
            streaming: false,
            side: false,
            next_turn: 0,
            working_dir: Some("/w".to_owned()),
            tools: tools.iter().map(offered).collect(),
            unread: Vec::new(),
        }
    }

    fn call(step: Step, request: &ModelRequest) -> (String, Input) {
        match blocks(&[step], request).unwrap().remove(0) {
            Block::Call(call) => (call.name, call.input),
            other => panic!("not a call: {other:?}"),
        }
    }

    fn write(contents: &str) -> Step {
        Step::WriteFile { path: "a/b.txt".to_owned(), contents: contents.to_owned() }
    }

    #[test]
    fn a_file_is_written_by_the_best_tool_on_offer() {
        let patch = "*** Begin Patch\n*** Add File: a/b.txt\n+1\n+\n*** End Patch\n";
        for (api, tools, name, input) in [
            (
                Api::Anthropic,
                &[("Bash", false), ("Write", false)][..],
                "Write",
                Input::Json(json!({ "file_path": "/w/a/b.txt", "content": "1\n\n" })),
            ),
            (
                Api::Openai,
                &[("exec_command", false), ("apply_patch", true)],
                "apply_patch",
                Input::Freeform(patch.to_owned()),
            ),
            (Api::Openai, &[("apply_patch", false)], "apply_patch", Input::Json(json!({ "input": patch }))),
            (
                Api::Openai,
                &[("exec", true)],
                "exec",
                Input::Freeform(format!("text(await tools.apply_patch({}));\n", json!(patch))),
            ),
            (
                Api::Openai,
                &[("shell", false)],
                "shell",
                Input::Json(
                    json!({ "command": ["bash", "-lc", format!("apply_patch <<'PATCH'\n{patch}PATCH\n")] }),
                ),
            ),
        ] {
            assert_eq!(call(write("1\n\n"), &request(api, tools)), (name.to_owned(), input));
        }
    }

    #[test]
    fn what_a_patch_cannot_say_goes_through_the_shell() {
        let request = request(Api::Openai, &[("apply_patch", true), ("shell_command", false)]);
        for (contents, quoted) in [("", "''"), ("it's", r"'it'\''s'"), ("a\r\n", "'a\r\n'")] {
            let command = format!("mkdir -p 'a' && printf '%s' {quoted} > 'a/b.txt'");
            let input = Input::Json(json!({ "command": command }));
            assert_eq!(call(write(contents), &request), ("shell_command".to_owned(), input));
        }
    }

    #[test]
    fn without_a_tool_the_step_is_refused_by_name() {
        let refused =
            blocks(&[Step::RunCommand("ls".to_owned())], &request(Api::Anthropic, &[("Glob", false)]));
        let message = refused.unwrap_err().to_string();
        assert_eq!(
            message,
            "the script wants to run a command, and no offered tool can do it (offered: Glob)"
        );
    }
}
