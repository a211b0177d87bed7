use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value as Json;

use super::shell::Unclear;
use super::tool_parts::{Part, parts};
use super::tool_pattern::Calls;
use super::{DefaultTools, ToolPattern};
use crate::Invalid;
use crate::runs::ProviderId;
use crate::words::words;

/// Which tool calls an agent may make: the defaults, narrowed by the project, the agent and the run.
///
/// - Every layer must let a call pass, and none may name it among what is never called. So narrowing never widens,
///   repeating a layer changes nothing, and their order does not matter.
/// - It is the engine's check of each call as it passes. What an agent's program is started with comes from
///   [`grants`](Allowlist::grants) and [`never`](Allowlist::never).
/// - A tool is meant by its name, or by that of the same tool of another agent: Codex's `shell` by `Bash`, its
///   `apply_patch` by `Edit` and `Write`.
///
/// ```
/// use lime_core::governance::{Allowlist, ToolLayer};
/// use serde_json::json;
///
/// let list = |layer, tools: &[&str]| Allowlist::parse(layer, tools).unwrap();
/// let run = list(ToolLayer::Default, &["Read", "Bash"]).narrow(&list(ToolLayer::Run, &["Bash(git *)"]));
/// let may = |command: &str| run.check("Bash", &json!({ "command": command }), "/srv/app".as_ref()).is_ok();
/// assert!(may("git status && git log") && !may("git status; rm -rf /") && !may("git log $(rm x)"));
/// ```
///
/// # What a pattern in brackets cannot tell
///
/// - A command is judged by its words as a shell passes them on, and only if they are certain before it runs; see
///   [`Unclear`] for what is not. Every one of its simple commands must be allowed.
/// - A program is judged by its name and arguments, not by what it does: who allows `Bash(find *)` or `Bash(git *)`
///   allows what these start (`-exec`, `-c alias…`), and what is never called can be reached through `env`, `xargs` or
///   a script. A name is what the shell finds by it. Where that matters, the boundary is the sandbox.
/// - A path is compared as text after `.` and doubled slashes are taken out; symbolic links are not followed, and a
///   path with `..` is denied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowlist(BTreeSet<Layer>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Layer {
    from: ToolLayer,
    /// All calls, if none.
    may: Option<BTreeSet<ToolPattern>>,
    never: BTreeSet<ToolPattern>,
}

words! {
    /// Where a list of tools comes from; each narrows those before it.
    pub enum ToolLayer: "layer" {
        /// The tenant's defaults (000 §5.12).
        Default = "default",
        /// The project's configuration (001).
        Project = "project",
        /// The named agent.
        Agent = "agent",
        /// The run's constraints (000 §6).
        Run = "run",
    }
}

/// A call that may not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this call of {tool} is denied by the {layer} list of tools: {why}")]
pub struct ToolDenied {
    /// The layer that denies it; the first of several, in the order of [`ToolLayer`].
    pub layer: ToolLayer,
    /// The tool.
    pub tool: String,
    /// Why.
    pub why: WhyDenied,
}

/// Why a call may not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WhyDenied {
    /// The tool is not on the list.
    #[error("it is not on the list, which has {0}")]
    NotListed(String),
    /// Some calls of the tool are on the list, and this part of the call is not among them.
    #[error("`{part}` is not on the list, which has {listed}")]
    PartNotListed {
        /// The command, path or URL; its first 200 characters.
        part: String,
        /// What the list has of the tool.
        listed: String,
    },
    /// Some calls of the tool are on the list, and this one names no command, path or URL to compare.
    #[error("only some of its calls are on the list, and this one names no command, path or URL")]
    Nameless,
    /// It is never to be called.
    #[error("`{0}` is never to be called")]
    Never(ToolPattern),
    /// Some calls of the tool are allowed or ruled out, and it is not certain what this one does.
    #[error("it is not certain what it does: {0}; make a plainer call")]
    Unclear(Unclear),
}

/// Names of agents' own for tools that lists name otherwise: all that a call of the first is known by.
///
/// - Both ways where the tools can do the same, since a question about a call may have either name.
const KNOWN_AS: &[&[&str]] = &[
    &["shell", "exec_command", "Bash"],
    &["exec_command", "shell", "Bash"],
    &["Bash", "shell", "exec_command"],
    &["apply_patch", "Edit", "MultiEdit", "NotebookEdit", "Write"],
    &["Edit", "apply_patch"],
    &["Write", "apply_patch"],
    &["web_search", "WebSearch"],
    &["WebSearch", "web_search"],
    &["view_image", "Read"],
];

impl Allowlist {
    /// The most patterns of a list.
    pub const MAX_PATTERNS: usize = 200;

