//! A database in a folder, in this process and in others.
#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]
#![cfg(feature = "embedded")]

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lime_core::identity::{Slug, Tenants};
use lime_core::planning::Project;
use lime_core::{ErrorKind, LookupExt, Query, Scope, Store};
use lime_storage_postgres::{Embedded, PgStorage};

use crate::support::scene;

/// The folder for the test that is another process.
const FOLDER: &str = "LIME_TEST_EMBEDDED_FOLDER";

/// Not a test of its own: the other process of those below. It writes for ever, and says what it has written.
#[test]
fn another_process() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let embedded = Embedded::open(&folder).await.unwrap();
        let storage = embedded.storage();
        let (scope, _) = scene(&storage).await;
        for n in 0.. {
            let project = storage.insert(&scope, Project::new("P", format!("N{n}"))).await.unwrap();
            println!("written {} {}", scope.tenant(), project.value.key);
        }
    });
}

fn start_another(folder: &Path) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["another_process", "--exact", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    (child, lines)
}

/// Waits until this much was written; gives the tenant.
fn written(lines: &mut impl BufRead, count: usize) -> String {
    let mut said = lines.lines().map(Result::unwrap).filter_map(|line| {
        let (_, written) = line.split_once("written ")?;
        Some(written.split_once(' ')?.0.to_owned())
    });
    said.nth(count - 1).expect("the other process writes for ever")
}

async fn keys(storage: &PgStorage, scope: &Scope) -> Vec<String> {
    let all = storage.all(scope, Query::<Project>::all()).await.unwrap();
    all.into_iter().map(|project| project.value.key).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn data_outlive_the_process_that_wrote_them() {
    let folder = tempfile::tempdir().unwrap();
    let embedded = Embedded::open(folder.path()).await.unwrap();
    let (scope, project) = scene(&embedded.storage()).await;
    embedded.close().await.unwrap();
    let embedded = Embedded::open(folder.path()).await.unwrap();
    assert_eq!(keys(&embedded.storage(), &scope).await, [project.value.key]);
    embedded.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_killed_process_loses_nothing_and_leaves_nothing_in_the_way() {
    let folder = tempfile::tempdir().unwrap();
    for round in 1..=3 {
        let (mut child, mut lines) = start_another(folder.path());
        let tenant = tokio::task::spawn_blocking(move || written(&mut lines, 40)).await.unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let embedded = Embedded::open(folder.path()).await.unwrap();
        let scope = Scope::system(tenant.parse().unwrap(), "a test");
        let keys = keys(&embedded.storage(), &scope).await;
        assert!(keys.len() > 40, "round {round}: only {} are left", keys.len());
        embedded.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_folder_is_one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, mut lines) = start_another(folder.path());
    tokio::task::spawn_blocking(move || written(&mut lines, 1)).await.unwrap();
    let error = Embedded::open(folder.path()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.message().contains("another process"), "{error}");
    child.kill().unwrap();
    child.wait().unwrap();
    let embedded = Embedded::open(folder.path()).await.unwrap();
    let twice = Embedded::open(folder.path()).await.unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::Conflict);
    embedded.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn dropping_without_closing_frees_the_folder_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let embedded = Embedded::open(folder.path()).await.unwrap();
    let storage = embedded.storage();
    drop(embedded);
    let slug = Slug::parse("nobody").unwrap();
    assert_eq!(storage.tenant_by_slug(&slug).await.unwrap(), None, "a clone still works");
    drop(storage);
    for _ in 0..100 {
        match Embedded::open(folder.path()).await {
            Ok(embedded) => return embedded.close().await.unwrap(),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the folder is still taken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn folders_that_cannot_be_used_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Embedded::open(&file).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("file"), "{error}");
    #[cfg(target_os = "linux")]
    {
        let error = Embedded::open("/sys/lime").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_path_that_is_too_long_for_a_socket_works_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("a folder with ümlauts".repeat(4)).join("x".repeat(60));
    let embedded = Embedded::open(&deep).await.unwrap();
    scene(&embedded.storage()).await;
    embedded.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_serves_many_at_once() {
    let embedded = Embedded::temporary().await.unwrap();
    let storage = embedded.storage();
    let (scope, _) = scene(&storage).await;
    let calls = (0..60).map(|n| {
        let (storage, scope) = (storage.clone(), scope.clone());
        tokio::spawn(async move { storage.insert(&scope, Project::new("P", format!("M{n}"))).await })
    });
    for inserted in futures_util::future::join_all(calls).await {
        inserted.unwrap().unwrap();
    }
    assert_eq!(keys(&storage, &scope).await.len(), 61);
    embedded.close().await.unwrap();
    let closed = storage.tenant_by_slug(&Slug::parse("x").unwrap()).await.unwrap_err();
    assert_eq!(closed.kind(), ErrorKind::Unavailable);
}
