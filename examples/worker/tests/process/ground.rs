//! A database, a repository and recordings of its own for each test, and worker processes on them.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use assembly_lime::git::LocalRepos;
use assembly_lime::identity::{Slug, Tenant, Tenants};
use assembly_lime::planning::Project;
use assembly_lime::postgres::{PgStorage, PoolOptions};
use assembly_lime::repos::{RepoKind, Repository};
use assembly_lime::runs::{AgentMode, AgentRun, ProviderId, RunStatus};
use assembly_lime::{Factory, Id, Scope, Store, Stored};
use lime_storage_postgres::TestDatabase;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How long one thing may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Recordings, each for the prompts with its word in them.
const RECORDINGS: &[(&str, &str)] = &[
    (
        "notes.toml",
        "version = 1\nname = \"notes\"\nwhen = \"notes\"\n[[step]]\nwrite = \"NOTES.md\"\ncontent = \"hello\\n\"\n[[step]]\nsay = \"Done.\"\n",
    ),
    (
        "slow.toml",
        "version = 1\nname = \"slow\"\nwhen = \"slow\"\n[[step]]\nsay = \"Working.\"\n[[step]]\nwait_ms = 1500\nwrite = \"SLOW.md\"\ncontent = \"hello\\n\"\n",
    ),
    (
        "hanging.toml",
        "version = 1\nname = \"hanging\"\nwhen = \"hanging\"\n[[step]]\nwrite = \"HALF.md\"\ncontent = \"half\\n\"\n[[step]]\nsay = \"Waiting.\"\n[[step]]\nhang = true\n",
    ),
];

/// Where a test happens; all of it is gone at the end.
pub(crate) struct Ground {
    pub(crate) url: String,
    pub(crate) place: TempDir,
    _database: TestDatabase,
}

/// A tenant with a project and a repository, as a server sees them.
pub(crate) struct Scene {
    pub(crate) factory: Factory,
    pub(crate) scope: Scope,
    pub(crate) repository: PathBuf,
    project: Stored<Project>,
    stored: Stored<Repository>,
}

/// A way to the database that can be cut: then it loses all there is on it, and answers nobody.
pub(crate) struct Way {
    pub(crate) url: String,
    cut: CancellationToken,
    came: Arc<AtomicUsize>,
}

/// A worker process, which is killed when the test ends.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) http: String,
    lines: Arc<Mutex<Vec<String>>>,
    reading: JoinHandle<()>,
}

impl Ground {
    /// Prints a line that begins with `skipped:` and gives nothing if no server answers.
    pub(crate) async fn empty() -> Option<Self> {
        lime_conformance::or_skip(TestDatabase::empty().await).map(Self::on)
    }

    fn on(database: TestDatabase) -> Self {
        let place = TempDir::new().unwrap();
        std::fs::create_dir(place.path().join("recordings")).unwrap();
        for (file, text) in RECORDINGS {
            std::fs::write(place.path().join("recordings").join(file), text).unwrap();
        }
        Self { url: database.url().to_owned(), place, _database: database }
    }

    /// The same, with tables, and something to work on in them.
    pub(crate) async fn set() -> Option<(Self, Scene)> {
        let ground = Self::on(lime_conformance::or_skip(TestDatabase::migrated().await)?);
        let storage = ground.storage().await;
        let tenant = storage.create_tenant(Tenant::new("T", Slug::parse("t").unwrap())).await.unwrap();
        let scope = Scope::system(tenant.id, "a test");
        let project = storage.insert(&scope, Project::new("P", "P")).await.unwrap();
        let repository = ground.place.path().join("repository");
        std::fs::create_dir(&repository).unwrap();
        std::fs::write(repository.join("README.md"), "mine\n").unwrap();
        git(&repository, &["init", "--quiet", "--initial-branch=main"]).await;
        git(&repository, &["add", "--all"]).await;
        git(&repository, &["commit", "--quiet", "--message=first"]).await;
        let factory = Factory::builder(storage).repos(LocalRepos::new()).build();
        let location = repository.to_str().unwrap();
        let stored = factory.connect_repository(&scope, RepoKind::Local, location).await.unwrap();
        Some((ground, Scene { factory, scope, repository, project, stored }))
    }

    async fn storage(&self) -> PgStorage {
        let options = PoolOptions { max_connections: 3, ..PoolOptions::default() };
        PgStorage::connect(&self.url, &options).await.unwrap()
    }

    /// A worker that plays the recordings, with a folder of its own.
    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = worker();
        command
            .env("DATABASE_URL", &self.url)
            .env("LIME_WORKER_NAME", name)
            .env("LIME_STATE_DIR", self.place.path().join(name))
            .env("LIME_PROVIDERS", "replay")
            .env("LIME_RECORDINGS", self.place.path().join("recordings"))
            .env("LIME_HTTP_ADDR", "127.0.0.1:0")
            .env("LIME_POLL_MS", "100");
        command
    }
}

