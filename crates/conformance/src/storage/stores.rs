//! Behaviour of [`Lookup`] and [`Store`] that no entity is special in.

use futures_util::future::join_all;
use lime_core::identity::{Slug, Tenant, User, UserStatus};
use lime_core::planning::{Board, Priority, Project, Ticket, Workflow};
use lime_core::runs::{AgentRun, Outcome, RunStep, StepKind, StepStatus};
use lime_core::{ErrorKind, Id, Lookup, LookupExt, Query, Scope, Store, Stored};

use crate::scene::{Scene, Subject, forged, settlement};

fn user(email: &str) -> User {
    User { email: email.into(), name: None, github_user_id: None, status: UserStatus::Active }
}

async fn users(storage: &Subject, scope: &Scope, count: usize) -> Vec<Stored<User>> {
    let mut users = Vec::new();
    for n in 0..count {
        users.push(storage.insert(scope, user(&format!("u{n}@example.com"))).await.unwrap());
    }
    users
}

/// `Lookup::get`, `update`, `delete`: a value of another tenant and a missing one give the same answer.
pub async fn missing_and_foreign_look_the_same(storage: Subject) {
    let (ours, theirs) = (Scene::new(&storage).await, Scene::new(&storage).await);
    let mut foreign = theirs.project.clone();
    foreign.value.name = "Taken over".into();
    let missing = Stored { id: Id::new(i64::MAX), ..foreign.clone() };
    let mut answers = Vec::new();
    for project in [&foreign, &missing] {
        let get = Lookup::get(&*storage, &ours.scope, project.id).await.unwrap_err();
        let update = Store::update(&*storage, &ours.scope, project).await.unwrap_err();
        let delete = Store::delete(&*storage, &ours.scope, project).await.unwrap_err();
        answers.push(
            [get, update, delete]
                .map(|error| (error.kind(), error.to_string().replace(&project.id.to_string(), "N"))),
        );
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0][0].0, ErrorKind::NotFound);
    let untouched = Lookup::get(&*storage, &theirs.scope, theirs.project.id).await.unwrap();
    assert_eq!(untouched, theirs.project);
}

/// `Lookup::list`: only the tenant's own, in the order of ids, or against it.
pub async fn lists_only_its_own_in_order(storage: Subject) {
    let (ours, theirs) = (Scene::new(&storage).await, Scene::new(&storage).await);
    let expected = users(&storage, &ours.scope, 3).await;
    users(&storage, &theirs.scope, 2).await;
    let page = storage.list(&ours.scope, &Query::<User>::all()).await.unwrap();
    assert_eq!(page.items, expected);
    assert_eq!(page.next, None);
    let page = storage.list(&ours.scope, &Query::<User>::all().newest_first()).await.unwrap();
    assert_eq!(page.items, expected.into_iter().rev().collect::<Vec<_>>());
}

/// `Lookup::list`: pages never skip or repeat, forwards and backwards; the last one has no next.
pub async fn pages_neither_skip_nor_repeat(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let expected = users(&storage, &scene.scope, 7).await;
    for newest_first in [false, true] {
        let mut expected: Vec<_> = expected.iter().map(|user| user.id).collect();
        let mut query = Query::<User>::all().limit(3);
        if newest_first {
            expected.reverse();
            query = query.newest_first();
        }
        let mut seen = Vec::new();
        let mut sizes = Vec::new();
        loop {
            let page = storage.list(&scene.scope, &query).await.unwrap();
            sizes.push(page.items.len());
            seen.extend(page.items.into_iter().map(|user| user.id));
            match page.next {
                Some(next) => query = query.after(next),
                None => break,
            }
        }
        assert_eq!(seen, expected);
        assert_eq!(sizes, [3, 3, 1]);
    }
    let all = (*storage).all(&scene.scope, Query::<User>::all()).await.unwrap();
    assert_eq!(all, expected);
}

