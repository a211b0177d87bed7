//! What the agent of an attempt is told, over one session or several.

use std::path::Path;
use std::time::Duration;

use lime_core::governance::{EnvScope, EnvValue, ToolPattern, UnknownPrice, asked_tools};
use lime_core::planning::Ticket;
use lime_core::ports::{Progress, RunTarget, SessionSpec};
use lime_core::runs::{AgentRun, AgentRunRequest, Constraints, Limit, RepoRequest, RunInput, Usage};
use lime_core::{Lookup, Micros, Result, Scope, Stored};
use tokio::time::Instant;

use super::Attempt;
use super::checkout::Checkout;
use super::earlier::Earlier;
use super::purse::Purse;
use super::questions::Questions;
use super::tools::Tools;
use super::watchdog::{Reached, Watchdog};
use crate::patience::persist;
use crate::recorder::Recorder;
use crate::told;

/// What an agent is told that was interrupted.
const GO_ON: &str = "You were interrupted. Go on from where you stopped.";
/// What an agent is told that finds the work of another.
const AGAIN: &str = "An earlier attempt at this has left its work in the checkout. Look at that first, then go on from there.";

/// What is said between the factory and the agent of one attempt.
pub(super) struct Dialogue {
    instructions: String,
    /// What is set in the agent's environment.
    env: Vec<EnvValue>,
    model: Option<String>,
    ask: Vec<ToolPattern>,
    pub(super) tools: Tools,
    pub(super) start: Start,
    /// What people said that agents have heard; another session knows nothing of it.
    pub(super) said: Vec<String>,
    /// What people said, for the prompt of the next session.
    pub(super) inputs: Vec<Stored<RunInput>>,
    /// What of it is in the prompt of this session, which has shown no sign of work yet.
    pub(super) prompted: Vec<Stored<RunInput>>,
    /// How many inputs the run had when they were last read.
    pub(super) heard: i32,
    /// The agent hears nothing but its prompt.
    pub(super) deaf: bool,
    pub(super) questions: Questions,
    pub(super) watchdog: Watchdog,
    pub(super) purse: Purse,
    /// A diff was stored of what is to be brought home.
    pub(super) proposed: bool,
    /// What the run has used before this attempt.
    used: Usage,
}

/// How the next session begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Start {
    /// Anew; `again` if there is the work of another one to be found.
    Anew { again: bool },
    /// In a session of this run, which knows what is wanted.
    GoOn { session: String, interrupted: bool },
    /// In the session of another run.
    Follow { session: String },
}

impl Start {
    fn session(&self) -> Option<&String> {
        match self {
            Self::Anew { .. } => None,
            Self::GoOn { session, .. } | Self::Follow { session } => Some(session),
        }
    }
}

impl Dialogue {
    /// The session that runs now is to be gone on with, if it said which it is.
    pub(super) fn go_on(&mut self, session: Option<String>, interrupted: bool) {
        self.start = match session {
            Some(session) => Start::GoOn { session, interrupted },
            None => Start::Anew { again: true },
        };
    }

    /// Takes what people said into the prompt of the next session.
    fn prompt(&mut self, asked: &str) -> String {
        let wanted = || [asked].into_iter().chain(self.said.iter().map(String::as_str));
        let mut parts: Vec<&str> = match &self.start {
            Start::Anew { again: false } | Start::Follow { .. } => wanted().collect(),
            Start::Anew { again: true } => wanted().chain([AGAIN]).collect(),
            Start::GoOn { interrupted: false, .. } if !self.inputs.is_empty() => vec![],
            Start::GoOn { .. } => vec![GO_ON],
        };
        parts.extend(self.inputs.iter().map(|input| input.text.as_str()));
        let prompt = parts.join("\n\n");
        self.prompted = std::mem::take(&mut self.inputs);
        prompt
    }

    /// What the next session may still take and use, or the limit that is reached.
    fn left(&self, constraints: &Constraints, now: Usage) -> Result<Constraints, Reached> {
        let mut left = constraints.clone();
        if let Some(most) = constraints.max_turns {
            let before = if matches!(self.start, Start::GoOn { .. }) { self.used.turns } else { 0 };
            left.max_turns = match most.saturating_sub(before.saturating_add(now.turns)) {
                0 => return Err(reached(Limit::Turns, "The agent took all the turns that it may.")),
                turns => Some(turns),
            };
        }
        if let Some(most) = constraints.max_cost_cents {
            let spent = self.spent(now);
            let cents = (Micros::from_cents(most).0 - spent.0) / Micros::from_cents(1).0;
            if cents <= 0 {
                return Err(Reached::cost());
            }
            left.max_cost_cents = Some(cents);
        }
        if let Some(time) = self.watchdog.time_left(Instant::now()) {
            if time.is_zero() {
                return Err(Reached::time());
            }
            left.time_budget_sec = u32::try_from(time.as_secs().max(1)).ok();
        }
        Ok(left)
    }

    /// What the run has cost up to now, as far as that is known.
    fn spent(&self, now: Usage) -> Micros {
        self.used.cost.unwrap_or(Micros(0)) + now.cost.unwrap_or(Micros(0))
    }

    /// The limit of money, if it is passed.
    pub(super) fn overspent(&self, constraints: &Constraints, now: Usage) -> Option<Reached> {
        let most = constraints.max_cost_cents.map(Micros::from_cents)?;
        (self.spent(now) > most).then(Reached::cost)
    }
}

fn reached(limit: Limit, message: &str) -> Reached {
    Reached { limit, message: message.to_owned() }
}

