//! Which of Codex's tools a run may use, and how freely.

use lime_core::governance::ToolPattern;
use lime_core::runs::{AgentMode, Constraints};
use lime_core::{Error, Result};

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
    const ALL: Self = Self { shell: true, edit: true, search: true, image: true };
    const NONE: Self = Self { shell: false, edit: false, search: false, image: false };

    /// Reads a run's list.
    pub(crate) fn allowed(constraints: Option<&Constraints>) -> Result<Self> {
        let Some(names) = constraints.and_then(|constraints| constraints.allowed_tools.as_ref()) else {
            return Ok(Self::ALL);
        };
        let mut tools = Self::NONE;
        let mut read = false;
        for name in names {
            match name.to_ascii_lowercase().as_str() {
                "bash" | "shell" | "exec_command" => tools.shell = true,
                "edit" | "multiedit" | "notebookedit" | "write" | "apply_patch" => tools.edit = true,
                "read" | "glob" | "grep" | "ls" => read = true,
                "websearch" | "web_search" => tools.search = true,
                "view_image" => tools.image = true,
                other if other.contains('(') => {
                    return Err(Error::invalid(
                        "codex.start",
                        format!(
                            "constraints.allowedTools: Codex cannot limit a tool to a pattern, as `{name}` asks; \
                             name the whole tool, or leave it out"
                        ),
                    ));
                }
                // What Codex does not have cannot be used, so allowing it changes nothing.
                _ => {}
            }
        }
        if read && !tools.shell {
            return Err(Error::invalid(
                "codex.start",
                "constraints.allowedTools: Codex reads files through its shell, so a list with Read, Glob, Grep or \
                 LS needs Bash too; without Edit or Write the shell can change nothing",
            ));
        }
        tools.image |= read;
        Ok(tools)
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

    fn tools(names: &[&str]) -> Result<Tools> {
        Tools::allowed(Some(&Constraints {
            allowed_tools: Some(names.iter().map(|name| (*name).to_owned()).collect()),
            ..Constraints::default()
        }))
    }

    #[test]
    fn a_list_narrows_and_never_widens() {
        assert_eq!(Tools::allowed(None).unwrap(), Tools::ALL);
        assert_eq!(Tools::allowed(Some(&Constraints::default())).unwrap(), Tools::ALL);
        assert_eq!(tools(&[]).unwrap(), Tools::NONE);
        assert_eq!(tools(&["WebFetch", "mcp__x__y"]).unwrap(), Tools::NONE);
        let usual = tools(&["Read", "Edit", "Bash", "Glob", "Grep"]).unwrap();
        assert_eq!(usual, Tools { search: false, ..Tools::ALL });
    }

    #[test]
    fn what_codex_cannot_hold_is_refused() {
        for names in [&["Bash(git *)"][..], &["Read"], &["Read", "Edit"]] {
            assert_eq!(tools(names).unwrap_err().kind(), ErrorKind::Invalid, "{names:?}");
        }
    }

    #[test]
    fn nobody_can_be_asked_about_the_web_search() {
        let asks = |tool: &str| Tools::ALL.without_unaskable(&[ToolPattern::parse(tool).unwrap()]);
        for tool in ["*", "WebSearch", "web_*(x)"] {
            assert_eq!(asks(tool), Tools { search: false, ..Tools::ALL }, "{tool}");
        }
        assert_eq!(asks("shell"), Tools::ALL);
    }

    #[test]
    fn only_a_run_that_may_edit_writes() {
        let reader = tools(&["Read", "Bash"]).unwrap();
        assert_eq!(reader.sandbox(AgentMode::Implement), Sandbox::ReadOnly);
        assert_eq!(Tools::ALL.sandbox(AgentMode::Implement), Sandbox::WorkspaceWrite);
        assert_eq!(Tools::ALL.sandbox(AgentMode::Bugfix), Sandbox::WorkspaceWrite);
        assert_eq!(Tools::ALL.sandbox(AgentMode::Plan), Sandbox::ReadOnly);
        assert_eq!(Tools::ALL.sandbox(AgentMode::Review), Sandbox::ReadOnly);
    }
}
