//! A repository and its checkouts, made up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use lime_core::ports::{
    Author, BranchState, Changes, CommitId, CommittedFiles, FilesWanted, RepoAccess, RepoDescription,
    RepoProvider, Workspace, WorkspaceSpec, Workspaces,
};
use lime_core::repos::{DiffStats, RepoKind, Repository};
use lime_core::runs::AgentRun;
use lime_core::{Error, ErrorKind, Id, Result, Scope};
use tokio::sync::Notify;

/// A repository, and checkouts on a disk; clones share it.
#[derive(Clone, Default)]
pub struct Ground(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    branches: BTreeMap<String, CommitId>,
    checkouts: BTreeMap<PathBuf, Checkout>,
    pushes: Vec<(String, CommitId)>,
    adopted: usize,
    edits: usize,
    publishing: Option<Gate>,
    published: Option<Gate>,
    faults: Vec<Error>,
    files: CommittedFiles,
    read: usize,
    unread: Option<Error>,
}

struct Checkout {
    run: Id<AgentRun>,
    edits: Vec<usize>,
}

/// A place where a test stops whoever comes by.
#[derive(Clone, Default)]
pub struct Gate {
    pub reached: Arc<Notify>,
    pub open: Arc<Notify>,
}

impl Gate {
    async fn pass(gate: Option<Self>) {
        if let Some(gate) = gate {
            gate.reached.notify_one();
            gate.open.notified().await;
        }
    }
}

impl Ground {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// An agent changes a file.
    pub fn write(&self, path: &Path) {
        let mut state = self.lock();
        state.edits += 1;
        let edit = state.edits;
        state.checkouts.get_mut(path).expect("an agent works in a checkout").edits.push(edit);
    }

    /// Somebody else moves a branch.
    pub fn set_branch(&self, branch: &str, commit: &str) {
        self.lock().branches.insert(branch.into(), commit.into());
    }

    pub fn branch(&self, branch: &str) -> Option<CommitId> {
        self.lock().branches.get(branch).cloned()
    }

    /// What was pushed, in order.
    pub fn pushes(&self) -> Vec<(String, CommitId)> {
        self.lock().pushes.clone()
    }

    /// The checkouts that are on the disk.
    pub fn kept(&self) -> Vec<PathBuf> {
        self.lock().checkouts.keys().cloned().collect()
    }

    /// How often a checkout was taken over.
    pub fn adopted(&self) -> usize {
        self.lock().adopted
    }

    /// Stops whoever is about to push.
    pub fn stop_before_push(&self) -> Gate {
        self.lock().publishing.insert(Gate::default()).clone()
    }

    /// Stops whoever has just pushed.
    pub fn stop_after_push(&self) -> Gate {
        self.lock().published.insert(Gate::default()).clone()
    }

    /// What every commit has of the files that are asked for.
    pub fn commit_files(&self, files: CommittedFiles) {
        self.lock().files = files;
    }

    /// How often the files of a commit were read.
    pub fn read(&self) -> usize {
        self.lock().read
    }

    /// The next reading of a commit fails so.
    pub fn fail_read(&self, error: Error) {
        self.lock().unread = Some(error);
    }

    /// The next pushes fail so, and bring nothing.
    pub fn fail_push(&self, error: Error) {
        self.lock().faults.push(error);
    }
}

#[async_trait]
impl Workspaces for Ground {
    async fn prepare(&self, spec: &WorkspaceSpec) -> Result<Workspace> {
        let mut state = self.lock();
        let own = PathBuf::from(format!("/checkouts/{}", spec.attempt));
        let free = spec.place.clone().filter(|place| !state.checkouts.contains_key(place));
        let path = free.unwrap_or(own);
        if spec.base != "main" && !state.branches.contains_key(&spec.base) {
            return Err(Error::new(ErrorKind::NotFound, "git.resolve", "the base is not there"));
        }
        state.checkouts.insert(path.clone(), Checkout { run: spec.run, edits: Vec::new() });
        Ok(Workspace {
            git_dir: path.with_extension("git"),
            path,
            branch: spec.branch.clone(),
            base: spec.base.clone(),
            base_commit: state.branches.get(&spec.base).cloned().unwrap_or("b".repeat(40)),
            branch_was: state.branches.get(&spec.branch).cloned(),
        })
    }

    async fn adopt(&self, spec: &WorkspaceSpec, earlier: &Workspace) -> Result<Option<Workspace>> {
        let mut state = self.lock();
        let ours = state.checkouts.get(&earlier.path).is_some_and(|checkout| checkout.run == spec.run);
        state.adopted += usize::from(ours);
        Ok(ours.then(|| earlier.clone()))
    }

    async fn committed_files(&self, _: &Workspace, _: &FilesWanted) -> Result<CommittedFiles> {
        let mut state = self.lock();
        state.read += 1;
        if let Some(error) = state.unread.take() {
            return Err(error);
        }
        Ok(state.files.clone())
    }

    async fn changes(&self, workspace: &Workspace) -> Result<Changes> {
        let state = self.lock();
        let edits = &state.checkouts.get(&workspace.path).expect("there is a checkout").edits;
        let paths: Vec<_> = edits.iter().map(|edit| format!("src/{edit}.rs")).collect();
        let count = u32::try_from(paths.len()).unwrap();
        Ok(Changes {
            unified_diff: paths.iter().map(|path| format!("diff --git a/{path} b/{path}\n")).collect(),
            stats: DiffStats { files_changed: count, insertions: 2 * count, deletions: count },
            paths,
        })
    }

    async fn commit(&self, workspace: &Workspace, _: &str, _: &Author) -> Result<Option<CommitId>> {
        let state = self.lock();
        let edits = &state.checkouts[&workspace.path].edits;
        // The same work is the same commit.
        Ok((!edits.is_empty())
            .then(|| format!("{:0>40}", edits.iter().map(ToString::to_string).collect::<String>())))
    }

    async fn publish(&self, workspace: &Workspace, _: &RepoAccess, commit: &CommitId) -> Result<()> {
        let gate = self.lock().publishing.take();
        Gate::pass(gate).await;
        {
            let mut state = self.lock();
            if let Some(fault) = state.faults.pop() {
                return Err(fault);
            }
            let there = state.branches.get(&workspace.branch);
            if there != workspace.branch_was.as_ref() && there != Some(commit) {
                return Err(Error::new(ErrorKind::Conflict, "git.push", "the branch has moved"));
            }
            state.branches.insert(workspace.branch.clone(), commit.clone());
            state.pushes.push((workspace.branch.clone(), commit.clone()));
        }
        let gate = self.lock().published.take();
        Gate::pass(gate).await;
        Ok(())
    }

    async fn remove(&self, workspace: &Workspace) -> Result<()> {
        self.lock().checkouts.remove(&workspace.path);
        Ok(())
    }
}

#[async_trait]
impl RepoProvider for Ground {
    fn kind(&self) -> RepoKind {
        RepoKind::Local
    }

    async fn describe(&self, _: &str) -> Result<RepoDescription> {
        Err(Error::new(ErrorKind::NotFound, "repos.describe", "there is nothing there"))
    }

    async fn access(&self, _: &Scope, repository: &Repository) -> Result<RepoAccess> {
        Ok(RepoAccess { url: repository.clone_url.clone(), token: None })
    }

    async fn branch_state(&self, _: &Scope, _: &Repository, branch: &str) -> Result<BranchState> {
        Ok(self.branch(branch).map_or(BranchState::Missing, BranchState::At))
    }
}
