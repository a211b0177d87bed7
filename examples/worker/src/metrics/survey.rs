//! What the database says of all workers together, read when somebody asks and kept for a moment.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use assembly_lime::Result;
use assembly_lime::ports::{Queue, QueueDepth};
use assembly_lime::postgres::PgStorage;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::time::timeout;

use crate::kept::Kept;

/// How long figures are good: however many ask, the database is asked no more often.
const FRESH: Duration = Duration::from_secs(5);
/// How long the database may take to give them, so that what the worker counts itself is told in time.
const PATIENCE: Duration = Duration::from_secs(3);
/// The same for whether it answers at all.
const PULSE_FRESH: Duration = Duration::from_secs(1);
const PULSE_PATIENCE: Duration = Duration::from_secs(2);

/// Asks the database, and keeps its answers as gauges; there are none of them while it does not answer.
#[derive(Debug)]
pub(crate) struct Survey {
    storage: PgStorage,
    pulse: Kept<bool>,
    read: Kept<()>,
    up: Gauge,
    runs: Family<StateLabels, Gauge>,
    oldest: Family<StateLabels, Gauge<f64, AtomicU64>>,
    questions: Family<StateLabels, Gauge>,
    connections: Family<StateLabels, Gauge>,
    most_connections: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

impl Survey {
    pub(crate) fn new(storage: PgStorage, registry: &mut Registry) -> Self {
        let survey = Self {
            storage,
            pulse: Kept::new(PULSE_FRESH),
            read: Kept::new(FRESH),
            up: Gauge::default(),
            runs: Family::default(),
            oldest: Family::default(),
            questions: Family::default(),
            connections: Family::default(),
            most_connections: Gauge::default(),
        };
        let up = "Whether the database answered the last question about the queue";
        registry.register("database_up", up, survey.up.clone());
        registry.register("queue_runs", "Runs in the line, of all workers", survey.runs.clone());
        let oldest = "How long the run that waits longest has been in this state";
        registry.register("queue_oldest_seconds", oldest, survey.oldest.clone());
        let questions = "Questions to people, of all workers";
        registry.register("approvals", questions, survey.questions.clone());
        let connections = "Connections of this worker to the database";
        registry.register("database_connections", connections, survey.connections.clone());
        let most = "How many connections this worker may have";
        registry.register("database_connections_max", most, survey.most_connections.clone());
        survey
    }

    /// Whether the database answers.
    pub(crate) async fn answers(&self) -> bool {
        let ping = async {
            let answer = timeout(PULSE_PATIENCE, self.storage.connection().ping()).await;
            matches!(answer, Ok(Ok(())))
        };
        self.pulse.or_ask(ping).await
    }

    /// Refreshes the gauges, if they are not fresh.
    pub(crate) async fn refresh(&self) {
        self.read.or_ask(self.read()).await;
    }

    async fn read(&self) {
        match timeout(PATIENCE, self.ask()).await {
            Ok(Ok((depth, questions))) => self.tell(&depth, questions),
            Ok(Err(error)) => self.forget(&error.report()),
            Err(_) => self.forget("the database takes too long"),
        }
        let connections = self.storage.connection();
        let (open, idle) = (whole(connections.size()), whole(connections.idle()));
        self.connections.get_or_create(&StateLabels { state: "idle" }).set(idle);
        self.connections.get_or_create(&StateLabels { state: "used" }).set((open - idle).max(0));
        self.most_connections.set(whole(connections.most()));
    }

    async fn ask(&self) -> Result<(QueueDepth, u64)> {
        tokio::try_join!(self.storage.depth(), self.storage.open_questions())
    }

    fn tell(&self, depth: &QueueDepth, questions: u64) {
        let QueueDepth { ready, scheduled, leased, paused, oldest_ready_ms } = *depth;
        for (state, runs) in
            [("ready", ready), ("scheduled", scheduled), ("leased", leased), ("paused", paused)]
        {
            self.runs.get_or_create(&StateLabels { state }).set(whole(runs));
        }
        let oldest = Duration::from_millis(oldest_ready_ms).as_secs_f64();
        self.oldest.get_or_create(&StateLabels { state: "ready" }).set(oldest);
        self.questions.get_or_create(&StateLabels { state: "open" }).set(whole(questions));
        self.up.set(1);
    }

    /// A figure of before would pass for one of now.
    fn forget(&self, why: &str) {
        tracing::warn!(why, "the queue cannot be measured");
        self.up.set(0);
        self.runs.clear();
        self.oldest.clear();
        self.questions.clear();
    }
}

fn whole(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}
