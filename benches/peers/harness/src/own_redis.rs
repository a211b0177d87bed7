//! A Redis server that syncs every write before it answers, for as long as this runs.

use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use crate::Outcome;

/// The server, in a folder that goes with it.
pub(crate) struct OwnRedis {
    url: String,
    server: Mutex<Child>,
    _folder: TempDir,
}

impl OwnRedis {
    /// Starts it on a free port of the loopback.
    pub(crate) async fn start() -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let server = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "yes"])
            .args(["--appendfsync", "always", "--no-appendfsync-on-rewrite", "no"])
            .arg("--dir")
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("redis-server cannot be started: {error}"))?;
        let url = format!("redis://127.0.0.1:{port}");
        let started = Self { url, server: Mutex::new(server), _folder: folder };
        started.answers().await?;
        Ok(started)
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Ends it.
    pub(crate) async fn stop(&self) {
        // One that has ended by itself is stopped too.
        let _ = self.server.lock().await.kill().await;
    }

    async fn answers(&self) -> Outcome<()> {
        let client = redis::Client::open(self.url.as_str())?;
        for _ in 0..100 {
            if let Ok(mut connection) = client.get_multiplexed_async_connection().await {
                let pong: Result<String, _> = redis::cmd("PING").query_async(&mut connection).await;
                if pong.is_ok() {
                    return Ok(());
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err("redis-server does not answer".into())
    }
}
