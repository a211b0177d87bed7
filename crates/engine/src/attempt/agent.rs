//! The agent at work.

use std::time::Duration;

use lime_core::agents::{InstructionLayer, LayerScope, ResolvedInstructions};
use lime_core::planning::{Project, Ticket};
use lime_core::ports::{AgentSession, Progress, RunTarget, SessionSpec};
use lime_core::runs::{AgentEvent, AgentRunRequest, Failure, FailureKind, Limit, Outcome, RepoRequest};
use lime_core::{Lookup, Micros, Result, Stored};
use tokio::time::{Instant, sleep_until};

use super::checkout::Checkout;
use super::{Attempt, Ending};
use crate::heartbeat::Stop;
use crate::recorder::{BATCH_DELAY, Recorder, persist};

/// As good as never, for a timer that is not wanted.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

impl Attempt {
    pub(super) async fn drive_agent(&self, recorder: &mut Recorder, checkout: &Checkout) -> Result<Ending> {
        let run = &self.claim.run;
        let Some(provider) = self.parts.providers.get(&run.provider) else {
            let message = format!(
                "This worker has no provider `{}`. Add it to the worker, or submit to another.",
                run.provider
            );
            return Ok(Ending::of(Outcome::Failed(Failure::new(FailureKind::InvalidRequest, message))));
        };
        let spec = self.session_spec(checkout).await?;
        let started = tokio::select! {
            started = provider.start(spec) => started,
            _ = self.wish.wait() => return Ok(Ending::of(Outcome::Cancelled)),
        };
        let mut session = match started {
            Ok(session) => session,
            Err(error) => {
                let failure = Failure::new(super::failure_kind(&error), error.message());
                return Ok(Ending { stack: Some(error.report()), ..Ending::of(Outcome::Failed(failure)) });
            }
        };
        let followed = self.follow(recorder, &mut *session).await;
        if followed.is_err() {
            session.cancel().await;
        }
        let limit = followed?;
        let report = session.report().await;
        // The last word on usage is the report's, whatever events came before.
        if report.usage != recorder.usage() {
            recorder.take(AgentEvent::Usage(report.usage)).await?;
        }
        tracing::info!(
            outcome = report.outcome.as_str(),
            denials = report.denials.len(),
            "the agent has ended"
        );
        let outcome = limit.map_or(report.outcome, Outcome::Limited);
        Ok(Ending { stack: report.diagnostics, ..Ending::of(outcome) })
    }

    /// Records what the agent does until it ends or has to stop; gives the limit that stopped it.
    async fn follow(&self, recorder: &mut Recorder, session: &mut dyn AgentSession) -> Result<Option<Limit>> {
        let constraints = &self.claim.run.constraints;
        let budget = constraints.time_budget_sec.map_or(FAR, |seconds| Duration::from_secs(seconds.into()));
        let time_is_up = Instant::now() + budget;
        let money = constraints.max_cost_cents.map(Micros::from_cents);
        let mut flush_at = Instant::now();
        let mut stopping = false;
        let mut limit = None;
        loop {
            let mut wanted = None;
            tokio::select! {
                event = session.next_event() => {
                    let Some(event) = event else { break };
                    if !recorder.has_pending() {
                        flush_at = Instant::now() + BATCH_DELAY;
                    }
                    if let AgentEvent::Usage(usage) = &event
                        && money.zip(usage.cost).is_some_and(|(most, cost)| cost > most)
                    {
                        wanted = Some(Limit::Cost);
                    }
                    recorder.take(event).await?;
                }
                () = sleep_until(flush_at), if recorder.has_pending() => recorder.flush().await?,
                () = sleep_until(time_is_up), if !stopping => wanted = Some(Limit::Time),
                stop = self.wish.wait(), if !stopping => {
                    stopping = true;
                    if stop != Stop::Lost {
                        recorder.take(AgentEvent::Log { text: "Stopping the agent.".into() }).await?;
                    }
                    session.cancel().await;
                }
            }
            if wanted.is_some() && !stopping {
                stopping = true;
                limit = wanted;
                session.cancel().await;
            }
        }
        Ok(limit)
    }

    async fn session_spec(&self, checkout: &Checkout) -> Result<SessionSpec> {
        let (scope, run) = (self.claim.scope(), &self.claim.run);
        let storage = &*self.parts.storage;
        let target = RunTarget {
            project_id: run.project_id,
            repository_id: run.repository_id,
            ticket_id: run.ticket_id,
        };
        let mut layers = self.parts.instructions.layers(&scope, target).await?;
        if let Some(ticket) = run.ticket_id {
            let ticket = Lookup::get(storage, &scope, ticket).await?;
            layers.push(ticket_layer(&ticket));
        }
        let instructions = ResolvedInstructions::resolve(&layers, &run.provider, run.mode);
        let text = instructions.text.clone();
        let progress = Progress {
            instructions: Some(instructions),
            branch: Some(checkout.workspace.branch.clone()),
            ..Progress::default()
        };
        persist(|| storage.progress(&self.claim.lease, progress.clone())).await?;
        let model = match &run.model {
            Some(model) => Some(model.clone()),
            None => {
                let project: Stored<Project> = Lookup::get(storage, &scope, run.project_id).await?;
                project.value.config.model
            }
        };
        let repository = &checkout.repository;
        let request = AgentRunRequest {
            run_id: run.id,
            tenant_id: self.claim.lease.tenant,
            project_id: Some(run.project_id),
            ticket_id: run.ticket_id,
            mode: run.mode,
            prompt: run.input_prompt.clone(),
            repo: Some(RepoRequest {
                repository_id: repository.id,
                clone_url: repository.clone_url.clone(),
                default_branch: repository.default_branch.clone(),
                base: run.base_ref.clone(),
                allowed_paths: run.allowed_paths.clone(),
            }),
            constraints: Some(run.constraints.clone()),
        };
        Ok(SessionSpec {
            request,
            workdir: checkout.workspace.path.clone(),
            instructions: text,
            model,
            resume: run.provider_session_id.clone().filter(|_| self.claim.attempt_number == 1),
            env: Vec::new(),
        })
    }
}

/// What the ticket says, as the layer of the ticket: before what was written for its agents.
fn ticket_layer(ticket: &Stored<Ticket>) -> InstructionLayer {
    let description = ticket.description_md.as_deref().unwrap_or_default();
    InstructionLayer {
        scope: LayerScope::Ticket,
        source: format!("tickets {}", ticket.id),
        provider: None,
        mode: None,
        priority: i32::MAX,
        enabled: true,
        content_md: format!("# Ticket: {}\n\n{description}", ticket.title),
    }
}
