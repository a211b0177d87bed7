use chrono::{DateTime, Utc};
use lime_core::governance::{Approval, ApprovalStatus};
use lime_core::ports::EventLog;
use lime_core::repos::{Worktree, WorktreeStatus};
use lime_core::runs::{AgentRun, Effect, RunAttempt, RunInput, RunStep, Seq};
use lime_core::{Id, Lookup, LookupExt, Query, Stored};
use serde::Serialize;

use super::list::ProjectKeys;
use crate::desk::Desk;
use crate::exit::Failure;
use crate::out::{Facts, Table};
use crate::text::{ago, count, first_line, or_dash, span, stamp};
use crate::view::{ApprovalView, AttemptView, EffectView, InputView, RunView, StepView};
use crate::whose::Whose;

/// How many columns of an error or a key are shown in a table.
const WIDE: usize = 80;

/// Everything about a run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    run: RunView,
    purged_events: Seq,
    lease: Option<LeaseView>,
    attempts: Vec<AttemptView>,
    steps: Vec<StepView>,
    effects: Vec<EffectView>,
    questions: Vec<ApprovalView>,
    inputs: Vec<InputView>,
    checkouts: Vec<String>,
}

/// Who holds a run, and until when.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LeaseView {
    attempt_id: Id<RunAttempt>,
    worker: String,
    heartbeat_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    overdue: bool,
}

pub(crate) async fn show(desk: &Desk, id: Id<AgentRun>) -> Result<(), Failure> {
    let whose = Whose::of_run(&desk.storage, desk.tenant.as_ref(), id).await?;
    let document = Document::read(desk, &whose, id).await?;
    desk.out.answer(&document, || document.text())
}

impl Document {
    async fn read(desk: &Desk, whose: &Whose, id: Id<AgentRun>) -> Result<Self, Failure> {
        let (storage, scope) = (&desk.storage, &whose.scope);
        let run: Stored<AgentRun> = storage.get(scope, id).await?;
        // The positions of a log have no gap, so those before its first event were given up.
        let first = storage.read(scope, id, 0, 1).await?.into_iter().next();
        let purged_events = first.map_or(run.last_seq, |event| event.seq - 1);
        let attempts = storage.all(scope, Query::all().filter(RunAttempt::RUN_ID.eq(id))).await?;
        let held = storage.lease_of(scope, id).await?;
        let lease = held.and_then(|held| {
            let attempt = attempts.iter().find(|attempt| attempt.id == held.attempt)?;
            Some(LeaseView {
                attempt_id: held.attempt,
                worker: attempt.worker.clone(),
                heartbeat_at: attempt.heartbeat_at,
                expires_at: held.expires_at,
                overdue: held.is_overdue,
            })
        });
        let steps = storage.all(scope, Query::all().filter(RunStep::RUN_ID.eq(id))).await?;
        let effects = storage.all(scope, Query::all().filter(Effect::RUN_ID.eq(id))).await?;
        let questions = storage.all(scope, Query::all().filter(Approval::RUN_ID.eq(id))).await?;
        let inputs = storage.all(scope, Query::all().filter(RunInput::RUN_ID.eq(id))).await?;
        let kept = Query::all()
            .filter(Worktree::AGENT_RUN_ID.eq(id))
            .filter(Worktree::STATUS.eq(WorktreeStatus::Active));
        let checkouts = storage.all(scope, kept).await?;
        let key = ProjectKeys::default().of(desk, whose, run.project_id).await?;
        Ok(Self {
            run: RunView::of(&whose.slug, &key, run),
            purged_events,
            lease,
            attempts: attempts.into_iter().map(Into::into).collect(),
            steps: steps.into_iter().map(Into::into).collect(),
            effects: effects.into_iter().map(Into::into).collect(),
            questions: questions.into_iter().map(|it| ApprovalView::of(&whose.slug, it)).collect(),
            inputs: inputs.into_iter().map(Into::into).collect(),
            checkouts: checkouts.into_iter().map(|kept| kept.value.path).collect(),
        })
    }