/// `Query`: conditions on ids, words, codes, numbers, texts and nulls; all must hold; none matches nothing.
pub async fn filters_by_every_kind_of_value(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let first = scene.ticket(&storage).await;
    let mut second = Ticket::new(first.project_id, first.board_id, "done", "Another");
    second.priority = Priority::High;
    second.branch = Some("b".into());
    let second = storage.insert(&scene.scope, second).await.unwrap();
    let ids = |query: Query<Ticket>| {
        let (storage, scope) = (storage.clone(), scene.scope.clone());
        async move { (*storage).all(&scope, query).await.unwrap().into_iter().map(|t| t.id).collect::<Vec<_>>() }
    };
    let all = Query::<Ticket>::all;
    assert_eq!(ids(all().filter(Ticket::COLUMN_KEY.eq("done"))).await, [second.id]);
    assert_eq!(ids(all().filter(Ticket::PRIORITY.eq(Priority::High))).await, [second.id]);
    assert_eq!(ids(all().filter(Ticket::BOARD_ID.eq(first.board_id))).await, [first.id, second.id]);
    assert_eq!(ids(all().filter(Ticket::BRANCH.is_null())).await, [first.id]);
    assert_eq!(ids(all().filter(Ticket::BRANCH.eq(Some("b".to_owned())))).await, [second.id]);
    assert_eq!(ids(all().filter(Ticket::BRANCH.eq(None))).await, [], "null equals nothing");
    let either = Ticket::COLUMN_KEY.any_of(["done".to_owned(), "backlog".to_owned()]);
    assert_eq!(ids(all().filter(either)).await, [first.id, second.id]);
    assert_eq!(ids(all().filter(Ticket::COLUMN_KEY.any_of([]))).await, []);
    let both = all().filter(Ticket::COLUMN_KEY.eq("done")).filter(Ticket::BRANCH.is_null());
    assert_eq!(ids(both).await, []);
    let found = storage
        .insert(&scene.scope, User { github_user_id: Some(7), ..user("Ada@Example.com") })
        .await
        .unwrap();
    for query in [
        Query::all().filter(User::EMAIL.eq("ada@example.com")),
        Query::all().filter(User::GITHUB_USER_ID.eq(7)),
        Query::all().filter(User::STATUS.eq(UserStatus::Active)),
    ] {
        let one = (*storage).find(&scene.scope, query).await.unwrap();
        assert_eq!(one.as_ref(), Some(&found), "{one:?}");
    }
}

/// `Query::among`: those with the ids that are the tenant's own, in order and in pages; none for no ids.
pub async fn finds_many_by_their_ids(storage: Subject) {
    let (ours, theirs) = (Scene::new(&storage).await, Scene::new(&storage).await);
    let all = users(&storage, &ours.scope, 4).await;
    let foreign = users(&storage, &theirs.scope, 1).await;
    let wanted = [all[3].id, foreign[0].id, Id::new(i64::MAX), all[0].id, all[2].id];
    let first = storage.list(&ours.scope, &Query::all().among(wanted).limit(2)).await.unwrap();
    assert_eq!(first.items, [all[0].clone(), all[2].clone()]);
    let rest = Query::all().among(wanted).limit(2).after(first.next.unwrap());
    assert_eq!(storage.list(&ours.scope, &rest).await.unwrap().items, [all[3].clone()]);
    let both =
        Query::all().among(wanted).among([all[1].id, all[2].id]).filter(User::STATUS.eq(UserStatus::Active));
    assert_eq!((*storage).all(&ours.scope, both).await.unwrap(), [all[2].clone()]);
    assert_eq!((*storage).all(&ours.scope, Query::<User>::all().among([])).await.unwrap(), []);
}

/// `Store::update`: succeeds on the newest version only, and counts it up.
pub async fn updates_are_compare_and_set(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let old = scene.project.clone();
    let mut new = old.clone();
    new.value.name = "Renamed".into();
    let updated = storage.update(&scene.scope, &new).await.unwrap();
    assert_eq!((updated.version, updated.value.name.as_str()), (2, "Renamed"));
    assert_eq!(updated.created_at, old.created_at);
    assert!(updated.updated_at >= old.updated_at);
    let lost = storage.update(&scene.scope, &old).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Conflict);
    assert_eq!(Lookup::get(&*storage, &scene.scope, old.id).await.unwrap(), updated);
}

