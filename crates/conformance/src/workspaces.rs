//! The behaviour of [`Workspaces`].
//!
//! - Each test makes a repository of its own by the fixture, so all may share one adapter, and run at once but for
//!   [`a_failed_prepare_leaves_nothing_behind`], which counts what is there.

mod checkouts;
mod delivery;
mod takeover;

pub use checkouts::{
    a_failed_prepare_leaves_nothing_behind, an_agent_can_use_git_in_its_checkout,
    attempts_do_not_share_a_checkout, changes_are_empty_if_nothing_has_changed,
    changes_are_those_since_the_base_with_new_files, changes_commit_nothing, changes_leave_ignored_files_out,
    committed_files_are_those_of_the_commit, committed_files_leave_out_what_cannot_be_told,
    committed_files_may_be_none, nothing_is_written_to_the_repository_before_publish,
    prepare_checks_out_the_base_on_a_fresh_branch, prepare_says_where_the_branch_was,
    prepare_sees_the_repository_as_it_is_now, prepare_starts_from_a_branch_a_tag_or_a_commit,
    remove_of_what_is_gone_is_no_error, remove_takes_the_checkout_from_the_disk,
};
pub use delivery::{
    commit_is_by_the_author_on_the_base, commit_is_none_if_nothing_has_changed,
    commit_keeps_the_commits_of_the_agent_below_it, commit_lets_nothing_of_the_checkout_have_a_say,
    publish_creates_the_branch_and_nothing_else, publish_leaves_a_branch_that_has_moved_meanwhile,
    publish_leaves_a_branch_that_was_made_meanwhile, publish_moves_the_branch_from_where_it_was,
    publish_of_the_same_commit_again_changes_nothing,
};
pub use takeover::{
    adopt_is_none_for_what_cannot_be_taken_over, adopt_leaves_the_repository_alone,
    adopt_takes_over_the_checkout_with_its_work, prepare_uses_no_place_of_somebody_else,
    prepare_uses_the_place_of_an_earlier_checkout,
};

use std::sync::atomic::{AtomicI64, Ordering};

use lime_core::Id;
use lime_core::ports::{Author, CommitId, RepoAccess, Workspace, WorkspaceSpec, Workspaces};
use lime_core::repos::Repository;

/// Sets the scene for the tests of an adapter: repositories, and what agents and other people do.
pub trait Fixture: Sync {
    /// What is tested.
    fn workspaces(&self) -> &dyn Workspaces;

    /// A new repository with one commit with these files, by path and content, on `main`.
    fn origin(&self, files: &[(&str, &str)]) -> impl Future<Output = Origin> + Send;

    /// Somebody else commits a file to a branch of the repository, which is made from `main` if it is missing.
    fn push(
        &self,
        origin: &Origin,
        branch: &str,
        path: &str,
        content: &str,
    ) -> impl Future<Output = CommitId> + Send;

    /// Somebody else makes a tag, with a message of its own, in the repository.
    fn tag(&self, origin: &Origin, name: &str, commit: &CommitId) -> impl Future<Output = ()> + Send;

    /// The commits of a branch of the repository, the newest first; empty if there is no such branch.
    fn log(&self, origin: &Origin, branch: &str) -> impl Future<Output = Vec<Commit>> + Send;

    /// A file on a branch of the repository.
    fn file(&self, origin: &Origin, branch: &str, path: &str) -> impl Future<Output = Option<String>> + Send;

    /// All that can be seen of the repository, its working tree included, so that any change shows.
    fn state(&self, origin: &Origin) -> impl Future<Output = String> + Send;

    /// The agent writes a file of its checkout, or removes it.
    fn write(
        &self,
        workspace: &Workspace,
        path: &str,
        content: Option<&str>,
    ) -> impl Future<Output = ()> + Send;

    /// A file of the checkout.
    fn read(&self, workspace: &Workspace, path: &str) -> impl Future<Output = Option<String>> + Send;

    /// The agent runs git in its checkout, which must succeed; what it printed.
    fn git(&self, workspace: &Workspace, args: &[&str]) -> impl Future<Output = String> + Send;

