//! What a person must agree to before it happens.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use crate::governance::ToolPattern;
use crate::identity::User;
use crate::planning::Project;
use crate::runs::{AgentEvent, AgentRun, RunAttempt};
use crate::words::words;
use crate::{Actor, Editable, Error, ErrorKind, Id, Invalid, Result, Scope, Stored, entity};

/// A question to a person about one action of one run, and its answer (004 approvals).
///
/// - Bound to the tenant, the run, the action and the hash of the exact payload: another payload is another question.
/// - Written by [`Approvals`](crate::ports::Approvals) only.
#[derive(Debug, Clone, PartialEq)]
pub struct Approval {
    /// The project.
    pub project_id: Id<Project>,
    /// The run that asks.
    pub run_id: Id<AgentRun>,
    /// The attempt that asked first.
    pub attempt_id: Option<Id<RunAttempt>>,
    /// What it is about: `tool`, `repo.push`, `repo.merge`, `deploy.production`, `infra.provision`, or a word of yours.
    pub scope: ActionScope,
    /// The action in the scope that the payload belongs to: the tool, or the branch; 1 to 200 characters.
    pub action: String,
    /// In a sentence, for the person; 1 to 1,000 characters.
    pub intent_summary: String,
    /// The exact parameters, as the person sees them; secrets are taken out before.
    pub payload: Json,
    /// The [hash](payload_hash) of the payload.
    pub payload_hash: String,
    /// How far it is.
    pub status: ApprovalStatus,
    /// Who may answer; anybody of the tenant, if nobody is named.
    pub approvers: Vec<Id<User>>,
    /// Until when it can be answered, on the database's clock.
    pub expires_at: DateTime<Utc>,
    /// The answer when nobody gave one in time.
    pub on_expiry: Decision,
    /// When it was answered (004 `approved_at`).
    pub decided_at: Option<DateTime<Utc>>,
    /// Who answered (004 `approved_by`); nobody, if its time was up.
    pub decided_by: Option<Id<User>>,
    /// What the person said, for the agent; up to 2,000 characters.
    pub note: Option<String>,
}

impl Approval {
    /// What becomes of it when nobody answers in time.
    pub const fn default_status(&self) -> ApprovalStatus {
        match self.on_expiry {
            Decision::Approve => ApprovalStatus::Defaulted,
            Decision::Deny => ApprovalStatus::Expired,
        }
    }

    /// Whether this actor may answer it now; the store's own clock says when now is.
    ///
    /// - `Conflict` if it is answered, void or too late, `PermissionDenied` if the actor is not one of its approvers.
    ///   The software itself may always answer.
    pub fn check_decidable(&self, operation: &'static str, scope: &Scope, now: DateTime<Utc>) -> Result<()> {
        if self.status != ApprovalStatus::Pending {
            let message = format!("the question is {} already", self.status);
            return Err(Error::new(ErrorKind::Conflict, operation, message));
        }
        if self.expires_at <= now {
            let message = "the question's time is up; the run was told the default answer";
            return Err(Error::new(ErrorKind::Conflict, operation, message));
        }
        let anybody = self.approvers.is_empty();
        let refused = match scope.actor() {
            Actor::System(_) => None,
            Actor::Agent { .. } => Some("an agent may not answer a question to people"),
            Actor::User(user) | Actor::ApiKey { user: Some(user), .. }
                if anybody || self.approvers.contains(user) =>
            {
                None
            }
            Actor::ApiKey { user: None, .. } if anybody => None,
            Actor::User(_) | Actor::ApiKey { .. } => {
                Some("only the people named in the question may answer it")
            }
        };
        match refused {
            None => Ok(()),
            Some(message) => Err(Error::new(ErrorKind::PermissionDenied, operation, message)),
        }
    }
}

impl Stored<Approval> {
    /// What the log of the run tells of it: the question with its parameters, or the answer.
    pub fn event(&self, call_id: Option<String>) -> AgentEvent {
        let pending = self.status == ApprovalStatus::Pending;
        let summary = match (pending, &self.note) {
            (false, Some(note)) if !note.trim().is_empty() => note.clone(),
            _ => self.intent_summary.clone(),
        };
        AgentEvent::Approval {
            approval_id: Some(self.id),
            scope: self.scope.clone(),
            action: self.action.clone(),
            call_id,
            status: self.status,
            summary,
            payload: pending.then(|| self.payload.clone()),
        }
    }
}

