//! A factory for callers who may not do everything.

use lime_core::governance::{Approval, Decision};
use lime_core::identity::{Action, Caller, Resource, authorize};
use lime_core::planning::{Project, Ticket};
use lime_core::ports::EventStream;
use lime_core::repos::{CodeDiff, RepoKind, Repository};
use lime_core::runs::{AgentRun, RunInput, Seq};
use lime_core::{Entity, Error, ErrorKind, Id, Lookup, Result, Stored};

use crate::{Factory, Preview};

/// A factory whose every call asks first whether the caller may: what a server holds.
///
/// - It has no call with a scope alone, so none can be made without that question, not even by accident.
/// - [`Factory`] itself is for the software's own work, in the software's own name.
///
/// ```
/// use lime_core::identity::Caller;
/// use lime_core::runs::AgentRun;
/// use lime_core::{Id, Result, Stored};
/// use lime_engine::Guarded;
///
/// async fn cancel(factory: &Guarded, caller: &Caller, run: Id<AgentRun>) -> Result<Stored<AgentRun>> {
///     factory.acting_for(caller).cancel(run).await
/// }
/// ```
/// ```compile_fail,E0599
/// # use lime_core::identity::Caller;
/// # use lime_core::runs::AgentRun;
/// # use lime_core::{Id, Result, Stored};
/// # use lime_engine::Guarded;
/// # async fn cancel(factory: &Guarded, caller: &Caller, run: Id<AgentRun>) -> Result<Stored<AgentRun>> {
/// factory.cancel(caller.scope(), run).await // nobody asked whether they may
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Guarded(Factory);

/// A factory in the name of a caller.
///
/// - What is another tenant's, what is missing, and what is in a project of which the caller may not even read fail alike,
///   with `NotFound`; what they may see and not do fails with `PermissionDenied`.
#[derive(Debug, Clone, Copy)]
pub struct Acting<'a> {
    factory: &'a Factory,
    caller: &'a Caller,
}

/// A call of a factory, and the permission that it needs in the project that it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// The name of the operation, such as `factory.cancel`.
    pub operation: &'static str,
    /// What is done.
    pub action: Action,
    /// To what.
    pub resource: Resource,
}

impl Call {
    const fn new(operation: &'static str, action: Action, resource: Resource) -> Self {
        Self { operation, action, resource }
    }

    const SUBMIT: Self = Self::new("factory.submit", Action::Create, Resource::Run);
    const FOLLOW_UP: Self = Self::new("factory.follow_up", Action::Create, Resource::Run);
    const REQUEUE: Self = Self::new("factory.requeue", Action::Create, Resource::Run);
    const CANCEL: Self = Self::new("factory.cancel", Action::Cancel, Resource::Run);
    const PAUSE: Self = Self::new("factory.pause", Action::Steer, Resource::Run);
    const RESUME: Self = Self::new("factory.resume", Action::Steer, Resource::Run);
    const SAY: Self = Self::new("factory.say", Action::Steer, Resource::Run);
    const DECIDE: Self = Self::new("factory.decide", Action::Decide, Resource::Approval);
    const CONNECT: Self = Self::new("factory.connect_repository", Action::Create, Resource::Repository);
    const RUN: Self = Self::new("factory.run", Action::Read, Resource::Run);
    const WATCH: Self = Self::new("factory.watch", Action::Read, Resource::Run);
    const WAIT: Self = Self::new("factory.wait", Action::Read, Resource::Run);
    const DIFF: Self = Self::new("factory.diff", Action::Read, Resource::Run);
    const PREVIEW: Self = Self::new("factory.preview", Action::Read, Resource::Instruction);
    const APPROVALS: Self = Self::new("factory.approvals", Action::Read, Resource::Approval);

    /// Every one.
    pub const ALL: &'static [Self] = &[
        Self::SUBMIT,
        Self::FOLLOW_UP,
        Self::REQUEUE,
        Self::CANCEL,
        Self::PAUSE,
        Self::RESUME,
        Self::SAY,
        Self::DECIDE,
        Self::CONNECT,
        Self::RUN,
        Self::WATCH,
        Self::WAIT,
        Self::DIFF,
        Self::PREVIEW,
        Self::APPROVALS,
    ];
}

