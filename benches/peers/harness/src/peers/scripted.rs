//! A peer that is written for Node.js: each measurement is a run of its script.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::Outcome;
use crate::node::{self, Printed};
use crate::peer::{BATCH, DRAIN_LIMIT, IDLE, Peer, WARM};

pub(crate) struct Scripted {
    pub(crate) name: &'static str,
    pub(crate) setup: String,
    pub(crate) script: &'static str,
    /// What the script is told each time, besides what it shall measure.
    pub(crate) settings: Value,
}

impl Scripted {
    async fn rate(&self, measure: Value) -> Outcome<Option<f64>> {
        let rate = self.run(measure).await?.rate;
        Ok(Some(rate.ok_or_else(|| format!("{} gave no rate", self.script))?))
    }

    async fn run(&self, measure: Value) -> Outcome<Printed> {
        let mut request = json!({
            "batch": BATCH,
            "limitSeconds": DRAIN_LIMIT.as_secs(),
            "idleMs": IDLE.as_millis(),
            "warm": WARM,
        });
        for more in [&self.settings, &measure] {
            if let (Value::Object(request), Value::Object(more)) = (&mut request, more) {
                request.extend(more.clone());
            }
        }
        node::run(self.script, &request).await
    }
}

#[async_trait]
impl Peer for Scripted {
    fn name(&self) -> &'static str {
        self.name
    }

    fn setup(&self) -> String {
        self.setup.clone()
    }

    async fn enqueue_one(&self, producers: usize, span: Duration) -> Outcome<Option<f64>> {
        let measure = json!({ "measure": "enqueue-one", "producers": producers, "seconds": span.as_secs() });
        self.rate(measure).await
    }

    async fn enqueue_batch(&self, span: Duration) -> Outcome<Option<f64>> {
        self.rate(json!({ "measure": "enqueue-batch", "seconds": span.as_secs() })).await
    }

    async fn drain(&self, concurrency: usize, jobs: u64) -> Outcome<Option<f64>> {
        self.rate(json!({ "measure": "drain", "concurrency": concurrency, "jobs": jobs })).await
    }

    async fn pickup(&self, samples: u32) -> Outcome<Option<Vec<Duration>>> {
        let micros = self.run(json!({ "measure": "pickup", "samples": samples })).await?.latencies_us;
        let micros = micros.ok_or_else(|| format!("{} gave no latencies", self.script))?;
        Ok(Some(micros.into_iter().map(|it| Duration::from_secs_f64(it.max(0.0) / 1e6)).collect()))
    }
}
