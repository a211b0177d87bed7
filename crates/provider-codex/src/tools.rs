//! Which of Codex's tools a run may use, and how freely.

use lime_core::governance::{Allowlist, ToolPattern};
use lime_core::runs::AgentMode;
use lime_core::{Error, Result};

use crate::translate::{PATCH, SHELL};

const SEARCH: &str = "web_search";
const IMAGE: &str = "view_image";
/// The names by which rules mean a tool, as [`Gate`](crate::gate::Gate) knows them.
const SHELL_NAMES: &[&str] = &[SHELL, "Bash", "exec_command"];
const PATCH_NAMES: &[&str] = &[PATCH, "Edit", "Write"];
const IMAGE_NAMES: &[&str] = &[IMAGE];

/// How far Codex's sandbox lets commands and patches go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sandbox {
    /// Reads everything, writes nothing.
    ReadOnly,
    /// Writes the working folder without its `.git`, and the folders for temporary files.
    WorkspaceWrite,
}

impl Sandbox {
    /// The word on the wire.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::WorkspaceWrite => "workspace-write",
        }
    }
}

/// The tools that a run has; see [`CodexProvider`](crate::CodexProvider) for the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tools {
    pub(crate) shell: bool,
    pub(crate) edit: bool,
    pub(crate) search: bool,
    pub(crate) image: bool,
}

impl Tools {
    /// What of them is on a run's list.
    ///
    /// - Codex cannot hold a part of a tool by itself: then each of its calls must be asked about, and the web search,
    ///   which cannot be, is left out.
    /// - Fails with `Invalid` where that is not so, or the list lets it read and not use its shell, by which it reads.
    pub(crate) fn granted(list: &Allowlist, ask: &[ToolPattern]) -> Result<Self> {
        let shell = list.may_use(SHELL);
        for (tool, names) in [(SHELL, SHELL_NAMES), (PATCH, PATCH_NAMES), (IMAGE, IMAGE_NAMES)] {
            let asked = || ask.iter().any(|pattern| names.iter().any(|name| pattern.may_mean(name)));
            if list.is_partial(tool) && !asked() {
                return Err(Error::invalid(
                    "codex.start",
                    format!(
                        "tools: Codex cannot limit `{tool}` to some of its calls by itself; let it ask about them, name \
                         the whole tool, or leave it out"
                    ),
                ));
            }
        }
        let reads = || ["Read", "Glob", "Grep", "LS"].iter().any(|tool| list.may_use(tool));
        if list.grants().is_some() && !shell && reads() {
            return Err(Error::invalid(
                "codex.start",
                "tools: Codex reads files through its shell, so a list with Read, Glob, Grep or LS needs Bash too; \
                 without Edit or Write the shell can change nothing",
            ));
        }
        Ok(Self {
            shell,
            edit: list.may_use(PATCH),
            search: list.may_use(SEARCH) && !list.is_partial(SEARCH),
            image: list.may_use(IMAGE),
        })
    }

    /// The same without the web search, if a person is to be asked about it: it runs where the model does.
    pub(crate) fn without_unaskable(self, ask: &[ToolPattern]) -> Self {
        let search = ["web_search", "WebSearch"];
        let asked = ask.iter().any(|pattern| search.iter().any(|name| pattern.may_mean(name)));
        Self { search: self.search && !asked, ..self }
    }

    /// The sandbox for this kind of work.
    pub(crate) fn sandbox(self, mode: AgentMode) -> Sandbox {
        match mode {
            AgentMode::Plan | AgentMode::Review => Sandbox::ReadOnly,
            AgentMode::Implement | AgentMode::Bugfix if self.edit => Sandbox::WorkspaceWrite,
            AgentMode::Implement | AgentMode::Bugfix => Sandbox::ReadOnly,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lime_core::ErrorKind;
    use lime_core::governance::ToolLayer;

    const ALL: Tools = Tools { shell: true, edit: true, search: true, image: true };
    const NONE: Tools = Tools { shell: false, edit: false, search: false, image: false };

    fn tools(names: &[&str]) -> Result<Tools> {
        Tools::granted(&Allowlist::parse(ToolLayer::Run, names).unwrap(), &[])
    }

    #[test]
    fn a_list_narrows_and_never_widens() {
        assert_eq!(Tools::granted(&Allowlist::all(), &[]).unwrap(), ALL);
        assert_eq!(tools(&["*"]).unwrap(), ALL);
        assert_eq!(tools(&[]).unwrap(), NONE);
        assert_eq!(tools(&["WebFetch", "mcp__x__y"]).unwrap(), NONE);
        let usual = tools(&["Read", "Edit", "Bash", "Glob", "Grep"]).unwrap();
        assert_eq!(usual, Tools { search: false, ..ALL });
        let never = [ToolPattern::parse("WebSearch").unwrap(), ToolPattern::parse("Edit").unwrap()];
        let denied = Allowlist::new(ToolLayer::Default, None::<Vec<_>>, never);
        assert_eq!(Tools::granted(&denied, &[]).unwrap(), Tools { search: false, edit: false, ..ALL });
    }

    #[test]
    fn what_codex_cannot_hold_is_refused() {
        for names in [&["Bash(git *)"][..], &["Read"], &["Read", "Edit"], &["Bash", "Write(src/*)"]] {
            assert_eq!(tools(names).unwrap_err().kind(), ErrorKind::Invalid, "{names:?}");
        }
    }

    #[test]
    fn a_part_of_a_tool_is_there_if_it_asks() {
        let list = Allowlist::parse(ToolLayer::Run, &["Bash(git *)", "WebSearch(x *)"]).unwrap();
        let ask: Vec<_> = list.asked().into_iter().collect();
        assert_eq!(Tools::granted(&list, &ask).unwrap(), Tools { shell: true, ..NONE });
    }

    #[test]
    fn nobody_can_be_asked_about_the_web_search() {
        let asks = |tool: &str| ALL.without_unaskable(&[ToolPattern::parse(tool).unwrap()]);
        for tool in ["*", "WebSearch", "web_*(x)"] {
            assert_eq!(asks(tool), Tools { search: false, ..ALL }, "{tool}");
        }
        assert_eq!(asks("shell"), ALL);
    }

    #[test]
    fn only_a_run_that_may_edit_writes() {
        let reader = tools(&["Read", "Bash"]).unwrap();
        assert_eq!(reader.sandbox(AgentMode::Implement), Sandbox::ReadOnly);
        assert_eq!(ALL.sandbox(AgentMode::Implement), Sandbox::WorkspaceWrite);
        assert_eq!(ALL.sandbox(AgentMode::Bugfix), Sandbox::WorkspaceWrite);
        assert_eq!(ALL.sandbox(AgentMode::Plan), Sandbox::ReadOnly);
        assert_eq!(ALL.sandbox(AgentMode::Review), Sandbox::ReadOnly);
    }
}