    /// No list: every call may be made.
    pub fn all() -> Self {
        Self::default()
    }

    /// The list of a layer: what may be called, everything if none is given, and what is never called.
    pub fn new(
        from: ToolLayer,
        may: Option<impl IntoIterator<Item = ToolPattern>>,
        never: impl IntoIterator<Item = ToolPattern>,
    ) -> Self {
        let may = may.map(|may| may.into_iter().collect());
        let layer = Layer { from, may, never: never.into_iter().collect() };
        let narrows = layer.may.is_some() || !layer.never.is_empty();
        Self(narrows.then_some(layer).into_iter().collect())
    }

    /// The list of a layer as it is on the wire, such as a run's `allowedTools`.
    pub fn parse<T: AsRef<str>>(from: ToolLayer, tools: &[T]) -> Result<Self, Invalid> {
        if tools.len() > Self::MAX_PATTERNS {
            return Err(Invalid::new("tools", format!("must be at most {}", Self::MAX_PATTERNS)));
        }
        let patterns: Vec<_> =
            tools.iter().map(|tool| ToolPattern::parse(tool.as_ref())).collect::<Result<_, _>>()?;
        Ok(Self::new(from, Some(patterns), []))
    }

    /// A tenant's defaults for a provider: those for any, narrowed by its own; disabled ones do not count.
    pub fn defaults<'d>(defaults: impl IntoIterator<Item = &'d DefaultTools>, provider: &ProviderId) -> Self {
        defaults
            .into_iter()
            .filter(|tools| tools.enabled && tools.provider.as_ref().is_none_or(|only| only == provider))
            .map(|tools| {
                Self::new(
                    ToolLayer::Default,
                    Some(tools.allowed.iter().cloned()),
                    tools.denied.iter().cloned(),
                )
            })
            .fold(Self::all(), |all, one| all.narrow(&one))
    }

    /// What both allow.
    #[must_use]
    pub fn narrow(&self, by: &Self) -> Self {
        Self(self.0.union(&by.0).cloned().collect())
    }

    /// Whether a call may be made by an agent that works in this folder.
    pub fn check(&self, tool: &str, input: &Json, workdir: &Path) -> Result<(), ToolDenied> {
        let parts = parts(input, workdir);
        let denied = |layer: &Layer| {
            let why = layer.objection(tool, parts.as_deref().map_err(|unclear| *unclear))?;
            Some(ToolDenied { layer: layer.from, tool: tool.to_owned(), why })
        };
        self.0.iter().find_map(denied).map_or(Ok(()), Err)
    }

    /// What may be called, as alternatives: what an agent's program can be told beforehand; `None` without a list.
    ///
    /// - Of a pattern within another the narrower stays. Two that have only some calls in common stay side by side in
    ///   one [`ToolGrant`], since no single pattern says what that is.
    pub fn grants(&self) -> Option<BTreeSet<ToolGrant>> {
        let mut lists = self.0.iter().filter_map(|layer| layer.may.as_ref());
        let first =
            lists.next()?.iter().map(|pattern| ToolGrant(BTreeSet::from([pattern.clone()]))).collect();
        Some(lists.fold(first, |grants: BTreeSet<ToolGrant>, list| {
            grants.iter().flat_map(|grant| list.iter().filter_map(|pattern| grant.and(pattern))).collect()
        }))
    }

    /// Whether some call of a tool may be made; which, [`check`](Allowlist::check) says of each.
    pub fn may_use(&self, tool: &str) -> bool {
        let ruled_out = |never: &ToolPattern| never.calls().is_none() && is_known(tool, never);
        let listed = |layer: &Layer| {
            layer.may.as_ref().is_none_or(|may| may.iter().any(|pattern| is_known(tool, pattern)))
        };
        self.0.iter().all(|layer| listed(layer) && !layer.never.iter().any(ruled_out))
    }

    /// Whether a tool may be used and not all of its calls may be made.
    pub fn is_partial(&self, tool: &str) -> bool {
        let partly = |layer: &Layer| {
            let mut own = layer.may.iter().flatten().filter(|pattern| is_known(tool, pattern)).peekable();
            let some = own.peek().is_some() && own.all(|pattern| pattern.calls().is_some());
            some || layer.never.iter().any(|never| never.calls().is_some() && is_known(tool, never))
        };
        self.may_use(tool) && self.0.iter().any(partly)
    }

    /// The tools of which some calls may be made and others not: an agent must ask about each call beforehand.
    pub fn asked(&self) -> BTreeSet<ToolPattern> {
        let patterns = self.0.iter().flat_map(|layer| layer.may.iter().flatten().chain(&layer.never));
        let partial = patterns.filter(|pattern| pattern.calls().is_some());
        partial.filter_map(|pattern| ToolPattern::parse(pattern.tool()).ok()).collect()
    }

    /// What is never called, whatever is granted.
    pub fn never(&self) -> BTreeSet<&ToolPattern> {
        self.0.iter().flat_map(|layer| &layer.never).collect()
    }
}

