use crate::agents::{CustomInstruction, DefaultInstruction};
use crate::governance::{
    Approval, ApprovalPolicy, Budget, BudgetEntry, DefaultTools, EnvVar, EnvVarSet, SealedStore, TenantKey,
};
use crate::identity::{ApiKey, Role, Tenants, User, UserRole};
use crate::planning::{Board, Project, Ticket};
use crate::ports::{ApiKeys, Approvals, Budgets, EventLog, Identities, InstructionSource, Queue};
use crate::repos::{CodeDiff, Repository, RepositoryConfig, Worktree};
use crate::runs::{AgentRun, Effect, RunAttempt, RunInput, RunStep, ToolCall};
use crate::{Lookup, Store};

/// Everything that is stored, in one place: what the engine asks of a database.
///
/// - Whoever implements the parts has it.
/// - Several of them have a `get`: say which by the id, as in `Lookup::get(&*storage, &scope, ticket_id)`.
pub trait Storage:
    Tenants
    + Queue
    + EventLog
    + Approvals
    + ApiKeys
    + Identities
    + Budgets
    + InstructionSource
    + Store<User>
    + Store<Role>
    + Store<UserRole>
    + Lookup<ApiKey>
    + Store<Project>
    + Store<Board>
    + Store<Ticket>
    + Store<Repository>
    + Store<Worktree>
    + Store<CodeDiff>
    + Store<RunStep>
    + Store<ToolCall>
    + Store<Effect>
    + Store<RunInput>
    + Store<ApprovalPolicy>
    + Store<TenantKey>
    + Store<EnvVarSet>
    + SealedStore<EnvVar>
    + Store<Budget>
    + Lookup<BudgetEntry>
    + Store<CustomInstruction>
    + Store<DefaultInstruction>
    + Store<DefaultTools>
    + Store<RepositoryConfig>
    + Lookup<Approval>
    + Lookup<AgentRun>
    + Lookup<RunAttempt>
{
}

impl<T> Storage for T where
    T: Tenants
        + Queue
        + EventLog
        + Approvals
        + ApiKeys
        + Identities
        + Budgets
        + InstructionSource
        + Store<User>
        + Store<Role>
        + Store<UserRole>
        + Lookup<ApiKey>
        + Store<Project>
        + Store<Board>
        + Store<Ticket>
        + Store<Repository>
        + Store<Worktree>
        + Store<CodeDiff>
        + Store<RunStep>
        + Store<ToolCall>
        + Store<Effect>
        + Store<RunInput>
        + Store<ApprovalPolicy>
        + Store<TenantKey>
        + Store<EnvVarSet>
        + SealedStore<EnvVar>
        + Store<Budget>
        + Lookup<BudgetEntry>
        + Store<CustomInstruction>
        + Store<DefaultInstruction>
        + Store<DefaultTools>
        + Store<RepositoryConfig>
        + Lookup<Approval>
        + Lookup<AgentRun>
        + Lookup<RunAttempt>
{
}
