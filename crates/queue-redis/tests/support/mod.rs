//! A Redis for each test: keys of its own on the server of `LIME_TEST_REDIS_URL`, or a server of its own.
#![allow(unreachable_pub, reason = "this is a module of several tests")]
#![allow(dead_code, reason = "each test file takes what it needs")]

pub mod work;

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use lime_core::ports::Queue;
use lime_queue_redis::{RedisOptions, RedisQueue};
use redis::{Client, Cmd, FromRedisValue, RedisResult};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OnceCell;
use tokio::task::AbortHandle;

pub fn url() -> String {
    std::env::var("LIME_TEST_REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".into())
}

pub fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    format!("{}-{}-{}", std::process::id(), since.subsec_nanos(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Runs a command on a connection of its own.
pub async fn run<T: FromRedisValue>(url: &str, command: &Cmd) -> RedisResult<T> {
    let mut connection = Client::open(url)?.get_multiplexed_async_connection().await?;
    command.query_async(&mut connection).await
}

/// A prefix of its own on the shared server; its keys go when it is dropped, and its relays end.
pub struct Place {
    pub url: String,
    pub prefix: String,
    relays: Vec<AbortHandle>,
}

impl Place {
    /// Prints a line that begins with `skipped:` and gives nothing if no Redis answers.
    pub async fn new() -> Option<Self> {
        static ANSWERS: OnceCell<bool> = OnceCell::const_new();
        let answers = || async { run::<String>(&url(), &redis::cmd("PING")).await.is_ok() };
        if !*ANSWERS.get_or_init(answers).await {
            lime_conformance::skip("no Redis answers; set LIME_TEST_REDIS_URL to one");
            return None;
        }
        Some(Self::on(url()))
    }

    pub fn on(url: String) -> Self {
        Self { url, prefix: format!("lime-test-{}", unique()), relays: Vec::new() }
    }

    pub fn options(&self) -> RedisOptions {
        RedisOptions { prefix: self.prefix.clone(), ..RedisOptions::default() }
    }

    /// A process of the fleet.
    pub fn queue<S: ?Sized>(&self, inner: &Arc<S>) -> RedisQueue<S> {
        RedisQueue::new(inner.clone(), &self.url, self.options()).unwrap()
    }

    /// Starts a relay, and waits until it is on duty if no other is.
    pub async fn relay<S: Queue + ?Sized + 'static>(&mut self, queue: &RedisQueue<S>) -> AbortHandle {
        let relaying = queue.clone();
        let relay = tokio::spawn(async move { relaying.relay().await }).abort_handle();
        self.relays.push(relay.clone());
        let listening = format!("{}:asks", self.prefix);
        let mut ask = redis::cmd("PUBSUB");
        ask.arg("NUMSUB").arg(listening);
        eventually("a relay listens", async || {
            let (_, listening): (String, usize) = run(&self.url, &ask).await.unwrap();
            let on_duty = self.exists("relay").await;
            (listening > 0 && on_duty).then_some(())
        })
        .await;
        relay
    }

    pub async fn exists(&self, key: &str) -> bool {
        run(&self.url, redis::cmd("EXISTS").arg(format!("{}:{key}", self.prefix))).await.unwrap()
    }

    /// How many leases were ever put into the line with this key.
    pub async fn pushed(&self, key: &str) -> u64 {
        let key = format!("{}:{key}", self.prefix);
        let info: RedisResult<std::collections::HashMap<String, redis::Value>> =
            run(&self.url, redis::cmd("XINFO").arg("STREAM").arg(key)).await;
        match info.ok().and_then(|mut info| info.remove("entries-added")) {
            Some(redis::Value::Int(added)) => added.try_into().unwrap(),
            _ => 0,
        }
    }

    pub async fn keys(&self) -> Vec<String> {
        run(&self.url, redis::cmd("KEYS").arg(format!("{}:*", self.prefix))).await.unwrap()
    }
}

impl Drop for Place {
    /// On a connection that blocks, since a test that panics has no runtime to wait on.
    fn drop(&mut self) {
        self.relays.iter().for_each(AbortHandle::abort);
        let Ok(client) = Client::open(&*self.url) else { return };
        let Ok(mut connection) = client.get_connection_with_timeout(Duration::from_secs(1)) else { return };
        let pattern = format!("{}:*", self.prefix);
        let keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query(&mut connection).unwrap_or_default();
        if !keys.is_empty() {
            let _: RedisResult<()> = redis::cmd("DEL").arg(keys).query(&mut connection);
        }
    }
}

/// A server of its own, to be stopped and started.
pub struct Server {
    pub port: u16,
    child: Option<Child>,
}

impl Server {
    /// Prints a line that begins with `skipped:` and gives nothing if the program is not there.
    pub async fn start() -> Option<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self { port, child: None };
        if !server.up().await {
            lime_conformance::skip("redis-server is not there");
            return None;
        }
        Some(server)
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Starts it, empty; tells whether it could.
    pub async fn up(&mut self) -> bool {
        let port = self.port.to_string();
        let started = Command::new("redis-server")
            .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            // A replica leaves no file behind either.
            .args(["--repl-diskless-load", "swapdb"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = started else { return false };
        self.child = Some(child);
        let url = self.url();
        eventually("the server answers", async || run::<String>(&url, &redis::cmd("PING")).await.ok()).await;
        true
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An address that leads to one server or another, as a name or a proxy does; connections stay where they are.
pub struct Switch {
    port: u16,
    server: Arc<AtomicU16>,
}

impl Switch {
    pub async fn to(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Arc::new(AtomicU16::new(server.port));
        let to = server.clone();
        tokio::spawn(async move {
            while let Ok((mut here, _)) = listener.accept().await {
                let mut there = TcpStream::connect(("127.0.0.1", to.load(Ordering::Relaxed))).await.unwrap();
                tokio::spawn(async move { tokio::io::copy_bidirectional(&mut here, &mut there).await });
            }
        });
        Self { port, server }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn turn_to(&self, server: &Server) {
        self.server.store(server.port, Ordering::Relaxed);
    }
}

/// Waits until something is there, for up to 20 s.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = std::time::Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
