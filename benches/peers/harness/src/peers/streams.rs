//! Bare Redis streams with a consumer group, in batches of 32: what Redis can do with the least of commands.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::{Client, Value};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::ground::Ground;
use crate::peer::{BATCH, Handled, Peer, picking_up, producing};

const GROUP: &str = "workers";
/// How many entries one read takes.
const READ: usize = 32;
/// More readers than these only wait for each other.
const READERS: usize = 4;

pub(crate) struct Streams {
    name: &'static str,
    client: Client,
    key: String,
}

impl Streams {
    /// On a Redis that syncs every write before it answers.
    pub(crate) async fn synced(ground: &Ground) -> Outcome<Self> {
        Self::open("streams", ground.synced_redis_url()?, ground).await
    }

    /// On the Redis that was given.
    pub(crate) async fn given(ground: &Ground) -> Outcome<Self> {
        Self::open("streams-given", ground.redis_url(), ground).await
    }

    async fn open(name: &'static str, redis_url: &str, ground: &Ground) -> Outcome<Self> {
        let opened =
            Self { name, client: Client::open(redis_url)?, key: format!("{}_{name}", ground.prefix()) };
        opened.empty().await?;
        Ok(opened)
    }

    async fn connect(&self) -> Outcome<MultiplexedConnection> {
        Ok(self.client.get_multiplexed_async_connection().await?)
    }

    async fn empty(&self) -> Outcome<MultiplexedConnection> {
        let mut connection = self.connect().await?;
        redis::cmd("DEL").arg(&self.key).exec_async(&mut connection).await?;
        let mut create = redis::cmd("XGROUP");
        create.arg("CREATE").arg(&self.key).arg(GROUP).arg("0").arg("MKSTREAM");
        create.exec_async(&mut connection).await?;
        Ok(connection)
    }
}

async fn add(connection: &mut MultiplexedConnection, key: &str, jobs: std::ops::Range<u64>) -> Outcome<()> {
    let mut pipe = redis::pipe();
    for id in jobs {
        pipe.cmd("XADD").arg(key).arg("*").arg("id").arg(id).ignore();
    }
    pipe.exec_async(connection).await?;
    Ok(())
}

/// The ids of the entries in the answer to XREADGROUP.
fn ids(answer: &Value) -> Vec<Vec<u8>> {
    let Value::Array(streams) = answer else { return Vec::new() };
    let Some(Value::Array(stream)) = streams.first() else { return Vec::new() };
    let Some(Value::Array(entries)) = stream.get(1) else { return Vec::new() };
    let id = |entry: &Value| match entry {
        Value::Array(entry) => match entry.first() {
            Some(Value::BulkString(id)) => Some(id.clone()),
            _ => None,
        },
        _ => None,
    };
    entries.iter().filter_map(id).collect()
}

fn read(key: &str, consumer: usize, count: usize, block: Option<Duration>) -> redis::Cmd {
    let mut read = redis::cmd("XREADGROUP");
    read.arg("GROUP").arg(GROUP).arg(consumer).arg("COUNT").arg(count);
    if let Some(block) = block {
        read.arg("BLOCK").arg(u64::try_from(block.as_millis()).unwrap_or(u64::MAX));
    }
    read.arg("STREAMS").arg(key).arg(">");
    read
}

/// Acknowledges entries and takes them out of the stream.
fn finish(pipe: &mut redis::Pipeline, key: &str, ids: &[Vec<u8>]) {
    pipe.cmd("XACK").arg(key).arg(GROUP).arg(ids).ignore();
    pipe.cmd("XDEL").arg(key).arg(ids).ignore();
}

/// Reads and finishes until nothing is left; what was read is finished together with the next read.
async fn read_all(
    mut connection: MultiplexedConnection,
    key: String,
    consumer: usize,
    handled: Handled,
) -> Outcome<()> {
    let mut taken = Vec::new();
    loop {
        let mut pipe = redis::pipe();
        if !taken.is_empty() {
            finish(&mut pipe, &key, &taken);
        }
        pipe.add_command(read(&key, consumer, READ, None));
        let (answer,): (Value,) = pipe.query_async(&mut connection).await?;
        handled.many(taken.len() as u64);
        taken = ids(&answer);
        if taken.is_empty() {
            return Ok(());
        }
    }
}

#[async_trait]
impl Peer for Streams {
    fn name(&self) -> &'static str {
        self.name
    }

    fn setup(&self) -> String {
        let redis =
            if self.name == "streams" { "a Redis with appendfsync always" } else { "the Redis given" };
        format!("XADD, XREADGROUP of {READ}, XACK and XDEL on {redis}; up to {READERS} readers")
    }

    async fn enqueue_one(&self, producers: usize, span: Duration) -> Outcome<Option<f64>> {
        let connection = self.empty().await?;
        let key = self.key.clone();
        // One connection for all: their commands go out, and are synced, together.
        let rate = producing(producers, span, move |id| {
            let (mut connection, key) = (connection.clone(), key.clone());
            async move { add(&mut connection, &key, id..id + 1).await }
        });
        Ok(Some(rate.await?))
    }

    async fn enqueue_batch(&self, span: Duration) -> Outcome<Option<f64>> {
        let connection = self.empty().await?;
        let key = self.key.clone();
        let rate = producing(1, span, move |_| {
            let (mut connection, key) = (connection.clone(), key.clone());
            async move { add(&mut connection, &key, 0..BATCH as u64).await }
        });
        Ok(Some(rate.await? * 500.0))
    }

    async fn drain(&self, concurrency: usize, jobs: u64) -> Outcome<Option<f64>> {
        let mut connection = self.empty().await?;
        for from in (0..jobs).step_by(2000) {
            add(&mut connection, &self.key, from..jobs.min(from + 2000)).await?;
        }
        let handled = Handled::until(jobs);
        let mut readers = Vec::new();
        for _ in 0..concurrency.min(READERS) {
            readers.push(self.connect().await?);
        }
        let mut reading = JoinSet::new();
        let began = Instant::now();
        for (consumer, connection) in readers.into_iter().enumerate() {
            reading.spawn(read_all(connection, self.key.clone(), consumer, handled.clone()));
        }
        let left = || async {
            let mut connection = connection.clone();
            Ok(redis::cmd("XLEN").arg(&self.key).query_async(&mut connection).await?)
        };
        let rate = handled.drained(began, left).await?;
        reading.join_all().await.into_iter().collect::<Outcome<()>>()?;
        Ok(Some(rate))
    }

    async fn pickup(&self, samples: u32) -> Outcome<Option<Vec<Duration>>> {
        let connection = self.empty().await?;
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
        let mut reader = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        let (tell, mut runs) = mpsc::unbounded_channel();
        let mut reading = JoinSet::new();
        let key = self.key.clone();
        reading.spawn(async move {
            while !tell.is_closed() {
                let read = read(&key, 0, 1, Some(Duration::from_secs(1)));
                let taken = ids(&read.query_async(&mut reader).await?);
                if !taken.is_empty() {
                    // Nobody listens once the last sample is taken.
                    let _ = tell.send(Instant::now());
                    let mut pipe = redis::pipe();
                    finish(&mut pipe, &key, &taken);
                    pipe.exec_async(&mut reader).await?;
                }
            }
            Outcome::Ok(())
        });
        let latencies = picking_up(samples, &mut runs, |id| {
            let (mut connection, key) = (connection.clone(), self.key.clone());
            async move { add(&mut connection, &key, id..id + 1).await }
        });
        let latencies = latencies.await;
        reading.shutdown().await;
        Ok(Some(latencies?))
    }
}