impl Way {
    pub(crate) async fn to(ground: &Ground) -> Self {
        let mut url = reqwest::Url::parse(&ground.url).unwrap();
        let server = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        let way = Self { url: url.into(), cut: CancellationToken::new(), came: Arc::default() };
        let (cut, came) = (way.cut.clone(), way.came.clone());
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                came.fetch_add(1, Ordering::Relaxed);
                let (cut, server) = (cut.clone(), server.clone());
                tokio::spawn(async move {
                    let passing = async {
                        let mut server = TcpStream::connect(server).await?;
                        copy_bidirectional(&mut client, &mut server).await
                    };
                    tokio::select! {
                        biased;
                        // The client is not told.
                        () = cut.cancelled() => std::future::pending().await,
                        _ = passing => {}
                    }
                });
            }
        });
        way
    }

    pub(crate) fn cut(&self) {
        self.cut.cancel();
    }

    /// How many connections there were so far.
    pub(crate) fn came(&self) -> usize {
        self.came.load(Ordering::Relaxed)
    }
}

impl Scene {
    /// Submits a run for the recording with this word in its prompts.
    pub(crate) async fn submit(&self, prompt: &str) -> Id<AgentRun> {
        let run = AgentRun {
            repository_id: Some(self.stored.id),
            ..AgentRun::new(self.project.id, ProviderId::from_static("replay"), AgentMode::Implement, prompt)
        };
        self.factory.submit(&self.scope, run).await.unwrap().id
    }

    pub(crate) async fn run(&self, run: Id<AgentRun>) -> Stored<AgentRun> {
        self.factory.run(&self.scope, run).await.unwrap()
    }

    /// Waits until a run has ended.
    pub(crate) async fn end(&self, run: Id<AgentRun>) -> Stored<AgentRun> {
        in_time(self.factory.wait(&self.scope, run)).await.unwrap()
    }

    /// Waits until a run is worked, and its agent has said something.
    pub(crate) async fn worked(&self, run: Id<AgentRun>) {
        in_time(async {
            loop {
                let log = self.factory.storage().read(&self.scope, run, 0, 100).await.unwrap();
                let said = log.iter().any(|event| format!("{:?}", event.event).contains("ing.\""));
                if said && self.run(run).await.status == RunStatus::Running {
                    return;
                }
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

impl Process {
    /// Starts a worker, and waits until it works.
    pub(crate) async fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let kept = lines.clone();
        let reading = tokio::spawn(async move {
            while let Ok(Some(line)) = output.next_line().await {
                eprintln!("{line}");
                kept.lock().unwrap().push(line);
            }
        });
        let mut process = Self { child, http: String::new(), lines, reading };
        let working = process.logged("working").await;
        process.http = format!("http://{}", working["http"].as_str().unwrap());
        process
    }

    /// Waits for a line of the log with this message.
    pub(crate) async fn logged(&self, message: &str) -> Json {
        in_time(async {
            loop {
                let lines = self.lines.lock().unwrap().clone();
                let found = lines.iter().filter_map(|line| serde_json::from_str::<Json>(line).ok());
                if let Some(line) = found.into_iter().find(|line| line["message"] == message) {
                    return line;
                }
                assert!(!self.reading.is_finished(), "it ended without saying: {message}");
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap()).unwrap()
    }

    /// A connection to where it tells how it does, on which nothing was said yet.
    pub(crate) async fn connection(&self) -> TcpStream {
        in_time(TcpStream::connect(self.http.trim_start_matches("http://"))).await.unwrap()
    }

    /// Waits for its end, and gives its exit status.
    pub(crate) async fn end(&mut self) -> Option<i32> {
        in_time(self.child.wait()).await.unwrap().code()
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let response = in_time(reqwest::get(format!("{}{path}", self.http))).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }
}

/// The program in an environment of its own, for a worker that does not begin.
pub(crate) fn worker() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs a worker that does not begin: its exit status, and what it said.
pub(crate) async fn refused(mut command: Command) -> (i32, String) {
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let mut said = String::new();
    in_time(child.stderr.take().unwrap().read_to_string(&mut said)).await.unwrap();
    let code = in_time(child.wait()).await.unwrap().code().unwrap();
    eprintln!("{code}\n{said}");
    assert!(!said.contains("panicked"));
    (code, said)
}

/// What comes of it, if that does not take too long.
pub(crate) async fn in_time<T>(work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.expect("it took too long")
}

/// Runs git and gives what it prints.
pub(crate) async fn git(repository: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com"])
        .args(args)
        .current_dir(repository)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The command lines of processes that know this folder.
pub(crate) fn processes_about(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().unwrap();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let line = |process: std::fs::DirEntry| std::fs::read(process.path().join("cmdline")).ok();
    let lines = processes.filter_map(line).map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(folder)).collect()
}
