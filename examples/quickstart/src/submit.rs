//! From a wish to a run: a tenant, a project, a board, a ticket, and the run that works on it.

use assembly_lime::git::LocalRepos;
use assembly_lime::identity::{Slug, Tenant};
use assembly_lime::planning::{Board, Project, Ticket, Workflow};
use assembly_lime::ports::{BranchState, RepoProvider, Storage};
use assembly_lime::repos::Repository;
use assembly_lime::runs::{AgentMode, AgentRun, Constraints, ProviderId, RunStatus};
use assembly_lime::{Factory, LookupExt, Query, Result, Scope, Stored};

use crate::args::Args;
use crate::exit::Refusal;
use crate::ticket::Wish;

/// How many branches may be named after the same ticket.
const MAX_NAMESAKES: u32 = 100;
/// How much of the ticket's title is in the branch's name, in characters.
const NAME_CHARS: usize = 40;

/// The tenant that everything of this program belongs to, as its own actor.
///
/// - A server gets its scopes from whoever has logged in; here the person at the keyboard may do everything.
pub(crate) async fn scope(factory: &Factory) -> Result<Scope> {
    let slug = Slug::parse("quickstart").expect("the slug is a constant, and well formed");
    let storage = factory.storage();
    let tenant = match storage.tenant_by_slug(&slug).await? {
        Some(tenant) => tenant,
        None => storage.create_tenant(Tenant::new("Quickstart", slug)).await?,
    };
    Ok(Scope::system(tenant.id, "the person at the keyboard"))
}

/// Cancels what an earlier process left unfinished, so that it is not worked now.
pub(crate) async fn cancel_leftovers(factory: &Factory, scope: &Scope) -> Result<()> {
    for status in RunStatus::ALL.iter().filter(|status| !status.is_final()) {
        for run in factory.storage().all(scope, Query::all().filter(AgentRun::STATUS.eq(*status))).await? {
            factory.cancel(scope, run.id).await?;
        }
    }
    Ok(())
}

/// The branch that the work goes to, and what it starts from; nothing for the repository's default branch.
#[derive(Debug)]
pub(crate) struct Course {
    pub(crate) branch: String,
    pub(crate) base: Option<String>,
}

impl Course {
    /// The course that was asked for, else a fresh branch named after the ticket.
    pub(crate) async fn set(
        scope: &Scope,
        repository: &Repository,
        branch: Option<&str>,
        base: Option<&str>,
        title: &str,
    ) -> Result<Self, Refusal> {
        let repos = LocalRepos::new();
        let on = |branch: &str, base: Option<&str>| Self {
            branch: branch.to_owned(),
            base: base.map(str::to_owned),
        };
        let Some(branch) = branch else {
            for branch in names(title) {
                if repos.branch_state(scope, repository, &branch).await? == BranchState::Missing {
                    return Ok(on(&branch, base));
                }
            }
            return Err(Refusal::new("there are too many branches for this ticket; name one with --branch"));
        };
        match repos.branch_state(scope, repository, branch).await? {
            BranchState::Missing => Ok(on(branch, base)),
            // From anywhere else, what is on the branch would be lost.
            BranchState::At(_) if base.is_none() => Ok(on(branch, Some(branch))),
            BranchState::At(_) => Err(Refusal::new(format!(
                "the branch {branch} is there already; leave --base out to go on from where it is, or name another"
            ))),
            BranchState::CheckedOut { dirty, .. } => {
                let dirty = if dirty { ", with changes that are not committed" } else { "" };
                Err(Refusal::new(format!(
                    "the branch {branch} is checked out in {}{dirty}\n  Name another with --branch, or leave it out for \
                     a fresh one.",
                    repository.full_name
                )))
            }
        }
    }

    /// The same course, from this base unless it has one.
    pub(crate) fn usually_from(mut self, base: Option<&str>) -> Self {
        self.base = self.base.or_else(|| base.map(str::to_owned));
        self
    }
}

/// `lime/mend-the-parser`, `lime/mend-the-parser-2`, and so on.
fn names(title: &str) -> impl Iterator<Item = String> {
    let words = title.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let mut name = String::new();
    for word in words {
        if name.len() + word.len() > NAME_CHARS {
            break;
        }
        if !name.is_empty() {
            name.push('-');
        }
        name.push_str(&word.to_ascii_lowercase());
    }
    if name.is_empty() {
        name.push_str("ticket");
    }
    (1..=MAX_NAMESAKES)
        .map(move |number| if number == 1 { format!("lime/{name}") } else { format!("lime/{name}-{number}") })
}

/// Stores the ticket and submits a run for it.
pub(crate) async fn submit(
    factory: &Factory,
    scope: &Scope,
    repository: &Stored<Repository>,
    wish: Wish,
    course: Course,
    provider: ProviderId,
    args: &Args,
) -> Result<Stored<AgentRun>> {
    let storage = factory.storage();
    let project = project(storage, scope).await?;
    let board = board(storage, scope, &project).await?;
    let column = board.workflow.columns.first().cloned().unwrap_or_default();
    let ticket = Ticket {
        description_md: wish.description,
        repository_id: Some(repository.id),
        ..Ticket::new(project.id, board.id, column, wish.title)
    };
    let ticket = storage.insert(scope, ticket).await?;
    let run = AgentRun {
        ticket_id: Some(ticket.id),
        model: args.model.clone(),
        base_ref: course.base,
        branch: Some(course.branch),
        constraints: Constraints {
            time_budget_sec: args.time_limit,
            max_cost_cents: args.max_cost_cents,
            max_turns: args.max_turns,
            ..Constraints::default()
        },
        ..AgentRun::new(project.id, provider, AgentMode::Implement, wish.prompt)
    };
    match factory.submit(scope, run).await {
        Ok(run) => Ok(run),
        Err(error) => {
            storage.delete(scope, &ticket).await?;
            Err(error)
        }
    }
}

async fn project(storage: &dyn Storage, scope: &Scope) -> Result<Stored<Project>> {
    let project = Project::new("Quickstart", "QS");
    let known = Query::all().filter(Project::KEY.eq(project.key.clone()));
    match storage.find(scope, known).await? {
        Some(project) => Ok(project),
        None => storage.insert(scope, project).await,
    }
}

async fn board(storage: &dyn Storage, scope: &Scope, project: &Stored<Project>) -> Result<Stored<Board>> {
    let known = Query::all().filter(Board::PROJECT_ID.eq(project.id));
    match storage.find(scope, known).await? {
        Some(board) => Ok(board),
        None => {
            let board =
                Board { project_id: project.id, name: "Delivery".into(), workflow: Workflow::delivery() };
            storage.insert(scope, board).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_is_named_after_its_ticket() {
        let first = |title| names(title).next().unwrap();
        assert_eq!(first("Mend the parser: it's slow!"), "lime/mend-the-parser-it-s-slow");
        assert_eq!(first("日本語"), "lime/ticket");
        assert!(first(&"word ".repeat(50)).len() <= "lime/".len() + NAME_CHARS);
        assert_eq!(names("a").nth(1).unwrap(), "lime/a-2");
    }
}
