//! One run, from the wish to the commit.

use std::path::{Path, PathBuf};
use std::time::Duration;

use assembly_lime::git::LocalRepos;
use assembly_lime::ports::RepoProvider;
use assembly_lime::replay::Recording;
use assembly_lime::repos::{RepoKind, Worktree, WorktreeStatus};
use assembly_lime::runs::{AgentRun, RunStatus};
use assembly_lime::{Factory, LookupExt, Query, Result, RunningWorker, Scope, Stored};
use futures_util::StreamExt;
use tokio::time::{Instant, sleep};

use crate::agent::{Agent, Chosen};
use crate::args::Args;
use crate::assemble::{self, Database};
use crate::demo;
use crate::exit::{Exit, Refusal};
use crate::interrupts::Interrupts;
use crate::place::Place;
use crate::show::text::{tilde, time};
use crate::show::{End, Show};
use crate::submit::{self, Course};
use crate::ticket::Wish;

/// How long the worker may take to put its tools away, once the run has ended.
const GRACE: Duration = Duration::from_secs(1);
/// How long a cancelled run may take to end: an agent has 2 s to go, the rest is git and the database.
const CANCEL_PATIENCE: Duration = Duration::from_secs(10);

/// Does the whole job: from the arguments to the commit, and puts everything away.
pub(crate) async fn work(
    args: &Args,
    place: &Place,
    show: &mut dyn Show,
    interrupts: &Interrupts,
) -> Result<Exit, Refusal> {
    let (wish, agent, database) = tokio::select! {
        prepared = prepare(args, place, show) => prepared?,
        () = interrupts.reach(1) => return Ok(Exit::Interrupted),
    };
    let exit = match Job::begin(args, place, show, wish, agent, &database).await {
        Ok(job) => Ok(job.finish(show, interrupts).await),
        Err(refusal) => Err(refusal),
    };
    if let Err(error) = database.close().await {
        show.note(&format!("warning: {error}"));
    }
    exit
}

/// Refuses what can be refused before anything is made, then opens the database.
async fn prepare(
    args: &Args,
    place: &Place,
    show: &mut dyn Show,
) -> Result<(Wish, Agent, Database), Refusal> {
    let recording = match &args.recording {
        Some(file) => Recording::load(file)?,
        None => Recording::parse(demo::RECORDING)?,
    };
    let wish = Wish::of(args, &recording).await?;
    if let Some(location) = &args.repo {
        LocalRepos::new().describe(location).await?;
    }
    show.fact("ticket", &wish.title);
    show.waiting("looking for an agent");
    let Chosen { agent, why } = Chosen::by(args, place, recording, &wish).await?;
    show.fact("agent", &why);

    show.waiting("starting the database");
    let since = Instant::now();
    let database = match &args.database_url {
        Some(url) => Database::server(url).await?,
        None => {
            place.make()?;
            Database::embedded(&place.database()).await?
        }
    };
    show.fact("database", &format!("{} ({})", database.name, time(since.elapsed())));
    Ok((wish, agent, database))
}

/// A run that was submitted, and the worker that works it.
struct Job {
    factory: Factory,
    scope: Scope,
    run: Stored<AgentRun>,
    worker: RunningWorker,
    since: Instant,
    repository: String,
    database: String,
    next: Option<&'static str>,
}

impl Job {
    /// Puts the factory together and submits the run; what is refused here is refused before its ticket is stored.
    async fn begin(
        args: &Args,
        place: &Place,
        show: &mut dyn Show,
        wish: Wish,
        agent: Agent,
        database: &Database,
    ) -> Result<Self, Refusal> {
        show.waiting("looking at the repository");
        place.make()?;
        let provider = agent.id();
        let is_the_demo = agent.is_recorded() && args.repo.is_none() && args.recording.is_none();
        let factory = assemble::factory(database, agent, place)?;
        let scope = submit::scope(&factory).await?;
        if database.is_private() {
            submit::cancel_leftovers(&factory, &scope).await?;
        }
        let (location, usual_base) = match &args.repo {
            Some(location) => (location.clone(), None),
            None => (demo::create(place).await?, Some(demo::START)),
        };
        let repository = factory.connect_repository(&scope, RepoKind::Local, &location).await?;
        show.fact("repository", &tilde(Path::new(&repository.clone_url)));
        let (branch, base) = (args.branch.as_deref(), args.base.as_deref());
        let course =
            Course::set(&scope, &repository, branch, base, &wish.title).await?.usually_from(usual_base);
        let base = course.base.as_deref().unwrap_or(&repository.default_branch);
        show.fact("branch", &format!("{}, from {base}", course.branch));
        let run = submit::submit(&factory, &scope, &repository, wish, course, provider, args).await?;
        show.waiting("making a checkout");
        Ok(Self {
            worker: assemble::worker(&factory, args.keep)?,
            factory,
            scope,
            run,
            since: Instant::now(),
            repository: repository.value.clone_url,
            database: database.name.clone(),
            next: is_the_demo.then_some(NEXT),
        })
    }

    /// Shows the run to its end, and stops the worker.
    async fn finish(self, show: &mut dyn Show, interrupts: &Interrupts) -> Exit {
        let exit = match self.follow(show, interrupts).await {
            Ok(end) => {
                show.end(&end);
                if end.run.status == RunStatus::Succeeded { Exit::Done } else { Exit::NotDone }
            }
            Err(error) => {
                show.note(&format!("error: {}", Refusal::from(error)));
                Exit::NotDone
            }
        };
        if let Err(error) = self.worker.stop(GRACE).await {
            show.note(&format!("warning: {error}"));
        }
        exit
    }

    /// Shows every event until the run has ended; the first interrupt cancels it, and what comes meanwhile is shown.
    async fn follow(&self, show: &mut dyn Show, interrupts: &Interrupts) -> Result<End> {
        let mut events = self.factory.watch(&self.scope, self.run.id, 0);
        let cancelled = async {
            interrupts.reach(1).await;
            self.factory.cancel(&self.scope, self.run.id).await?;
            sleep(CANCEL_PATIENCE).await;
            Ok(())
        };
        tokio::pin!(cancelled);
        let mut told = false;
        loop {
            tokio::select! {
                live = events.next() => match live {
                    Some(live) => show.event(live?),
                    None => return self.end().await,
                },
                () = interrupts.reach(1), if !told => {
                    told = true;
                    show.note("Cancelling; once more ends this at once.");
                }
                waited = &mut cancelled => {
                    waited?;
                    show.note("The run does not end; the agent is killed.");
                    drop(events);
                    return self.end().await;
                }
            }
        }
    }

    async fn end(&self) -> Result<End> {
        let run = self.factory.run(&self.scope, self.run.id).await?;
        Ok(End {
            diff: self.factory.diff(&self.scope, run.id).await?,
            took: self.since.elapsed(),
            repository: self.repository.clone(),
            checkout: self.kept_checkout().await?,
            database: self.database.clone(),
            next: self.next,
            run,
        })
    }

    async fn kept_checkout(&self) -> Result<Option<PathBuf>> {
        let kept = Query::all()
            .filter(Worktree::AGENT_RUN_ID.eq(self.run.id))
            .filter(Worktree::STATUS.eq(WorktreeStatus::Active))
            .newest_first();
        let kept: Option<Stored<Worktree>> = self.factory.storage().find(&self.scope, kept).await?;
        Ok(kept.map(|kept| PathBuf::from(&kept.path)))
    }
}

/// What to try after the demo: one's own repository, and an agent.
const NEXT: &str = "cargo run -p quickstart -- --repo PATH --prompt \"…\"";