    /// Takes away a part of what the adapter keeps of a checkout, as a removal that broke off does.
    fn damage(&self, workspace: &Workspace) -> impl Future<Output = ()> + Send;

    /// The names of all that the adapter keeps of checkouts now.
    fn kept(&self) -> impl Future<Output = Vec<String>> + Send;
}

/// A repository that a fixture made.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Its id, another for each.
    pub repository: Id<Repository>,
    /// How git gets to it.
    pub access: RepoAccess,
}

/// A commit, as a fixture found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its name.
    pub id: CommitId,
    /// Whom it is by, as `name <address>`.
    pub author: String,
    /// Who made it, as `name <address>`.
    pub committer: String,
    /// Its whole message, without blanks around it.
    pub message: String,
}

/// Runs every test, one after the other.
pub async fn run<F: Fixture>(fixture: &F) {
    prepare_checks_out_the_base_on_a_fresh_branch(fixture).await;
    prepare_starts_from_a_branch_a_tag_or_a_commit(fixture).await;
    prepare_sees_the_repository_as_it_is_now(fixture).await;
    prepare_says_where_the_branch_was(fixture).await;
    attempts_do_not_share_a_checkout(fixture).await;
    nothing_is_written_to_the_repository_before_publish(fixture).await;
    a_failed_prepare_leaves_nothing_behind(fixture).await;
    an_agent_can_use_git_in_its_checkout(fixture).await;
    committed_files_are_those_of_the_commit(fixture).await;
    committed_files_leave_out_what_cannot_be_told(fixture).await;
    committed_files_may_be_none(fixture).await;
    changes_are_those_since_the_base_with_new_files(fixture).await;
    changes_leave_ignored_files_out(fixture).await;
    changes_are_empty_if_nothing_has_changed(fixture).await;
    changes_commit_nothing(fixture).await;
    commit_is_by_the_author_on_the_base(fixture).await;
    commit_is_none_if_nothing_has_changed(fixture).await;
    commit_lets_nothing_of_the_checkout_have_a_say(fixture).await;
    commit_keeps_the_commits_of_the_agent_below_it(fixture).await;
    publish_creates_the_branch_and_nothing_else(fixture).await;
    publish_moves_the_branch_from_where_it_was(fixture).await;
    publish_leaves_a_branch_that_has_moved_meanwhile(fixture).await;
    publish_leaves_a_branch_that_was_made_meanwhile(fixture).await;
    publish_of_the_same_commit_again_changes_nothing(fixture).await;
    remove_takes_the_checkout_from_the_disk(fixture).await;
    remove_of_what_is_gone_is_no_error(fixture).await;
    adopt_takes_over_the_checkout_with_its_work(fixture).await;
    adopt_leaves_the_repository_alone(fixture).await;
    adopt_is_none_for_what_cannot_be_taken_over(fixture).await;
    prepare_uses_the_place_of_an_earlier_checkout(fixture).await;
    prepare_uses_no_place_of_somebody_else(fixture).await;
}

/// A spec for a new attempt on a repository.
fn spec(origin: &Origin, base: &str, branch: &str) -> WorkspaceSpec {
    static NEXT: AtomicI64 = AtomicI64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    WorkspaceSpec {
        tenant: Id::new(1),
        run: Id::new(number),
        attempt: Id::new(number),
        repository: origin.repository,
        access: origin.access.clone(),
        base: base.to_owned(),
        branch: branch.to_owned(),
        place: None,
    }
}

async fn prepared<F: Fixture>(fixture: &F, origin: &Origin, branch: &str) -> Workspace {
    fixture.workspaces().prepare(&spec(origin, "main", branch)).await.unwrap()
}

async fn head<F: Fixture>(fixture: &F, origin: &Origin, branch: &str) -> Option<CommitId> {
    fixture.log(origin, branch).await.into_iter().next().map(|commit| commit.id)
}

async fn commit<F: Fixture>(fixture: &F, workspace: &Workspace, message: &str) -> Option<CommitId> {
    fixture.workspaces().commit(workspace, message, &author()).await.unwrap()
}

fn author() -> Author {
    Author { name: "Lime Ünit".into(), email: "lime@example.com".into() }
}