impl Attempt {
    /// Finds out what the agent is to be told, and writes down what of it the run keeps.
    pub(super) async fn dialogue(
        &self,
        recorder: &mut Recorder,
        checkout: &Checkout,
        earlier: &mut Earlier,
    ) -> Result<Dialogue> {
        let (scope, run) = (self.claim.scope(), &self.claim.run);
        let storage = &*self.parts.storage;
        let (policies, budgets) = tokio::try_join!(self.shelf.policies(&scope), self.shelf.budgets(&scope))?;
        let written = self.shelf.layers(&scope, RunTarget::from(&run.value)).await?;
        let ticket: Option<Stored<Ticket>> = match run.ticket_id {
            Some(ticket) => Some(persist(|| Lookup::get(storage, &scope, ticket)).await?),
            None => None,
        };
        let config = self.repository_config(recorder, checkout).await?;
        let instructions = self.parts.resolve(run, &written, ticket.as_ref(), config.as_deref())?;
        let text = instructions.text.clone();
        let model = match &run.model {
            Some(model) => Some(model.clone()),
            None => self.shelf.project(&scope, run.project_id).await?.config.model.clone(),
        };
        let tools = told::tools(run, self.shelf.default_tools(&scope).await?.iter())?;
        let provider = self.parts.providers.get(&run.provider);
        let refuses_unlisted = provider.is_some_and(|provider| provider.refuses_unlisted());
        let mut ask = asked_tools(&policies, run.project_id);
        ask.extend(tools.asked());
        recorder.progress(Progress {
            instructions: Some(instructions),
            branch: Some(checkout.workspace.branch.clone()),
            ..Progress::default()
        });
        let budget = run.constraints.time_budget_sec.map(|seconds| Duration::from_secs(seconds.into()));
        let unknown = match budgets.budgets.is_empty() {
            true => UnknownPrice::Refuse,
            false => self.shelf.project(&scope, run.project_id).await?.config.unknown_price,
        };
        let used = run.usage.plus(earlier.usage);
        Ok(Dialogue {
            instructions: text,
            env: self.environment(&scope).await?,
            purse: Purse::new(run, &budgets, unknown, model.clone(), used),
            model,
            ask,
            tools: Tools::new(tools, checkout.workspace.path.clone(), refuses_unlisted),
            start: self.start(&checkout.workspace.path, checkout.adopted, earlier).await?,
            said: std::mem::take(&mut earlier.said),
            inputs: std::mem::take(&mut earlier.inputs),
            prompted: Vec::new(),
            heard: 0,
            deaf: false,
            questions: Questions::new(policies, std::mem::take(&mut earlier.questions)),
            watchdog: Watchdog::new(budget, self.config.hang_after, self.config.loop_limit, Instant::now()),
            proposed: false,
            used,
        })
    }

    /// The variables of the run's project, and of its agent, which are stronger.
    async fn environment(&self, scope: &Scope) -> Result<Vec<EnvValue>> {
        let Some(vault) = &self.parts.vault else { return Ok(Vec::new()) };
        let run = &self.claim.run;
        let things: Vec<_> = [EnvScope::Project(run.project_id)]
            .into_iter()
            .chain(run.agent_id.map(EnvScope::Agent))
            .collect();
        persist(|| vault.environment(scope, &things)).await
    }

    /// How the first session of this attempt begins.
    async fn start(&self, place: &Path, adopted: bool, earlier: &Earlier) -> Result<Start> {
        let run = &self.claim.run;
        if let Some((session, known)) = &earlier.session
            && adopted
            && known == place
        {
            return Ok(Start::GoOn { session: session.clone(), interrupted: earlier.done.is_none() });
        }
        let follow = match run.parent_run_id {
            _ if self.claim.attempt_number == 1 => run.provider_session_id.clone(),
            // What the run has by now may be the session of an attempt that was lost.
            Some(parent) => {
                let scope = self.claim.scope();
                let parent: Stored<AgentRun> =
                    persist(|| Lookup::get(&*self.parts.storage, &scope, parent)).await?;
                parent.value.provider_session_id
            }
            None => None,
        };
        Ok(match follow {
            Some(session) => Start::Follow { session },
            None => Start::Anew { again: adopted || earlier.pushed.is_some() },
        })
    }

    /// What the next session is started with, or the limit that leaves nothing for it.
    pub(super) fn session_spec(
        &self,
        checkout: &Checkout,
        dialogue: &mut Dialogue,
        used: Usage,
    ) -> Result<SessionSpec, Reached> {
        let run = &self.claim.run;
        let repository = &checkout.repository;
        let constraints = dialogue.left(&run.constraints, used)?;
        let request = AgentRunRequest {
            run_id: run.id,
            tenant_id: self.claim.lease.tenant,
            project_id: Some(run.project_id),
            ticket_id: run.ticket_id,
            mode: run.mode,
            prompt: dialogue.prompt(&run.input_prompt),
            repo: Some(RepoRequest {
                repository_id: repository.id,
                clone_url: repository.clone_url.clone(),
                default_branch: repository.default_branch.clone(),
                base: run.base_ref.clone(),
                allowed_paths: run.allowed_paths.clone(),
            }),
            constraints: Some(constraints),
        };
        Ok(SessionSpec {
            request,
            workdir: checkout.workspace.path.clone(),
            instructions: dialogue.instructions.clone(),
            model: dialogue.model.clone(),
            resume: dialogue.start.session().cloned(),
            tools: dialogue.tools.list.clone(),
            ask: dialogue.ask.clone(),
            env: dialogue.env.clone(),
        })
    }
}