/// `Store::delete`: succeeds on the newest version only.
pub async fn deletes_are_compare_and_set(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let old = storage.insert(&scene.scope, user("a@example.com")).await.unwrap();
    let new = storage.update(&scene.scope, &old).await.unwrap();
    assert_eq!(Store::delete(&*storage, &scene.scope, &old).await.unwrap_err().kind(), ErrorKind::Conflict);
    Store::delete(&*storage, &scene.scope, &new).await.unwrap();
    assert_eq!(Store::delete(&*storage, &scene.scope, &new).await.unwrap_err().kind(), ErrorKind::NotFound);
}

/// `Store`: a repeated unique value is `AlreadyExists`, by insert and by update; another tenant may have it.
pub async fn unique_values_are_unique_in_the_tenant(storage: Subject) {
    let (ours, theirs) = (Scene::new(&storage).await, Scene::new(&storage).await);
    storage.insert(&ours.scope, user("ada@example.com")).await.unwrap();
    let again = storage.insert(&ours.scope, user("ADA@example.com")).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    assert!(again.to_string().contains("email"), "{again}");
    storage.insert(&theirs.scope, user("ada@example.com")).await.unwrap();
    let mut other = storage.insert(&ours.scope, user("bob@example.com")).await.unwrap();
    other.value.email = "ada@example.com".into();
    let taken = storage.update(&ours.scope, &other).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
}

/// `Store`: a reference to what is missing, or another tenant's, is `Invalid` and names the field.
pub async fn references_must_be_there_and_ours(storage: Subject) {
    let (ours, theirs) = (Scene::new(&storage).await, Scene::new(&storage).await);
    for project_id in [Id::new(i64::MAX), theirs.project.id] {
        let board = Board { project_id, name: "B".into(), workflow: Workflow::delivery() };
        let error = storage.insert(&ours.scope, board).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("project_id"), "{error}");
    }
    let mut ticket = ours.ticket(&storage).await;
    ticket.value.repository_id = Some(theirs.repository(&storage).await.id);
    assert_eq!(storage.update(&ours.scope, &ticket).await.unwrap_err().kind(), ErrorKind::Invalid);
}