words! {
    /// How far a question is.
    pub enum ApprovalStatus: "status" {
        /// Nobody has answered yet.
        Pending = "pending",
        /// A person agreed.
        Approved = "approved",
        /// A person refused.
        Denied = "denied",
        /// Nobody answered in time, and the default is no.
        Expired = "expired",
        /// Nobody answered in time, and the default is yes.
        Defaulted = "defaulted",
        /// What it asked about has changed, or its run has ended.
        Void = "void",
    }
}

impl ApprovalStatus {
    /// Whether the action may be done.
    pub const fn allows(self) -> bool {
        matches!(self, Self::Approved | Self::Defaulted)
    }
}

words! {
    /// A person's answer.
    pub enum Decision: "decision" {
        /// It may be done.
        Approve = "approve",
        /// It must not be done.
        Deny = "deny",
    }
}

/// What kind of action needs leave: dotted words, such as `repo.push`; 1 to 100 of `a-z`, `0-9`, `_` and `.`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct ActionScope(String);

impl ActionScope {
    /// A call of a tool by the agent.
    pub const TOOL: &'static str = "tool";
    /// Bringing commits to a repository.
    pub const REPO_PUSH: &'static str = "repo.push";
    /// Merging a pull request.
    pub const REPO_MERGE: &'static str = "repo.merge";
    /// Making infrastructure.
    pub const INFRA_PROVISION: &'static str = "infra.provision";
    /// Deploying for everybody to use.
    pub const DEPLOY_PRODUCTION: &'static str = "deploy.production";

    /// Checks a scope.
    pub fn parse(scope: impl Into<String>) -> Result<Self, Invalid> {
        let scope = scope.into();
        let word = |word: &str| {
            !word.is_empty()
                && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        };
        if scope.len() > 100 || !scope.split('.').all(word) {
            return Err(Invalid::new("scope", "must be dotted words of a-z, 0-9 and _, such as `repo.push`"));
        }
        Ok(Self(scope))
    }

    /// A call of a tool by the agent.
    pub fn tool() -> Self {
        Self(Self::TOOL.to_owned())
    }

    /// Bringing commits to a repository.
    pub fn repo_push() -> Self {
        Self(Self::REPO_PUSH.to_owned())
    }

    /// The scope.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for ActionScope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ActionScope {
    type Error = Invalid;

    fn try_from(scope: String) -> Result<Self, Invalid> {
        Self::parse(scope)
    }
}

impl From<ActionScope> for String {
    fn from(scope: ActionScope) -> Self {
        scope.0
    }
}

impl From<&ActionScope> for crate::Value {
    fn from(scope: &ActionScope) -> Self {
        Self::Text(scope.0.clone())
    }
}

impl From<ActionScope> for crate::Value {
    fn from(scope: ActionScope) -> Self {
        Self::Text(scope.0)
    }
}

/// The SHA-256 of a payload in hexadecimal, the same however its fields are ordered.
pub fn payload_hash(payload: &Json) -> String {
    fn sorted(value: &Json) -> Json {
        match value {
            Json::Object(fields) => {
                let ordered: std::collections::BTreeMap<_, _> =
                    fields.iter().map(|(name, value)| (name.clone(), sorted(value))).collect();
                Json::Object(ordered.into_iter().collect())
            }
            Json::Array(items) => Json::Array(items.iter().map(sorted).collect()),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => value.clone(),
        }
    }
    Sha256::digest(sorted(payload).to_string()).iter().map(|byte| format!("{byte:02x}")).collect()
}

entity! {
    Approval as "approval" in "approvals" {
        PROJECT_ID: Id<Project> = project_id => |approval| approval.project_id;
        RUN_ID: Id<AgentRun> = run_id => |approval| approval.run_id;
        SCOPE: ActionScope = scope => |approval| &approval.scope;
        ACTION: String = action => |approval| approval.action.clone();
        PAYLOAD_HASH: String = payload_hash => |approval| approval.payload_hash.clone();
        STATUS: ApprovalStatus = status => |approval| approval.status;
        DECIDED_BY: Option<Id<User>> = decided_by => |approval| approval.decided_by;
    }
    unique [RUN_ID, SCOPE, ACTION, PAYLOAD_HASH];
    refers PROJECT_ID -> Project Cascade;
    refers RUN_ID -> AgentRun Cascade;
    refers DECIDED_BY -> User Restrict;
    validate |approval| {
        Invalid::text("action", &approval.action, 1, 200)?;
        Invalid::no_nul("action", &approval.action)?;
        Invalid::text("intent_summary", &approval.intent_summary, 1, 1_000)?;
        Invalid::no_nul("intent_summary", &approval.intent_summary)?;
        match &approval.note {
            Some(note) => Invalid::text("note", note, 0, 2_000).and_then(|()| Invalid::no_nul("note", note)),
            None => Ok(()),
        }
    };
}

