//! `lime approvals`: what runs ask people, and the answers.

use lime_core::governance::{Approval, ApprovalStatus, Decision};
use lime_core::ports::Approvals;
use lime_core::runs::AgentRun;
use lime_core::{Id, Lookup, LookupExt, Query, Stored};
use serde::Serialize;

use crate::args::{AnswerArgs, ApprovalsCommand};
use crate::confirm::confirm;
use crate::desk::Desk;
use crate::exit::Failure;
use crate::out::{Table, say};
use crate::text::{ago, first_line, stamp};
use crate::view::ApprovalView;
use crate::whose::Whose;

/// How many columns of an action and of what it is about are shown.
const ACTION: usize = 40;
const ABOUT: usize = 80;
/// How many characters of a payload are shown before it is answered.
const PAYLOAD: usize = 4_000;

pub(crate) async fn run(desk: &Desk, command: ApprovalsCommand) -> Result<(), Failure> {
    match command {
        ApprovalsCommand::List { run, all_tenants } => list(desk, run, all_tenants).await,
        ApprovalsCommand::Approve(answer) => decide(desk, answer, Decision::Approve).await,
        ApprovalsCommand::Deny(answer) => decide(desk, answer, Decision::Deny).await,
    }
}

#[derive(Debug, Serialize)]
struct Document {
    approvals: Vec<ApprovalView>,
}

async fn list(desk: &Desk, run: Option<Id<AgentRun>>, all_tenants: bool) -> Result<(), Failure> {
    let asked = desk.tenant.as_ref();
    let tenants = match run {
        Some(run) => vec![Whose::of_run(&desk.storage, asked, run).await?],
        None => Whose::list(&desk.storage, asked, all_tenants).await?,
    };
    let mut approvals = Vec::new();
    for whose in &tenants {
        let query = match run {
            Some(run) => Query::all().filter(Approval::RUN_ID.eq(run)),
            None => Query::all().filter(Approval::STATUS.eq(ApprovalStatus::Pending)),
        };
        let found = desk.storage.all(&whose.scope, query).await?;
        approvals.extend(found.into_iter().map(|found| ApprovalView::of(&whose.slug, found)));
    }
    approvals.sort_by_key(|approval| approval.id);
    let document = Document { approvals };
    desk.out.answer(&document, || document.table())?;
    if !desk.out.json && document.approvals.is_empty() {
        say("There are none.");
    }
    Ok(())
}

impl Document {
    fn table(&self) -> String {
        let mut table = Table::new([
            "ID", "TENANT", "RUN", "STATUS", "SCOPE", "ACTION", "ASKED", "EXPIRES", "THEN", "ABOUT",
        ]);
        for question in &self.approvals {
            table.row([
                question.id.to_string(),
                question.tenant.clone(),
                question.run_id.to_string(),
                question.status.to_string(),
                question.scope.to_string(),
                first_line(&question.action, ACTION),
                ago(question.asked_at),
                stamp(question.expires_at),
                question.on_expiry.to_string(),
                first_line(&question.summary, ABOUT),
            ]);
        }
        table.text()
    }
}

/// Answers a question, with what it asks about before the operator's eyes.
async fn decide(desk: &Desk, answer: AnswerArgs, decision: Decision) -> Result<(), Failure> {
    let AnswerArgs { id, note } = answer;
    let whose = Whose::of_approval(&desk.storage, desk.tenant.as_ref(), id).await?;
    let question: Stored<Approval> = desk.storage.get(&whose.scope, id).await?;
    if question.status == ApprovalStatus::Pending {
        confirm(desk.yes, &what(&question, decision))?;
    }
    let answered = desk.storage.decide(&whose.scope, id, decision, note).await?;
    let text = format!("The question {id} of run {} is {}.", answered.run_id, answered.status);
    desk.out.answer(&ApprovalView::of(&whose.slug, answered), || text)
}

fn what(question: &Stored<Approval>, decision: Decision) -> String {
    let payload = serde_json::to_string_pretty(&question.payload).unwrap_or_default();
    let mut shown: String = payload.chars().take(PAYLOAD).collect();
    if shown.len() < payload.len() {
        shown.push_str(&format!(
            "\n… {} more characters; `lime approvals list --run {} --json` shows all",
            payload.chars().count() - PAYLOAD,
            question.run_id
        ));
    }
    let verb = match decision {
        Decision::Approve => "allow",
        Decision::Deny => "refuse",
    };
    format!(
        "The run {} asks: {}\n{} {}\n{shown}\nYou are about to {verb} this.",
        question.run_id, question.intent_summary, question.scope, question.action
    )
}