impl Layer {
    fn objection(&self, tool: &str, parts: Result<&[Part], Unclear>) -> Option<WhyDenied> {
        self.never.iter().find_map(|never| rules_out(never, tool, parts)).or_else(|| {
            let listed = self.may.as_ref()?;
            let own: Vec<_> = listed.iter().filter(|pattern| is_known(tool, pattern)).collect();
            lets_pass(&own, parts).err().map(|why| why.unwrap_or_else(|| WhyDenied::NotListed(named(listed))))
        })
    }
}

fn rules_out(never: &ToolPattern, tool: &str, parts: Result<&[Part], Unclear>) -> Option<WhyDenied> {
    if !is_known(tool, never) {
        return None;
    }
    let meant = |calls: Calls<'_>, part: &Part| part.spellings.iter().any(|spelling| calls.touches(spelling));
    match (never.calls(), parts) {
        (None, _) => Some(WhyDenied::Never(never.clone())),
        (Some(_), Err(unclear)) => Some(WhyDenied::Unclear(unclear)),
        (Some(calls), Ok(parts)) => {
            parts.iter().any(|part| meant(calls, part)).then(|| WhyDenied::Never(never.clone()))
        }
    }
}

/// Whether a tool's own patterns let every part of a call pass; the reason is missing where the tool has none.
fn lets_pass(own: &[&ToolPattern], parts: Result<&[Part], Unclear>) -> Result<(), Option<WhyDenied>> {
    if own.is_empty() {
        return Err(None);
    }
    let Some(calls) = own.iter().map(|pattern| pattern.calls()).collect::<Option<Vec<_>>>() else {
        return Ok(());
    };
    let parts = parts.map_err(WhyDenied::Unclear)?;
    if parts.is_empty() {
        return Err(Some(WhyDenied::Nameless));
    }
    let listed =
        |part: &&Part| part.spellings.iter().any(|spelling| calls.iter().any(|calls| calls.covers(spelling)));
    match parts.iter().find(|part| !listed(part)) {
        None => Ok(()),
        Some(part) => Err(Some(WhyDenied::PartNotListed {
            part: part.spellings[0].chars().take(200).collect(),
            listed: named(own.iter().copied()),
        })),
    }
}

/// Whether a pattern may mean a tool, by one of the names that it is known by.
fn is_known(tool: &str, pattern: &ToolPattern) -> bool {
    let others = KNOWN_AS.iter().filter(|names| names[0].eq_ignore_ascii_case(tool)).copied().flatten();
    std::iter::once(&tool).chain(others).any(|name| pattern.may_mean(name))
}

fn named<'p>(patterns: impl IntoIterator<Item = &'p ToolPattern>) -> String {
    let names: Vec<_> = patterns.into_iter().map(ToolPattern::as_str).collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// Calls that may be made: those that all of its patterns mean.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ToolGrant(BTreeSet<ToolPattern>);

impl ToolGrant {
    /// Its patterns; one or more.
    pub fn patterns(&self) -> impl Iterator<Item = &ToolPattern> {
        self.0.iter()
    }

    /// The pattern that says it all; `None` where only the check of each call can tell.
    pub fn exact(&self) -> Option<&ToolPattern> {
        self.0.first().filter(|_| self.0.len() == 1)
    }

    /// The calls that a pattern means too; `None` if there are none.
    fn and(&self, pattern: &ToolPattern) -> Option<Self> {
        if !self.0.iter().all(|own| meet(own, pattern)) {
            return None;
        }
        if self.0.iter().any(|own| pattern.contains(own)) {
            return Some(self.clone());
        }
        let wider = |own: &&ToolPattern| own.contains(pattern);
        Some(Self(self.0.iter().filter(|own| !wider(own)).chain([pattern]).cloned().collect()))
    }
}

/// Whether some call may be meant by both.
fn meet(one: &ToolPattern, other: &ToolPattern) -> bool {
    let known = |tool: &str| is_known(tool, one) && is_known(tool, other);
    let named = one.meets_name(other) || KNOWN_AS.iter().any(|names| known(names[0]));
    let calls = match (one.calls(), other.calls()) {
        (Some(one), Some(other)) => one.meets(other),
        (None, _) | (_, None) => true,
    };
    named && calls
}