/// A rule that says which actions pass, which are refused, and which a person is asked about (ours).
#[derive(Debug, Clone, PartialEq)]
pub struct ApprovalPolicy {
    /// The project that it is for; all of the tenant's, if none.
    pub project_id: Option<Id<Project>>,
    /// The kind of action.
    pub scope: ActionScope,
    /// Which calls, where the scope is `tool`; all of them, if none.
    pub tool: Option<ToolPattern>,
    /// What is done about them.
    pub rule: ApprovalRule,
    /// Who may answer; anybody of the tenant, if nobody is named. Up to 100.
    pub approvers: Vec<Id<User>>,
    /// How long a question waits for its answer, in seconds: 1 s to 30 days.
    pub expires_after_s: i32,
    /// The answer when nobody gives one.
    pub on_expiry: Decision,
    /// Whether it counts.
    pub enabled: bool,
}

words! {
    /// What is done about an action.
    pub enum ApprovalRule: "rule" {
        /// It passes.
        Allow = "allow",
        /// A person is asked.
        Ask = "ask",
        /// It is refused.
        Deny = "deny",
    }
}

impl ApprovalPolicy {
    /// The longest that a question can wait, in seconds: 30 days.
    pub const MAX_EXPIRY_S: i32 = 30 * 24 * 60 * 60;

    /// A policy for the whole tenant that asks anybody of it, waits an hour, and takes silence for no.
    pub fn ask(scope: ActionScope) -> Self {
        Self {
            project_id: None,
            scope,
            tool: None,
            rule: ApprovalRule::Ask,
            approvers: Vec::new(),
            expires_after_s: 3_600,
            on_expiry: Decision::Deny,
            enabled: true,
        }
    }

    fn applies(&self, project: Id<Project>, action: Action<'_>) -> bool {
        let meant = match action {
            Action::Tool { tool, input } => {
                self.scope.as_str() == ActionScope::TOOL
                    && self.tool.as_ref().is_none_or(|pattern| pattern.matches(tool, input))
            }
            Action::Effect(scope) => self.scope == *scope,
        };
        self.enabled && meant && self.project_id.is_none_or(|only| only == project)
    }
}

entity! {
    ApprovalPolicy as "approval policy" in "approval_policies" {
        PROJECT_ID: Option<Id<Project>> = project_id => |policy| policy.project_id;
        SCOPE: ActionScope = scope => |policy| &policy.scope;
        RULE: ApprovalRule = rule => |policy| policy.rule;
        ENABLED: bool = enabled => |policy| policy.enabled;
    }
    refers PROJECT_ID -> Project Cascade;
    validate |policy| {
        if policy.tool.is_some() && policy.scope.as_str() != ActionScope::TOOL {
            return Err(Invalid::new("tool", "goes with the scope `tool` only"));
        }
        if policy.approvers.len() > 100 {
            return Err(Invalid::new("approvers", "must be at most 100"));
        }
        if !(1..=ApprovalPolicy::MAX_EXPIRY_S).contains(&policy.expires_after_s) {
            return Err(Invalid::new("expires_after_s", "must be 1 second to 30 days"));
        }
        Ok(())
    };
}
impl Editable for ApprovalPolicy {}

/// What a run wants to do.
#[derive(Debug, Clone, Copy)]
pub enum Action<'a> {
    /// A call of a tool by its agent.
    Tool {
        /// The tool.
        tool: &'a str,
        /// What it is called with.
        input: &'a Json,
    },
    /// A side effect of the factory.
    Effect(&'a ActionScope),
}

/// What the policies say about an action: the strictest rule that applies, and `Allow` if none does.
///
/// - Deny beats ask, and ask beats allow, however narrow a rule is: a project cannot loosen what the tenant has tied.
/// - Of several that ask, the project's comes before the tenant's, and then the one that waits the shortest.
pub fn verdict<'a>(policies: &'a [ApprovalPolicy], project: Id<Project>, action: Action<'_>) -> Verdict<'a> {
    let applying = || policies.iter().filter(|policy| policy.applies(project, action));
    if applying().any(|policy| policy.rule == ApprovalRule::Deny) {
        return Verdict::Deny;
    }
    let asking = applying().filter(|policy| policy.rule == ApprovalRule::Ask);
    match asking.min_by_key(|policy| (policy.project_id.is_none(), policy.expires_after_s)) {
        Some(policy) => Verdict::Ask(policy),
        None => Verdict::Allow,
    }
}