    fn text(&self) -> String {
        let run = &self.run;
        let mut facts = Facts::default();
        facts.add("run", &format!("{} of {} in {}", run.id, run.tenant, run.project));
        let reason = run.stop_reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
        facts.add("status", &format!("{}{reason}", run.status));
        facts.some(
            "why",
            run.failure.as_ref().map(|failure| format!("{}: {}", failure.kind, failure.message)),
        );
        facts.some("cancel", run.cancel_requested_at.map(|at| format!("asked for {}", stamp(at))));
        facts.some("pause", run.pause_requested_at.map(|at| format!("asked for {}", stamp(at))));
        let model = run.model.as_ref().map(|model| format!(", {model}")).unwrap_or_default();
        facts.add("provider", &format!("{}{model}, to {}", run.provider, run.mode));
        facts.some("unique key", run.unique_key.as_ref());
        facts.some("not before", run.run_at.map(stamp));
        facts.add("submitted", &format!("{} ({} ago)", stamp(run.created_at), ago(run.created_at)));
        facts.some("started", run.started_at.map(stamp));
        facts.some("ended", run.ended_at.map(stamp));
        facts.add(
            "attempts",
            &format!("{}, {} lost with a worker, {} tried again", run.attempts, run.crashes, run.failures),
        );
        let cost = run.usage.cost.map_or_else(|| "unknown".to_owned(), |cost| format!("${cost}"));
        facts.add("cost", &format!("{cost}, {} turns", run.usage.turns));
        facts.some("branch", run.branch.as_ref());
        facts.some(
            "purged",
            (self.purged_events > 0).then(|| format!("the first {}", count(self.purged_events, "event"))),
        );
        facts.some("lease", self.lease.as_ref().map(LeaseView::text));
        for checkout in &self.checkouts {
            facts.add("checkout", checkout);
        }
        facts.add("prompt", &first_line(&run.prompt, 2 * WIDE));
        facts.some("summary", run.summary.as_ref());
        self.tables(&mut facts);
        facts.text()
    }

    fn tables(&self, facts: &mut Facts) {
        let mut attempts = Table::new(["NO", "WORKER", "OUTCOME", "BEGAN", "TOOK", "ERROR"]);
        for attempt in &self.attempts {
            let last = attempt.ended_at.unwrap_or(attempt.heartbeat_at);
            attempts.row([
                attempt.number.to_string(),
                attempt.worker.clone(),
                or_dash(attempt.outcome),
                stamp(attempt.started_at),
                span(last - attempt.started_at),
                first_line(attempt.error.as_deref().unwrap_or("-"), WIDE),
            ]);
        }
        section(facts, "Attempts", self.attempts.len(), &attempts);
        let mut steps = Table::new(["NO", "KEY", "STATUS", "BEGAN", "TOOK", "ERROR"]);
        for step in &self.steps {
            steps.row([
                step.number.to_string(),
                first_line(&step.key, WIDE),
                step.status.to_string(),
                stamp(step.started_at),
                or_dash(step.completed_at.map(|at| span(at - step.started_at))),
                first_line(step.error.as_deref().unwrap_or("-"), WIDE),
            ]);
        }
        section(facts, "Steps", self.steps.len(), &steps);
        let mut effects = Table::new(["KIND", "STATUS", "WRITTEN", "KEY", "ERROR"]);
        for effect in &self.effects {
            effects.row([
                effect.kind.to_string(),
                effect.status.to_string(),
                stamp(effect.written_at),
                first_line(&effect.idempotency_key, WIDE),
                first_line(effect.error.as_deref().unwrap_or("-"), WIDE),
            ]);
        }
        section(facts, "Effects", self.effects.len(), &effects);
        let mut questions = Table::new(["ID", "STATUS", "SCOPE", "ACTION", "EXPIRES", "ABOUT"]);
        for question in &self.questions {
            let expires = match question.status {
                ApprovalStatus::Pending => stamp(question.expires_at),
                _ => "-".to_owned(),
            };
            questions.row([
                question.id.to_string(),
                question.status.to_string(),
                question.scope.to_string(),
                first_line(&question.action, WIDE),
                expires,
                first_line(&question.summary, WIDE),
            ]);
        }
        section(facts, "Questions", self.questions.len(), &questions);
        let mut inputs = Table::new(["ID", "SAID", "HEARD", "TEXT"]);
        for input in &self.inputs {
            inputs.row([
                input.id.to_string(),
                stamp(input.said_at),
                or_dash(input.delivered_at.map(stamp)),
                first_line(&input.text, WIDE),
            ]);
        }
        section(facts, "Said to it", self.inputs.len(), &inputs);
    }
}

fn section<const N: usize>(facts: &mut Facts, heading: &str, rows: usize, table: &Table<N>) {
    if rows > 0 {
        facts.section(heading, &table.text());
    }
}

impl LeaseView {
    fn text(&self) -> String {
        let until = if self.overdue {
            format!(
                "ran out {}; the next worker that looks for work takes the run up",
                stamp(self.expires_at)
            )
        } else {
            format!("until {}", stamp(self.expires_at))
        };
        format!("{}, last sign of life {}, {until}", self.worker, stamp(self.heartbeat_at))
    }
}
