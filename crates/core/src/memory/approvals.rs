use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::{MemoryStorage, State};
use crate::governance::{Approval, ApprovalStatus, Decision, payload_hash};
use crate::live::Topic;
use crate::ports::{Approvals, Question};
use crate::runs::{AgentRun, Lease, RunEvent, RunSignal, RunStatus};
use crate::{Entity, Error, ErrorKind, Id, Query, Result, Scope, Stored};

impl State {
    fn open_questions(&mut self, run: Id<AgentRun>) -> Vec<Stored<Approval>> {
        let rows = self.table::<Approval>().rows.values();
        let open =
            rows.filter(|row| row.stored.run_id == run && row.stored.status == ApprovalStatus::Pending);
        open.map(|row| row.stored.clone()).collect()
    }

    fn conclude(
        &mut self,
        mut approval: Stored<Approval>,
        status: ApprovalStatus,
        now: DateTime<Utc>,
    ) -> Result<Stored<Approval>> {
        approval.value.status = status;
        if status != ApprovalStatus::Void {
            approval.value.decided_at = Some(now);
        }
        approval.version += 1;
        approval.updated_at = now;
        approval.value.validate().map_err(|invalid| invalid.refused("approvals.decide", Approval::NAME))?;
        if let Some(row) = self.table::<Approval>().rows.get_mut(&approval.id) {
            row.stored = approval.clone();
        }
        Ok(approval)
    }

    fn tell(
        &mut self,
        approval: &Stored<Approval>,
        call_id: Option<String>,
        now: DateTime<Utc>,
    ) -> Vec<RunEvent> {
        let event = approval.event(call_id);
        self.record(approval.run_id, vec![event], now)
    }
}

#[async_trait]
impl Approvals for MemoryStorage {
    async fn ask(&self, lease: &Lease, question: Question) -> Result<Stored<Approval>> {
        const OPERATION: &str = "approvals.ask";
        let now = self.now();
        let mut state = self.lock();
        let project_id = state.leased(lease, OPERATION, now)?.project_id;
        let scope = Scope::system(lease.tenant, "asking a person");
        let hash = payload_hash(&question.payload);
        let same = Query::all()
            .filter(Approval::RUN_ID.eq(lease.run))
            .filter(Approval::SCOPE.eq(question.scope.clone()))
            .filter(Approval::ACTION.eq(question.action.clone()))
            .filter(Approval::PAYLOAD_HASH.eq(hash));
        let known = state.table::<Approval>().page(lease.tenant, &same).items.pop();
        let mut recorded = Vec::new();
        let approval = match known.filter(|known| known.status != ApprovalStatus::Void) {
            Some(known) => known,
            None => {
                let call_id = question.call_id.clone();
                let approval = question.into_approval(project_id, lease, now);
                let known = state.table::<Approval>().page(lease.tenant, &same).items.pop();
                state.check(&scope, OPERATION, known.as_ref().map(|known| known.id), &approval)?;
                for open in state.open_questions(lease.run) {
                    if open.scope == approval.scope && open.action == approval.action {
                        let void = state.conclude(open, ApprovalStatus::Void, now)?;
                        recorded.extend(state.tell(&void, None, now));
                    }
                }
                let stored = match known {
                    Some(void) => {
                        let row = state.row(&scope, OPERATION, void.id)?;
                        row.stored.value = approval;
                        row.stored.version += 1;
                        row.stored.updated_at = now;
                        row.stored.clone()
                    }
                    None => state.table().push(lease.tenant, now, approval),
                };
                recorded.extend(state.tell(&stored, call_id, now));
                stored
            }
        };
        if approval.status == ApprovalStatus::Pending && state.run(lease.run).status == RunStatus::Running {
            recorded.extend(state.signal(lease.run, RunSignal::AskApproval, None, now));
        }
        drop(state);
        self.announce(&vec![(lease.run, recorded)]);
        Ok(approval)
    }

    async fn decide(
        &self,
        scope: &Scope,
        approval: Id<Approval>,
        decision: Decision,
        note: Option<String>,
    ) -> Result<Stored<Approval>> {
        const OPERATION: &str = "approvals.decide";
        let now = self.now();
        let mut state = self.lock();
        state.check_fence(scope, OPERATION, now)?;
        let mut found = state.row(scope, OPERATION, approval)?.stored.clone();
        found.check_decidable(OPERATION, scope, now)?;
        found.value.decided_by = scope.user();
        found.value.note = note;
        let status = match decision {
            Decision::Approve => ApprovalStatus::Approved,
            Decision::Deny => ApprovalStatus::Denied,
        };
        let decided = state.conclude(found, status, now)?;
        let run = decided.run_id;
        let recorded = state.tell(&decided, None, now);
        drop(state);
        self.announce(&vec![(run, recorded)]);
        self.0.hub.wake(Topic::Signals(run));
        Ok(decided)
    }

    async fn answer(&self, lease: &Lease, approval: Id<Approval>) -> Result<Stored<Approval>> {
        const OPERATION: &str = "approvals.answer";
        let now = self.now();
        let mut state = self.lock();
        state.leased(lease, OPERATION, now)?;
        let scope = Scope::system(lease.tenant, "looking for an answer");
        state.row(&scope, OPERATION, approval)?;
        let mut recorded = Vec::new();
        for open in state.open_questions(lease.run) {
            if open.expires_at <= now {
                let status = open.default_status();
                let expired = state.conclude(open, status, now)?;
                recorded.extend(state.tell(&expired, None, now));
            }
        }
        let none_open = state.open_questions(lease.run).is_empty();
        if none_open && state.run(lease.run).status == RunStatus::WaitingApproval {
            recorded.extend(state.signal(lease.run, RunSignal::Answer, None, now));
        }
        let found = state.row(&scope, OPERATION, approval)?.stored.clone();
        drop(state);
        self.announce(&vec![(lease.run, recorded)]);
        if found.run_id != lease.run {
            return Err(Error::new(ErrorKind::NotFound, OPERATION, "the run has asked no such question"));
        }
        Ok(found)
    }
}