/// What is done about an action.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict<'a> {
    /// It passes.
    Allow,
    /// A person is asked, as this policy says.
    Ask(&'a ApprovalPolicy),
    /// It is refused.
    Deny,
}

/// The tool calls that an agent must ask about before it makes them: those of every policy that asks or denies.
pub fn asked_tools(policies: &[ApprovalPolicy], project: Id<Project>) -> Vec<ToolPattern> {
    let all = ToolPattern::parse("*");
    let mut asked = Vec::new();
    for policy in policies {
        let here = policy.enabled && policy.project_id.is_none_or(|only| only == project);
        let strict = match policy.rule {
            ApprovalRule::Ask | ApprovalRule::Deny => true,
            ApprovalRule::Allow => false,
        };
        if here && strict && policy.scope.as_str() == ActionScope::TOOL {
            asked.extend(policy.tool.clone().or_else(|| all.clone().ok()));
        }
    }
    asked
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const HERE: Id<Project> = Id::new(1);

    fn tool(pattern: &str, rule: ApprovalRule) -> ApprovalPolicy {
        let tool = Some(ToolPattern::parse(pattern).unwrap());
        ApprovalPolicy { tool, rule, ..ApprovalPolicy::ask(ActionScope::tool()) }
    }

    fn on(policies: &[ApprovalPolicy], command: &str) -> &'static str {
        let input = json!({ "command": command });
        match verdict(policies, HERE, Action::Tool { tool: "Bash", input: &input }) {
            Verdict::Allow => "allow",
            Verdict::Ask(_) => "ask",
            Verdict::Deny => "deny",
        }
    }

    #[test]
    fn the_strictest_rule_wins_in_any_order() {
        let mut policies = vec![
            tool("Bash", ApprovalRule::Allow),
            tool("Bash(git push *)", ApprovalRule::Ask),
            tool("Bash(git push -f *)", ApprovalRule::Deny),
        ];
        for _ in 0..policies.len() {
            policies.rotate_left(1);
            assert_eq!(on(&policies, "ls"), "allow");
            assert_eq!(on(&policies, "git push origin"), "ask");
            assert_eq!(on(&policies, "git push -f origin"), "deny");
        }
        assert_eq!(on(&[], "rm -rf /"), "allow");
    }

    #[test]
    fn a_project_cannot_loosen_what_the_tenant_has_tied() {
        let loose = ApprovalPolicy { project_id: Some(HERE), ..tool("Bash", ApprovalRule::Allow) };
        assert_eq!(on(&[loose, tool("*", ApprovalRule::Ask)], "ls"), "ask");
    }

    #[test]
    fn rules_of_other_projects_and_disabled_ones_do_not_count() {
        let elsewhere = ApprovalPolicy { project_id: Some(Id::new(2)), ..tool("*", ApprovalRule::Deny) };
        let off = ApprovalPolicy { enabled: false, ..tool("*", ApprovalRule::Deny) };
        assert_eq!(on(&[elsewhere.clone(), off.clone()], "ls"), "allow");
        assert_eq!(asked_tools(&[elsewhere, off], HERE), []);
    }

    #[test]
    fn effects_have_their_own_scopes() {
        let policies = [ApprovalPolicy::ask(ActionScope::repo_push())];
        let push = ActionScope::repo_push();
        assert!(matches!(verdict(&policies, HERE, Action::Effect(&push)), Verdict::Ask(_)));
        let merge = ActionScope::parse("repo.merge").unwrap();
        assert_eq!(verdict(&policies, HERE, Action::Effect(&merge)), Verdict::Allow);
        assert_eq!(on(&policies, "ls"), "allow");
    }

    #[test]
    fn the_hash_knows_values_and_not_the_order_of_fields() {
        let one: Json = serde_json::from_str(r#"{"a":1,"b":{"c":2,"d":3}}"#).unwrap();
        let same: Json = serde_json::from_str(r#"{"b":{"d":3,"c":2},"a":1}"#).unwrap();
        assert_eq!(payload_hash(&one), payload_hash(&same));
        assert_ne!(payload_hash(&one), payload_hash(&json!({ "a": 1, "b": { "c": 2, "d": 4 } })));
    }

    #[test]
    fn scopes_are_dotted_words() {
        for good in ["tool", "repo.push", "deploy.production", "x_1.y"] {
            assert!(ActionScope::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "repo.", "Repo.push", "repo push", "repo..push"] {
            assert!(ActionScope::parse(bad).is_err(), "{bad}");
        }
    }
}