impl Factory {
    /// The factory for a server, which asks of each call whether its caller may.
    #[must_use]
    pub fn guarded(self) -> Guarded {
        Guarded(self)
    }
}

impl Guarded {
    /// The factory in the name of this caller.
    #[must_use]
    pub fn acting_for<'a>(&'a self, caller: &'a Caller) -> Acting<'a> {
        Acting { factory: &self.0, caller }
    }
}

impl Acting<'_> {
    /// Submits a run, as [`Factory::submit`] does, in a project where the caller has `runs:create`.
    ///
    /// - For a ticket, the caller must be allowed to read that, too.
    /// - Refused with `Invalid`: one that goes on from another run, or in a session of an agent. That is
    ///   [`follow_up`](Acting::follow_up), which looks whose session it is.
    /// - Refused with `AlreadyExists`: one whose unique key a run has that the caller may not see.
    pub async fn submit(&self, run: AgentRun) -> Result<Stored<AgentRun>> {
        let call = Call::SUBMIT;
        self.permit(call, Some(run.project_id))?;
        if run.parent_run_id.is_some() || run.provider_session_id.is_some() {
            let message = "a run that goes on from another one is not submitted; follow that one up";
            return Err(Error::invalid(call.operation, message));
        }
        self.permit_ticket(call, &run).await?;
        let project = run.project_id;
        let stored = self.factory.submit(self.caller.scope(), run).await?;
        if stored.project_id != project {
            let seen = Call { action: Action::Read, ..call };
            self.permit(seen, Some(stored.project_id)).map_err(|_| {
                let message =
                    "a run of another project has this unique_key and has not ended; take another key";
                Error::new(ErrorKind::AlreadyExists, call.operation, message)
            })?;
        }
        Ok(stored)
    }

    /// Goes on from a run that has ended, as [`Factory::follow_up`] does; needs `runs:create`.
    pub async fn follow_up(
        &self,
        run: Id<AgentRun>,
        prompt: impl Into<String> + Send,
    ) -> Result<Stored<AgentRun>> {
        self.permitted(Call::FOLLOW_UP, run).await?;
        self.factory.follow_up(self.caller.scope(), run, prompt).await
    }

    /// Puts a run that failed back into the line, as [`Factory::requeue`] does; needs `runs:create`.
    pub async fn requeue(&self, run: Id<AgentRun>) -> Result<Stored<AgentRun>> {
        self.permitted(Call::REQUEUE, run).await?;
        self.factory.requeue(self.caller.scope(), run).await
    }

    /// Asks for a run to be cancelled, as [`Factory::cancel`] does; needs `runs:cancel`.
    pub async fn cancel(&self, run: Id<AgentRun>) -> Result<Stored<AgentRun>> {
        self.permitted(Call::CANCEL, run).await?;
        self.factory.cancel(self.caller.scope(), run).await
    }

    /// Asks for a run to be put on hold, as [`Factory::pause`] does; needs `runs:steer`.
    pub async fn pause(&self, run: Id<AgentRun>) -> Result<Stored<AgentRun>> {
        self.permitted(Call::PAUSE, run).await?;
        self.factory.pause(self.caller.scope(), run).await
    }

    /// Lets a run go on, as [`Factory::resume`] does; needs `runs:steer`.
    pub async fn resume(&self, run: Id<AgentRun>) -> Result<Stored<AgentRun>> {
        self.permitted(Call::RESUME, run).await?;
        self.factory.resume(self.caller.scope(), run).await
    }

    /// Says something to the agent of a run, as [`Factory::say`] does; needs `runs:steer`.
    pub async fn say(&self, run: Id<AgentRun>, text: impl Into<String> + Send) -> Result<Stored<RunInput>> {
        self.permitted(Call::SAY, run).await?;
        self.factory.say(self.caller.scope(), run, text).await
    }

    /// Answers a question of a run, as [`Factory::decide`] does; needs `approvals:decide`.
    pub async fn decide(
        &self,
        approval: Id<Approval>,
        decision: Decision,
        note: Option<String>,
    ) -> Result<Stored<Approval>> {
        let scope = self.caller.scope();
        let question: Stored<Approval> = Lookup::get(self.factory.storage(), scope, approval).await?;
        self.permit_of(Call::DECIDE, question.project_id, approval)?;
        self.factory.decide(scope, approval, decision, note).await
    }

    /// Stores a repository of the tenant, as [`Factory::connect_repository`] does; needs `repositories:create` in the
    /// whole tenant.
    pub async fn connect_repository(&self, kind: RepoKind, location: &str) -> Result<Stored<Repository>> {
        self.permit(Call::CONNECT, None)?;
        self.factory.connect_repository(self.caller.scope(), kind, location).await
    }

    /// A run; needs `runs:read`.
    pub async fn run(&self, run: Id<AgentRun>) -> Result<Stored<AgentRun>> {
        self.permitted(Call::RUN, run).await
    }

    /// What happens in a run, as [`Factory::watch`] shows it; needs `runs:read`, when it begins.
    pub async fn watch(&self, run: Id<AgentRun>, after: Seq) -> Result<EventStream> {
        self.permitted(Call::WATCH, run).await?;
        Ok(self.factory.watch(self.caller.scope(), run, after))
    }

    /// Waits for a run's end and gives the run; needs `runs:read`, when it begins.
    pub async fn wait(&self, run: Id<AgentRun>) -> Result<Stored<AgentRun>> {
        self.permitted(Call::WAIT, run).await?;
        self.factory.wait(self.caller.scope(), run).await
    }

    /// The newest diff of a run, as [`Factory::diff`] does; needs `runs:read`.
    pub async fn diff(&self, run: Id<AgentRun>) -> Result<Option<Stored<CodeDiff>>> {
        self.permitted(Call::DIFF, run).await?;
        self.factory.diff(self.caller.scope(), run).await
    }

    /// What the agent of a run would be told, as [`Factory::preview`] says; needs `instructions:read`, and for a ticket
    /// `tickets:read`.
    pub async fn preview(&self, run: &AgentRun) -> Result<Preview> {
        self.permit_of(Call::PREVIEW, run.project_id, run.project_id)?;
        self.permit_ticket(Call::PREVIEW, run).await?;
        self.factory.preview(self.caller.scope(), run).await
    }

    /// The questions of a run, as [`Factory::approvals`] does; needs `approvals:read`.
    pub async fn approvals(&self, run: Id<AgentRun>) -> Result<Vec<Stored<Approval>>> {
        self.permitted(Call::APPROVALS, run).await?;
        self.factory.approvals(self.caller.scope(), run).await
    }

    /// The one place where it is asked whether the caller may.
    fn permit(&self, call: Call, project: Option<Id<Project>>) -> Result<()> {
        self.caller.authorize(call.operation, call.action, call.resource.within(project))
    }

    /// The same about a thing that is there, which who may not even see it does not learn.
    fn permit_of<E: Entity>(&self, call: Call, project: Id<Project>, id: Id<E>) -> Result<()> {
        let target = call.resource.within(project);
        self.permit(call, Some(project)).map_err(|denied| {
            match authorize(self.caller.authority(), Action::Read, target) {
                Ok(()) => denied,
                Err(_) => Error::not_found("store.get", E::NAME, id),
            }
        })
    }

    /// That the caller may read the ticket that a run is for, if it is for one.
    async fn permit_ticket(&self, call: Call, run: &AgentRun) -> Result<()> {
        let Some(id) = run.ticket_id else { return Ok(()) };
        let ticket: Stored<Ticket> = Lookup::get(self.factory.storage(), self.caller.scope(), id).await?;
        let reading = Call { action: Action::Read, resource: Resource::Ticket, ..call };
        self.permit_of(reading, ticket.project_id, id)
    }

    /// A run about which the caller may do this.
    async fn permitted(&self, call: Call, run: Id<AgentRun>) -> Result<Stored<AgentRun>> {
        let found = self.factory.run(self.caller.scope(), run).await?;
        self.permit_of(call, found.project_id, run)?;
        Ok(found)
    }
}
