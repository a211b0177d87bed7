//! `lime queue`: the line of runs that wait for workers.

use chrono::TimeDelta;
use lime_core::ports::{Queue, QueueDepth};
use serde::Serialize;

use crate::args::QueueCommand;
use crate::desk::Desk;
use crate::exit::Failure;
use crate::out::Facts;
use crate::text::{count, span};

pub(crate) async fn run(desk: &Desk, command: QueueCommand) -> Result<(), Failure> {
    match command {
        QueueCommand::Depth => {
            let depth = Depth::from(desk.storage.depth().await?);
            desk.out.answer(&depth, || depth.text())
        }
        QueueCommand::Sweep => {
            let swept = Swept { placed: desk.storage.sweep().await? };
            desk.out.answer(&swept, || match swept.placed {
                0 => "Every queued run had its place.".to_owned(),
                placed => format!("Gave {} a new place in the line.", count(placed, "run")),
            })
        }
    }
}

/// How many runs are where in the line.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Depth {
    ready: u64,
    scheduled: u64,
    leased: u64,
    paused: u64,
    oldest_ready_ms: u64,
}

impl From<QueueDepth> for Depth {
    fn from(depth: QueueDepth) -> Self {
        let QueueDepth { ready, scheduled, leased, paused, oldest_ready_ms } = depth;
        Self { ready, scheduled, leased, paused, oldest_ready_ms }
    }
}

impl Depth {
    fn text(&self) -> String {
        let waits = TimeDelta::milliseconds(i64::try_from(self.oldest_ready_ms).unwrap_or(i64::MAX));
        let mut facts = Facts::default();
        facts.add("ready", &self.ready.to_string());
        facts.add("scheduled", &self.scheduled.to_string());
        facts.add("leased", &self.leased.to_string());
        facts.add("paused", &self.paused.to_string());
        facts.add("oldest", &if self.ready == 0 { "-".to_owned() } else { span(waits) });
        facts.text()
    }
}

#[derive(Debug, Serialize)]
struct Swept {
    placed: usize,
}
