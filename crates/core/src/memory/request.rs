//! What people ask of runs.

use chrono::{DateTime, Utc};

use super::State;
use super::line::At;
use crate::identity::Tenant;
use crate::ports::Request;
use crate::runs::{AgentRun, RunEvent, RunSignal, RunStatus};
use crate::{Error, ErrorKind, Id, Result};

impl State {
    pub(super) fn request(
        &mut self,
        id: Id<AgentRun>,
        request: Request,
        now: DateTime<Utc>,
    ) -> Result<Vec<RunEvent>> {
        const OPERATION: &str = "queue.request";
        let tenant = self.tenant_of(id);
        let worked = self.line.held(id).is_some_and(|held| held.started);
        let run = self.run(id);
        let status = run.status;
        let refused = |what: &str| {
            let message = format!("a run that is {status} cannot be {what}");
            Err(Error::new(ErrorKind::Conflict, OPERATION, message).with("run", id))
        };
        let mut asked = |asked: fn(&mut AgentRun) -> &mut Option<DateTime<Utc>>,
                         at: Option<DateTime<Utc>>| {
            let slot = asked(&mut run.value);
            if slot.is_some() != at.is_some() {
                *slot = at;
                run.version += 1;
                run.updated_at = now;
            }
        };
        match request {
            Request::Cancel if status.is_final() => Ok(Vec::new()),
            Request::Cancel => {
                asked(|run| &mut run.cancel_requested_at, Some(now));
                if worked { Ok(Vec::new()) } else { Ok(self.cancel(id, now)) }
            }
            Request::Pause if status == RunStatus::Paused => Ok(Vec::new()),
            Request::Pause if status.is_final() => refused("paused"),
            Request::Pause => {
                asked(|run| &mut run.pause_requested_at, Some(now));
                if worked {
                    return Ok(Vec::new());
                }
                self.line.put(id, tenant, At::Paused);
                Ok(self.signal(id, RunSignal::Pause, None, now))
            }
            Request::Resume if status.is_final() => refused("resumed"),
            Request::Resume => {
                asked(|run| &mut run.pause_requested_at, None);
                if status != RunStatus::Paused {
                    return Ok(Vec::new());
                }
                let from = self.run(id).run_at.unwrap_or(now).max(now);
                self.line.put(id, tenant, At::Waiting(from));
                Ok(self.signal(id, RunSignal::Resume, None, now))
            }
            Request::Requeue if status == RunStatus::Queued => Ok(Vec::new()),
            Request::Requeue if status != RunStatus::Failed => refused("requeued"),
            Request::Requeue => {
                let key = run.unique_key.clone();
                if let Some(other) = self.with_key(tenant, key.as_deref()) {
                    let message = "another run with the same unique_key has not ended";
                    return Err(Error::new(ErrorKind::AlreadyExists, OPERATION, message).with("run", other));
                }
                self.run(id).value.requeue();
                self.line.put(id, tenant, At::Waiting(now));
                Ok(self.signal(id, RunSignal::Requeue, None, now))
            }
        }
    }

    pub(super) fn tenant_of(&self, id: Id<AgentRun>) -> Id<Tenant> {
        let row = self.table_ref::<AgentRun>().and_then(|table| table.rows.get(&id));
        row.expect("the caller has just found the run, under the same lock").tenant
    }
}
