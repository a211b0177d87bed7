//! A PostgreSQL of its own, that may be stopped.

use std::net::TcpListener;
use std::path::PathBuf;

use assembly_lime::Result;
use tokio::process::Command;

use crate::ground::broken;

pub(crate) struct Cluster {
    programs: PathBuf,
    data: PathBuf,
    port: u16,
    runs: bool,
}

/// How the server is stopped.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stop {
    /// Clients are cut off, and everything is written.
    Fast,
    /// As if the power were cut, except that the disk keeps what it was told to keep.
    Immediate,
}

/// Root may not run PostgreSQL; then its own user does.
fn as_postgres(program: PathBuf) -> Command {
    if rustix::process::geteuid().is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

async fn done(mut command: Command) -> Result<String> {
    // The server would keep a pipe open for as long as it lives.
    let log = tempfile::NamedTempFile::new().map_err(|error| broken(error.to_string()))?;
    let file = log.reopen().map_err(|error| broken(error.to_string()))?;
    let both = file.try_clone().map_err(|error| broken(error.to_string()))?;
    let status = command
        .current_dir("/")
        .stdin(std::process::Stdio::null())
        .stdout(file)
        .stderr(both)
        .status()
        .await
        .map_err(|error| broken(format!("{command:?}: {error}")))?;
    let said = tokio::fs::read_to_string(log.path()).await.unwrap_or_default();
    if status.success() { Ok(said) } else { Err(broken(format!("{command:?}: {said}"))) }
}

/// The folder with PostgreSQL's programs, the newest of them.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found: Vec<PathBuf> = versions
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("pg_ctl").is_file())
        .collect();
    found.sort();
    found.pop()
}

impl Cluster {
    /// Makes and starts one; `None` if this machine has no PostgreSQL programs.
    pub(crate) async fn start() -> Result<Option<Self>> {
        let Some(programs) = programs() else { return Ok(None) };
        let mut make = as_postgres("mktemp".into());
        make.args(["-d", "-t", "chaos-cluster-XXXXXXXX"]);
        let folder = PathBuf::from(done(make).await?.trim());
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .map_err(|error| broken(format!("no free port: {error}")))?
            .port();
        let mut cluster = Self { data: folder.join("data"), programs, port, runs: false };
        let mut initdb = as_postgres(cluster.programs.join("initdb"));
        initdb.args(["--auth=trust", "--username=postgres", "--pgdata"]).arg(&cluster.data);
        done(initdb).await?;
        cluster.up().await?;
        cluster.runs = true;
        Ok(Some(cluster))
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    fn pg_ctl(&self) -> Command {
        let mut command = as_postgres(self.programs.join("pg_ctl"));
        command.arg("--pgdata").arg(&self.data).arg("-w");
        command
    }

    async fn up(&self) -> Result<()> {
        let mut start = self.pg_ctl();
        let options =
            format!("-h 127.0.0.1 -p {} -c unix_socket_directories='' -c max_connections=200", self.port);
        start.arg("--log").arg(self.data.join("server.log")).arg("--options").arg(options).arg("start");
        done(start).await.map(|_| ())
    }

    async fn down(&self, stop: Stop) -> Result<()> {
        let mut command = self.pg_ctl();
        let mode = match stop {
            Stop::Fast => "fast",
            Stop::Immediate => "immediate",
        };
        command.args(["--mode", mode, "stop"]);
        done(command).await.map(|_| ())
    }

    pub(crate) async fn restart(&self, stop: Stop) -> Result<()> {
        self.down(stop).await?;
        self.up().await
    }

    /// Ends the server and removes its data.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.down(Stop::Fast).await?;
        self.runs = false;
        let mut remove = as_postgres("rm".into());
        remove.arg("-rf").arg(self.data.parent().unwrap_or(&self.data));
        done(remove).await.map(|_| ())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.runs {
            let mut command = self.pg_ctl();
            command.args(["--mode", "immediate", "stop"]);
            // Nothing more can be done about a server that does not stop.
            let _ = command.as_std_mut().status();
        }
    }
}
