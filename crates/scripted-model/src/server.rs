//! The server: starts, stops, and tells where it listens.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use axum::Router;
use tokio::sync::oneshot;

use crate::error::StartError;
use crate::gate::Gate;
use crate::handle::{Shared, Stage, handle};
use crate::recorded::{Record, RecordedRequest};
use crate::script::Script;

/// A scripted model API that listens on loopback until it is dropped.
///
/// - It runs on a thread of its own, so it needs no async runtime, and a test that blocks does not block it.
/// - Only `127.0.0.1` is served, on a port that the system chooses. Keys are neither needed nor checked.
/// - Dropping it closes every connection, hanging ones too, and frees the port before `drop` returns.
#[derive(Debug)]
pub struct ScriptedModel {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ScriptedModel {
    /// Starts a server with one script, named `main`, and the usual limits.
    ///
    /// # Errors
    ///
    /// - As [`Builder::start`].
    pub fn start(script: Script) -> Result<Self, StartError> {
        Self::builder().script("main", script).start()
    }

    /// Begins a server with several scripts, or with limits of its own.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The base URL of the first script for Anthropic clients: their `ANTHROPIC_BASE_URL`.
    #[must_use]
    pub fn anthropic_base_url(&self) -> String {
        self.first().anthropic_base_url
    }

    /// The base URL of the first script for OpenAI clients: Codex's `model_providers.<name>.base_url`.
    #[must_use]
    pub fn openai_base_url(&self) -> String {
        self.first().openai_base_url
    }

    /// Where one script is served; `None` for a name the server does not know.
    #[must_use]
    pub fn endpoint(&self, script: &str) -> Option<Endpoint> {
        self.shared.stage(script).map(|stage| self.endpoint_of(stage))
    }

    /// Where every script is served, in the order they were added.
    pub fn endpoints(&self) -> impl Iterator<Item = Endpoint> + '_ {
        self.shared.stages.iter().map(|stage| self.endpoint_of(stage))
    }

    /// How many requests came in since the start, of every kind.
    #[must_use]
    pub fn request_count(&self) -> u64 {
        self.shared.record.count()
    }

    /// The newest requests, oldest first, as far as the limits kept them.
    #[must_use]
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.shared.record.requests()
    }

    fn first(&self) -> Endpoint {
        self.endpoint_of(&self.shared.stages[0])
    }

    fn endpoint_of(&self, stage: &Stage) -> Endpoint {
        let anthropic_base_url = format!("http://{}/s/{}", self.address, stage.name);
        Endpoint {
            script: stage.name.clone(),
            openai_base_url: format!("{anthropic_base_url}/v1"),
            anthropic_base_url,
        }
    }
}

impl Drop for ScriptedModel {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the scripted model's thread panicked");
        }
    }
}

/// Where one script is served.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Endpoint {
    /// The script's name.
    pub script: String,
    /// For Anthropic clients, without `/v1`.
    pub anthropic_base_url: String,
    /// For OpenAI clients, with `/v1`.
    pub openai_base_url: String,
}

/// Collects a server's scripts and limits.
#[derive(Debug)]
pub struct Builder {
    scripts: Vec<(String, Script)>,
    max_connections: usize,
    max_body_bytes: usize,
    max_recorded: usize,
    max_recorded_bytes: usize,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            scripts: Vec::new(),
            max_connections: 64,
            max_body_bytes: 16 << 20,
            max_recorded: 256,
            max_recorded_bytes: 64 << 20,
        }
    }
}

impl Builder {
    /// Adds a script under a name, which becomes part of its base URLs.
    ///
    /// - A name is 1 to 64 of `A-Z a-z 0-9 . _ -`.
    #[must_use]
    pub fn script(mut self, name: impl Into<String>, script: Script) -> Self {
        self.scripts.push((name.into(), script));
        self
    }

    /// Sets how many connections are served at once; 64 by default, at least 1. Further ones wait.
    #[must_use]
    pub fn max_connections(mut self, limit: usize) -> Self {
        self.max_connections = limit.max(1);
        self
    }

    /// Sets how large a request's body may be, in bytes; 16 MiB by default. A larger one is answered 413.
    #[must_use]
    pub fn max_body_bytes(mut self, limit: usize) -> Self {
        self.max_body_bytes = limit;
        self
    }

    /// Sets how many requests are kept for inspection; 256 by default. The oldest go first.
    #[must_use]
    pub fn max_recorded(mut self, limit: usize) -> Self {
        self.max_recorded = limit;
        self
    }

    /// Sets how many bytes of requests are kept in all; 64 MiB by default. The oldest go first.
    #[must_use]
    pub fn max_recorded_bytes(mut self, limit: usize) -> Self {
        self.max_recorded_bytes = limit;
        self
    }

    /// Starts the server; it listens when this returns.
    ///
    /// # Errors
    ///
    /// - [`StartError::NoScript`], [`StartError::BadName`], [`StartError::DuplicateName`] or
    ///   [`StartError::Script`] when the scripts cannot be served.
    /// - [`StartError::Io`] when the system gives no port, runtime or thread.
    pub fn start(self) -> Result<ScriptedModel, StartError> {
        let mut stages: Vec<Stage> = Vec::with_capacity(self.scripts.len());
        for (name, script) in self.scripts {
            if !is_name(&name) {
                return Err(StartError::BadName(name));
            }
            if stages.iter().any(|stage| stage.name == name) {
                return Err(StartError::DuplicateName(name));
            }
            if let Err(source) = script.check() {
                return Err(StartError::Script { name, source });
            }
            stages.push(Stage::new(name, script));
        }
        if stages.is_empty() {
            return Err(StartError::NoScript);
        }
        let record = Record::new(self.max_recorded, self.max_recorded_bytes);
        let shared = Arc::new(Shared::new(stages, record, self.max_body_bytes));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let gate = {
            let _entered = runtime.enter();
            Gate::new(tokio::net::TcpListener::from_std(listener)?, self.max_connections)
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let router = Router::new().fallback(handle).with_state(Arc::clone(&shared));
        let serve = move || {
            runtime.block_on(async {
                tokio::select! {
                    served = axum::serve(gate, router) => {
                        if let Err(error) = served {
                            tracing::error!(%error, "the scripted model stopped serving");
                        }
                    }
                    // The handle was dropped; dropping the runtime then ends what is still open.
                    _ = stopped => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name("lime-scripted-model".to_owned()).spawn(serve)?;
        Ok(ScriptedModel { address, shared, stop: Some(stop), thread: Some(thread) })
    }
}

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        && !name.bytes().all(|byte| byte == b'.')
}
