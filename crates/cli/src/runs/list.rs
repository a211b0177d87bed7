use std::cmp::Reverse;
use std::collections::HashMap;

use lime_core::planning::Project;
use lime_core::runs::{AgentRun, RunStatus, StopReason};
use lime_core::{Id, Lookup, LookupExt, Query};
use serde::Serialize;

use crate::args::PageArgs;
use crate::desk::Desk;
use crate::exit::Failure;
use crate::out::{Table, say};
use crate::text::{ago, first_line, or_dash};
use crate::view::RunView;
use crate::whose::Whose;

/// How many columns of a prompt are shown.
const PROMPT: usize = 60;

/// The newest runs of some kind.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) status: Vec<RunStatus>,
    pub(crate) project: Option<String>,
    /// Only those that lost worker after worker.
    pub(crate) dead: bool,
    pub(crate) page: PageArgs,
}

#[derive(Debug, Serialize)]
struct Document {
    runs: Vec<RunView>,
    next: Option<Id<AgentRun>>,
}

impl Listing {
    pub(crate) async fn show(self, desk: &Desk) -> Result<(), Failure> {
        if self.project.is_some() && self.page.all_tenants {
            return Err(Failure::usage(
                "a project belongs to one tenant: leave --project or --all-tenants out",
            ));
        }
        let tenants = Whose::list(&desk.storage, desk.tenant.as_ref(), self.page.all_tenants).await?;
        let limit = usize::try_from(self.page.limit).unwrap_or(usize::MAX);
        let (mut runs, mut more) = (Vec::new(), false);
        for whose in &tenants {
            let (mut found, cut) = self.of(desk, whose, limit).await?;
            runs.append(&mut found);
            runs.sort_by_key(|run| Reverse(run.id));
            more |= cut || runs.len() > limit;
            runs.truncate(limit);
        }
        let next = if more { runs.last().map(|run| run.id) } else { None };
        let document = Document { runs, next };
        desk.out.answer(&document, || document.table())?;
        if !desk.out.json {
            match document.next {
                Some(after) => say(&format!("There are more: repeat the command with --after {after}.")),
                None if document.runs.is_empty() => say("There are none."),
                None => {}
            }
        }
        Ok(())
    }

    /// The newest of a tenant, and whether there are more of them.
    async fn of(&self, desk: &Desk, whose: &Whose, limit: usize) -> Result<(Vec<RunView>, bool), Failure> {
        let storage = &desk.storage;
        let mut query = Query::all().newest_first().limit(limit);
        if self.dead {
            query = query
                .filter(AgentRun::STATUS.eq(RunStatus::Failed))
                .filter(AgentRun::STOP_REASON.eq(StopReason::WorkerLost));
        }
        if !self.status.is_empty() {
            query = query.filter(AgentRun::STATUS.any_of(self.status.iter().copied()));
        }
        if let Some(project) = &self.project {
            query = query.filter(AgentRun::PROJECT_ID.eq(find_project(desk, whose, project).await?));
        }
        if let Some(after) = self.page.after {
            query = query.after(after);
        }
        let page = storage.list(&whose.scope, &query).await?;
        let mut keys = ProjectKeys::default();
        let mut views = Vec::with_capacity(page.items.len());
        for run in page.items {
            let key = keys.of(desk, whose, run.project_id).await?;
            views.push(RunView::of(&whose.slug, &key, run));
        }
        Ok((views, page.next.is_some()))
    }
}

impl Document {
    fn table(&self) -> String {
        let names = [
            "ID", "TENANT", "PROJECT", "STATUS", "REASON", "PROVIDER", "MODE", "TRIES", "LOST", "AGE",
            "PROMPT",
        ];
        let mut table = Table::new(names);
        for run in &self.runs {
            table.row([
                run.id.to_string(),
                run.tenant.clone(),
                run.project.clone(),
                run.status.to_string(),
                or_dash(run.stop_reason),
                run.provider.to_string(),
                run.mode.to_string(),
                run.attempts.to_string(),
                run.crashes.to_string(),
                ago(run.created_at),
                first_line(&run.prompt, PROMPT),
            ]);
        }
        table.text()
    }
}

/// The project of this key or id.
pub(crate) async fn find_project(desk: &Desk, whose: &Whose, name: &str) -> Result<Id<Project>, Failure> {
    if let Ok(id) = name.parse::<Id<Project>>() {
        return Ok(Lookup::get(&desk.storage, &whose.scope, id).await?.id);
    }
    let found = desk.storage.find(&whose.scope, Query::all().filter(Project::KEY.eq(name))).await?;
    match found {
        Some(project) => Ok(project.id),
        None => Err(Failure::not_found(format!(
            "the tenant {} has no project with the key or id {name}",
            whose.slug.as_str()
        ))),
    }
}

/// The keys of projects, each asked for once.
#[derive(Debug, Default)]
pub(crate) struct ProjectKeys(HashMap<Id<Project>, String>);

impl ProjectKeys {
    pub(crate) async fn of(
        &mut self,
        desk: &Desk,
        whose: &Whose,
        id: Id<Project>,
    ) -> Result<String, Failure> {
        if let Some(key) = self.0.get(&id) {
            return Ok(key.clone());
        }
        let project = Lookup::get(&desk.storage, &whose.scope, id).await?;
        self.0.insert(id, project.value.key.clone());
        Ok(project.value.key)
    }
}
