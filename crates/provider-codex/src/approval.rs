//! What is answered when Codex asks for leave.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lime_provider_cli::path_within;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::tools::Sandbox;
use crate::wire::app::{Incoming, ItemChanged, METHOD_NOT_FOUND, Outgoing, RpcError};
use crate::wire::item::{Item, Kind};

/// Folders in the working folder that the sandbox protects, and a patch must not reach either.
const PROTECTED: [&str; 3] = [".git", ".codex", ".agents"];
/// The most patches that can wait for leave at once.
const MAX_WAITING: usize = 1_000;

/// The rule by which Codex's questions are answered: what stays within the sandbox is accepted, all else declined.
///
/// - Codex asks only before something leaves the sandbox, so nearly every answer is no; the model is told, and the
///   call is denied.
/// - A patch is accepted if the sandbox lets the working folder be written, and every file of it lies there, links
///   followed, outside of [`PROTECTED`] folders.
#[derive(Debug)]
pub(crate) struct ApprovalRule {
    sandbox: Sandbox,
    workdir: PathBuf,
    /// The files of patches that have begun, by the item's id: the question itself does not name them.
    patches: BTreeMap<String, Vec<PathBuf>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Question {
    item_id: String,
    /// Codex wants this folder for the rest of the session.
    grant_root: Option<String>,
}

impl ApprovalRule {
    pub(crate) fn new(sandbox: Sandbox, workdir: PathBuf) -> Self {
        Self { sandbox, workdir, patches: BTreeMap::new() }
    }

    /// Hears a message: the answer, if it is a question.
    pub(crate) fn hear(&mut self, message: &Incoming) -> Option<Outgoing> {
        match message {
            Incoming::Notification { method, params } => {
                match method.as_str() {
                    "item/started" => self.patch_began(params),
                    "item/completed" => {
                        if let Some(id) = params["item"]["id"].as_str() {
                            self.patches.remove(id);
                        }
                    }
                    _ => {}
                }
                None
            }
            Incoming::Request { id, method, params } => Some(self.answer(id.clone(), method, params)),
            Incoming::Response { .. } => None,
        }
    }

    fn answer(&self, id: Json, method: &str, params: &Json) -> Outgoing {
        let result = match method {
            "item/fileChange/requestApproval" => {
                let question = Question::deserialize(params).unwrap_or_default();
                let decision = if self.allows(&question) { "accept" } else { "decline" };
                json!({ "decision": decision })
            }
            "item/commandExecution/requestApproval" => json!({ "decision": "decline" }),
            "applyPatchApproval" | "execCommandApproval" => {
                json!({ "decision": { "denied": { "rejection": "not allowed outside of the sandbox" } } })
            }
            "item/permissions/requestApproval" => json!({ "permissions": {} }),
            "mcpServer/elicitation/request" => json!({ "action": "decline" }),
            // Nobody is there to ask, and the model goes on without an answer.
            "item/tool/requestUserInput" => json!({ "answers": {} }),
            _ => {
                return Outgoing::Refusal {
                    id,
                    error: RpcError {
                        code: METHOD_NOT_FOUND,
                        message: format!("this client does not answer {method}"),
                    },
                };
            }
        };
        Outgoing::Answer { id, result }
    }

    fn patch_began(&mut self, params: &Json) {
        let item = ItemChanged::deserialize(params).ok().and_then(|changed| Item::from_json(&changed.item));
        if let Some(Item { id, kind: Kind::FileChange { changes }, .. }) = item
            && self.patches.len() < MAX_WAITING
        {
            let files = changes
                .iter()
                .flat_map(|change| std::iter::once(change.path.as_str()).chain(change.moved_to()))
                .map(PathBuf::from)
                .collect();
            self.patches.insert(id, files);
        }
    }

    /// Why a patch of these files is refused; `None` if it is not.
    pub(crate) fn objection(&self, files: &[PathBuf]) -> Option<&'static str> {
        if self.sandbox == Sandbox::ReadOnly {
            return Some("This run may not change any file.");
        }
        let inside = !files.is_empty() && files.iter().all(|file| self.holds(file));
        (!inside).then_some("This run may only change the working folder's own files.")
    }

    fn allows(&self, question: &Question) -> bool {
        let files = self.patches.get(&question.item_id);
        question.grant_root.is_none() && files.is_some_and(|files| self.objection(files).is_none())
    }

    /// Whether a file lies in the working folder once links are followed, and is not protected.
    fn holds(&self, file: &Path) -> bool {
        let is_protected = |inside: &Path| {
            inside.components().any(|part| PROTECTED.iter().any(|name| part.as_os_str() == *name))
        };
        path_within(&self.workdir, file).is_some_and(|inside| !is_protected(&inside))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn began(files: &[&Path]) -> Incoming {
        let changes: Vec<Json> = files
            .iter()
            .map(|path| json!({ "path": path, "kind": { "type": "add" }, "diff": "x" }))
            .collect();
        Incoming::Notification {
            method: "item/started".into(),
            params: json!({ "item": { "type": "fileChange", "id": "p", "changes": changes, "status": "inProgress" } }),
        }
    }

    fn asks(method: &str) -> Incoming {
        Incoming::Request { id: json!(7), method: method.into(), params: json!({ "itemId": "p" }) }
    }

    fn decision(rule: &mut ApprovalRule, files: &[&Path]) -> String {
        assert_eq!(rule.hear(&began(files)), None);
        match rule.hear(&asks("item/fileChange/requestApproval")) {
            Some(Outgoing::Answer { result, .. }) => result["decision"].as_str().unwrap().to_owned(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn patches_within_the_working_folder_are_accepted() {
        let workdir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        symlink(outside.path(), workdir.path().join("away")).unwrap();
        symlink(outside.path().join("new"), workdir.path().join("dangling")).unwrap();
        fs::create_dir(workdir.path().join("src")).unwrap();
        let mut rule = ApprovalRule::new(Sandbox::WorkspaceWrite, workdir.path().to_owned());
        let at = |path: &str| workdir.path().join(path);
        assert_eq!(decision(&mut rule, &[&at("src/new/deep.rs"), &at("a.txt")]), "accept");
        for path in [
            at(".git/config"),
            at("src/.git/hooks/x"),
            at("away/x"),
            at("dangling"),
            at("../x"),
            outside.path().join("x"),
        ] {
            assert_eq!(decision(&mut rule, &[&at("a.txt"), &path]), "decline", "{}", path.display());
        }
        assert_eq!(decision(&mut rule, &[]), "decline");
        let mut rule = ApprovalRule::new(Sandbox::ReadOnly, workdir.path().to_owned());
        assert_eq!(decision(&mut rule, &[&at("a.txt")]), "decline");
    }

    #[test]
    fn every_question_gets_an_answer() {
        let mut rule = ApprovalRule::new(Sandbox::WorkspaceWrite, PathBuf::from("."));
        for method in [
            "item/commandExecution/requestApproval",
            "item/fileChange/requestApproval",
            "item/tool/requestUserInput",
            "mcpServer/elicitation/request",
            "item/permissions/requestApproval",
            "applyPatchApproval",
            "execCommandApproval",
        ] {
            assert!(matches!(rule.hear(&asks(method)), Some(Outgoing::Answer { .. })), "{method}");
        }
        for method in
            ["item/tool/call", "account/chatgptAuthTokens/refresh", "attestation/generate", "new/thing"]
        {
            assert!(matches!(rule.hear(&asks(method)), Some(Outgoing::Refusal { .. })), "{method}");
        }
    }
}