/// `Store::delete`: what belongs to it goes too, a mere mention becomes null, a holder keeps it.
pub async fn deleting_takes_what_belongs_to_it(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let scope = &scene.scope;
    let mut ticket = scene.ticket(&storage).await;
    let person = storage.insert(scope, user("a@example.com")).await.unwrap();
    ticket.value.assignee_user_id = Some(person.id);
    let ticket = storage.update(scope, &ticket).await.unwrap();
    let held = Store::delete(&*storage, scope, &person).await.unwrap_err();
    assert_eq!(held.kind(), ErrorKind::Conflict, "a person with a ticket was deleted");

    let run = storage.submit(scope, AgentRun { ticket_id: Some(ticket.id), ..scene.a_run() }).await.unwrap();
    Store::delete(&*storage, scope, &ticket).await.unwrap();
    let run = Lookup::get(&*storage, scope, run.id).await.unwrap();
    assert_eq!(run.ticket_id, None, "the run still names the ticket");

    let project = Lookup::get(&*storage, scope, scene.project.id).await.unwrap();
    Store::delete(&*storage, scope, &project).await.unwrap();
    assert_eq!(Lookup::get(&*storage, scope, run.id).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(storage.list(scope, &Query::<Board>::all()).await.unwrap().items, []);
    assert_eq!(storage.read(scope, run.id, 0, 10).await.unwrap_err().kind(), ErrorKind::NotFound);
    Store::delete(&*storage, scope, &person).await.unwrap();
}

/// `Store`: a value that breaks a rule of its entity is `Invalid`, with the field's name, and is not kept.
pub async fn broken_rules_are_refused(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let error = storage.insert(&scene.scope, Project::new("Name", "not a key")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("key"), "{error}");
    let mut project = scene.project.clone();
    project.value.name = "with a \0 in it".into();
    assert_eq!(storage.update(&scene.scope, &project).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!((*storage).all(&scene.scope, Query::<Project>::all()).await.unwrap(), [scene.project]);
}

/// `Scope::fenced`: a write under a lease that does not hold is `StaleLease` and changes nothing.
pub async fn a_fenced_write_needs_its_lease(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let claim = scene.running(&storage).await;
    let step = |key: &str| RunStep {
        run_id: claim.lease.run,
        step_number: 1,
        step_key: key.into(),
        kind: StepKind::Phase,
        status: StepStatus::Running,
        model_id: None,
        usage: None,
        result: None,
        error: None,
        completed_at: None,
    };
    let kept = storage.insert(&claim.scope(), step("kept")).await.unwrap();
    let kept = storage.update(&claim.scope(), &kept).await.unwrap();
    let other_tenant = Scene::new(&storage).await.scope.fenced(claim.lease);
    for scope in [scene.scope.clone().fenced(forged(&claim.lease)), other_tenant] {
        assert_eq!(storage.insert(&scope, step("forged")).await.unwrap_err().kind(), ErrorKind::StaleLease);
    }
    storage.settle(&claim.lease, settlement(Outcome::Cancelled)).await.unwrap();
    let insert = storage.insert(&claim.scope(), step("late")).await.unwrap_err();
    let update = storage.update(&claim.scope(), &kept).await.unwrap_err();
    let delete = Store::delete(&*storage, &claim.scope(), &kept).await.unwrap_err();
    for error in [insert, update, delete] {
        assert_eq!(error.kind(), ErrorKind::StaleLease);
    }
    assert_eq!((*storage).all(&scene.scope, Query::<RunStep>::all()).await.unwrap(), [kept]);
}

/// `Store::update`: of many at once on the same version just one succeeds, and the others see a `Conflict`.
pub async fn one_of_many_concurrent_updates_wins(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let tries = (0..16).map(|n| {
        let (storage, scope, mut project) = (storage.clone(), scene.scope.clone(), scene.project.clone());
        project.value.name = format!("Name {n}");
        tokio::spawn(async move { storage.update(&scope, &project).await })
    });
    let results: Vec<_> = join_all(tries).await.into_iter().map(Result::unwrap).collect();
    let winners: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
    assert_eq!(winners.len(), 1);
    for error in results.iter().filter_map(|result| result.as_ref().err()) {
        assert_eq!(error.kind(), ErrorKind::Conflict);
    }
    assert_eq!(Lookup::get(&*storage, &scene.scope, scene.project.id).await.unwrap(), *winners[0]);
}

/// `Tenants`: slugs are unique among all tenants, and find them.
pub async fn tenants_have_unique_slugs(storage: Subject) {
    let slug = |word: &str| Slug::parse(format!("{word}-{}", std::process::id())).unwrap();
    let one = slug("unique");
    assert_eq!(storage.tenant_by_slug(&one).await.unwrap(), None);
    let tenant = Tenant::new("One", one.clone());
    let created = storage.create_tenant(tenant.clone()).await.unwrap();
    assert_eq!(created.value, tenant);
    assert_eq!(storage.tenant_by_slug(&one).await.unwrap(), Some(created));
    assert_eq!(storage.create_tenant(tenant).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    let nameless = storage.create_tenant(Tenant::new(" ", slug("other"))).await.unwrap_err();
    assert_eq!(nameless.kind(), ErrorKind::Invalid);
}

/// `Tenants::limit_runs`: the limit is kept; `Invalid` for one that is none, `NotFound` for a missing tenant.
pub async fn a_tenant_limits_its_runs(storage: Subject) {
    let slug = |word: &str| Slug::parse(format!("{word}-{}", std::process::id())).unwrap();
    let limited = Tenant { max_concurrent_runs: Some(100_000), ..Tenant::new("One", slug("limited")) };
    let created = storage.create_tenant(limited.clone()).await.unwrap();
    assert_eq!(created.value, limited);
    for most in [Some(1), None, Some(7)] {
        let changed = storage.limit_runs(created.id, most).await.unwrap();
        assert_eq!(changed.value, Tenant { max_concurrent_runs: most, ..limited.clone() });
        assert!(changed.version > created.version);
        assert_eq!(storage.tenant_by_slug(&limited.slug).await.unwrap(), Some(changed));
    }
    for bad in [0, -1, 100_001] {
        let error = storage.limit_runs(created.id, Some(bad)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        let other = Tenant { max_concurrent_runs: Some(bad), ..Tenant::new("Two", slug("two")) };
        assert_eq!(storage.create_tenant(other).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    let missing = storage.limit_runs(Id::new(i64::MAX), Some(1)).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let kept = storage.tenant_by_slug(&limited.slug).await.unwrap().unwrap();
    assert_eq!(kept.max_concurrent_runs, Some(7));
}
