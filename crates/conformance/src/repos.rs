//! The behaviour of [`RepoProvider`].

use lime_core::identity::Tenant;
use lime_core::ports::{BranchState, CommitId, RepoAccess, RepoProvider};
use lime_core::repos::Repository;
use lime_core::{Entity, ErrorKind, Id, Scope};

/// Sets the scene for the tests of an adapter: repositories at the host.
pub trait Fixture: Sync {
    /// What is tested.
    fn repos(&self) -> &dyn RepoProvider;

    /// The location of a new repository with one commit, on this branch, which nobody has checked out.
    fn repository(&self, branch: &str) -> impl Future<Output = String> + Send;

    /// The location of a new repository without a commit.
    fn empty(&self) -> impl Future<Output = String> + Send;

    /// A location at which there is nothing.
    fn nothing(&self) -> impl Future<Output = String> + Send;

    /// A location at which there is something else; `None` where a host holds nothing but repositories.
    fn something_else(&self) -> impl Future<Output = Option<String>> + Send;

    /// Makes a branch at the newest commit of a repository; gives back the commit.
    fn branch(&self, location: &str, branch: &str) -> impl Future<Output = CommitId> + Send;

    /// Checks a branch out in a working tree of a repository, in which a file is then changed if `dirty`; `false`
    /// where a host has no working trees.
    fn check_out(&self, location: &str, branch: &str, dirty: bool) -> impl Future<Output = bool> + Send;

    /// Whether git can read from there, given the token by a helper.
    fn reads(&self, access: &RepoAccess) -> impl Future<Output = bool> + Send;
}

/// Runs every test, one after the other.
pub async fn run<F: Fixture>(fixture: &F) {
    describe_tells_what_a_repository_needs(fixture).await;
    describe_gives_each_repository_a_name_of_its_own(fixture).await;
    describe_fails_with_not_found_where_there_is_nothing(fixture).await;
    describe_refuses_what_is_not_a_repository(fixture).await;
    describe_refuses_a_repository_without_a_commit(fixture).await;
    describe_refuses_what_git_would_run(fixture).await;
    access_reaches_the_repository_without_credentials_in_its_url(fixture).await;
    branch_state_knows_missing_and_present_branches(fixture).await;
    branch_state_knows_a_branch_that_is_checked_out(fixture).await;
    branch_state_refuses_what_is_not_a_branch_name(fixture).await;
}

fn scope() -> Scope {
    Scope::system(Id::<Tenant>::new(1), "conformance")
}

async fn described<F: Fixture>(fixture: &F, location: &str) -> Repository {
    let repos = fixture.repos();
    repos.describe(location).await.unwrap().into_repository(repos.kind())
}

/// `describe`: owner, name, clone URL and default branch, all fit to be stored.
pub async fn describe_tells_what_a_repository_needs<F: Fixture>(fixture: &F) {
    let location = fixture.repository("trunk").await;
    let repository = described(fixture, &location).await;
    assert_eq!(repository.default_branch, "trunk");
    assert!(!repository.owner.is_empty() && !repository.name.is_empty());
    repository.validate().unwrap();
    assert_eq!(described(fixture, &location).await, repository, "it says something else the second time");
}

/// `RepoDescription::full_name`: the name that is unique for this kind of host.
pub async fn describe_gives_each_repository_a_name_of_its_own<F: Fixture>(fixture: &F) {
    let (one, two) = (fixture.repository("main").await, fixture.repository("main").await);
    let (one, two) = (described(fixture, &one).await, described(fixture, &two).await);
    assert_ne!(one.full_name, two.full_name);
    assert_ne!(one.clone_url, two.clone_url);
}

/// `describe`: fails with `NotFound` if there is nothing.
pub async fn describe_fails_with_not_found_where_there_is_nothing<F: Fixture>(fixture: &F) {
    let location = fixture.nothing().await;
    let error = fixture.repos().describe(&location).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

/// `describe`: fails with `Invalid` if it is not a repository.
pub async fn describe_refuses_what_is_not_a_repository<F: Fixture>(fixture: &F) {
    let Some(location) = fixture.something_else().await else { return };
    let error = fixture.repos().describe(&location).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

/// `describe`: fails with `Invalid` if it has no commit yet.
pub async fn describe_refuses_a_repository_without_a_commit<F: Fixture>(fixture: &F) {
    let location = fixture.empty().await;
    let error = fixture.repos().describe(&location).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

/// `describe`: a location that git would take for an option or a helper is refused, and nothing is run.
pub async fn describe_refuses_what_git_would_run<F: Fixture>(fixture: &F) {
    for location in ["--upload-pack=touch /nowhere", "ext::sh -c id", "", "ssh://-oProxyCommand=id/x"] {
        let error = fixture.repos().describe(location).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{location:?}: {error}");
    }
}

/// `access`: how git gets to a repository now; the URL is without credentials.
pub async fn access_reaches_the_repository_without_credentials_in_its_url<F: Fixture>(fixture: &F) {
    let location = fixture.repository("main").await;
    let repository = described(fixture, &location).await;
    let access = fixture.repos().access(&scope(), &repository).await.unwrap();
    assert!(fixture.reads(&access).await, "git cannot read from {}", access.url);
    Repository { clone_url: access.url, ..repository }.validate().unwrap();
}

/// `branch_state`: `Missing` if there is none of that name, else at its commit.
pub async fn branch_state_knows_missing_and_present_branches<F: Fixture>(fixture: &F) {
    let location = fixture.repository("main").await;
    let repository = described(fixture, &location).await;
    let state = async |branch| fixture.repos().branch_state(&scope(), &repository, branch).await.unwrap();
    assert_eq!(state("feature/x").await, BranchState::Missing);
    let commit = fixture.branch(&location, "feature/x").await;
    assert_eq!(state("feature/x").await, BranchState::At(commit));
    assert_eq!(state("feature").await, BranchState::Missing, "the folder of a branch is not a branch");
    assert_eq!(state("x").await, BranchState::Missing, "the end of a branch's name is not the branch");
}

/// `branch_state`: `CheckedOut` in a working tree, with word on changes that are not committed.
pub async fn branch_state_knows_a_branch_that_is_checked_out<F: Fixture>(fixture: &F) {
    for dirty in [false, true] {
        let location = fixture.repository("main").await;
        let repository = described(fixture, &location).await;
        let commit = fixture.branch(&location, "work").await;
        if !fixture.check_out(&location, "work", dirty).await {
            return;
        }
        let state = fixture.repos().branch_state(&scope(), &repository, "work").await.unwrap();
        assert_eq!(state, BranchState::CheckedOut { commit, dirty });
    }
}

/// `branch_state`: fails with `Invalid` if the name is not a branch name.
pub async fn branch_state_refuses_what_is_not_a_branch_name<F: Fixture>(fixture: &F) {
    let location = fixture.repository("main").await;
    let repository = described(fixture, &location).await;
    for name in ["", "-x", "a..b", "a b", "HEAD", "a.lock", "a\nb"] {
        let error = fixture.repos().branch_state(&scope(), &repository, name).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{name:?}: {error}");
    }
}
