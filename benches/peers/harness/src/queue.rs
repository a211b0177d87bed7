//! Job queues beside each other.

use std::time::Duration;

use crate::args::Args;
use crate::figures::{Figures, Statistic};
use crate::ground::Ground;
use crate::peer::Peer;
use crate::report::{Column, Section, Table, Unit};
use crate::target::{Against, Target};
use crate::{Outcome, roster, say};

const ONE_BY_ONE_1: &str = "enqueue one by one, 1 producer";
const ONE_BY_ONE_8: &str = "enqueue one by one, 8 producers";
const BATCHES: &str = "enqueue in batches of 500";
const DRAIN_1: &str = "drain, concurrency 1";
const DRAIN_8: &str = "drain, concurrency 8";
const DRAIN_32: &str = "drain, concurrency 32";
const PICKUP: &str = "idle pick-up";

const MEASURES: [&str; 7] = [ONE_BY_ONE_1, ONE_BY_ONE_8, BATCHES, DRAIN_1, DRAIN_8, DRAIN_32, PICKUP];

/// After this long a measurement has failed.
const LIMIT: Duration = Duration::from_secs(240);

const OURS: &str = roster::OURS;
const REDIS: &str = roster::OURS_REDIS;
/// However it is set up.
const GRAPHILE: Against =
    Against::Best("graphile at its best", &["graphile", "graphile-unbatched", "graphile-direct"]);
const GRAPHILE_UNBATCHED: Against =
    Against::Best("graphile without batched acknowledgement", &["graphile-unbatched", "graphile-direct"]);

const TARGETS: [Target; 15] = [
    Target::rate(DRAIN_32, OURS, Against::Peer("graphile"), 1.3),
    Target::rate(DRAIN_32, OURS, GRAPHILE_UNBATCHED, 4.0),
    Target::rate(DRAIN_32, OURS, Against::Peer("sql-b32"), 0.9),
    Target::rate(DRAIN_32, OURS, Against::Peer("bullmq"), 3.0),
    Target::rate(DRAIN_1, OURS, GRAPHILE, 1.2),
    Target::rate(DRAIN_8, OURS, GRAPHILE, 1.2),
    Target::rate(ONE_BY_ONE_8, OURS, Against::Peer("sql"), 0.8),
    Target::rate(ONE_BY_ONE_8, OURS, GRAPHILE, 8.0),
    Target::rate(ONE_BY_ONE_8, OURS, Against::Peer("bullmq"), 1.8),
    Target::rate(BATCHES, OURS, Against::Peer("pgmq"), 1.5),
    Target::rate(BATCHES, OURS, GRAPHILE, 4.0),
    Target::latency(PICKUP, Statistic::Median, OURS, GRAPHILE, 0.5),
    Target::latency(PICKUP, Statistic::P99, OURS, GRAPHILE, 0.5),
    Target::rate(DRAIN_32, REDIS, Against::Peer("bullmq-given"), 4.0),
    Target::rate(DRAIN_32, REDIS, Against::Peer("streams-given"), 0.6),
];

/// What came of one measurement.
enum Measured {
    Rate(f64),
    Latencies(Vec<Duration>),
    Nothing,
}

pub(crate) async fn measure(args: &Args, ground: &Ground) -> Outcome<Section> {
    let peers = roster::open(args, ground).await;
    let mut figures = Figures::default();
    for peer in &peers {
        figures.introduce(peer.name(), peer.setup());
    }
    // Everybody in each round, so that an hour in which the machine is busy burdens all alike.
    for round in 1..=args.rounds {
        for measure in MEASURES.into_iter().filter(|measure| measure.contains(&args.measure)) {
            for peer in &peers {
                ground.calm().await;
                let name = peer.name();
                let measured = tokio::time::timeout(LIMIT, one(&**peer, measure, args)).await;
                let measured = measured.unwrap_or_else(|_| Err("takes too long".into()));
                let told = match measured {
                    Ok(Measured::Nothing) => continue,
                    Ok(Measured::Rate(rate)) => {
                        figures.add(measure, name, rate);
                        format!("{rate:.0}/s")
                    }
                    Ok(Measured::Latencies(latencies)) => {
                        figures.add_latencies(measure, name, &latencies);
                        format!("{} samples", latencies.len())
                    }
                    Err(error) => {
                        figures.fail(measure, name, &error.to_string());
                        format!("failed: {error}")
                    }
                };
                say::line(&format!("round {round} of {}  {measure}  {name}  {told}", args.rounds));
            }
        }
    }
    Ok(section(figures))
}

async fn one(peer: &dyn Peer, measure: &str, args: &Args) -> Outcome<Measured> {
    let span = Duration::from_secs(args.seconds);
    let rate = match measure {
        ONE_BY_ONE_1 => peer.enqueue_one(1, span).await?,
        ONE_BY_ONE_8 => peer.enqueue_one(8, span).await?,
        BATCHES => peer.enqueue_batch(span).await?,
        DRAIN_1 => peer.drain(1, args.jobs).await?,
        DRAIN_8 => peer.drain(8, args.jobs).await?,
        DRAIN_32 => peer.drain(32, args.jobs).await?,
        _ => {
            let latencies = peer.pickup(args.samples).await?;
            return Ok(latencies.map_or(Measured::Nothing, Measured::Latencies));
        }
    };
    Ok(rate.map_or(Measured::Nothing, Measured::Rate))
}

fn section(figures: Figures) -> Section {
    let rate =
        |title, measure| Column { title, measure, statistic: Statistic::Median, unit: Unit::PerSecond };
    let latency = |title, statistic| Column { title, measure: PICKUP, statistic, unit: Unit::Millis };
    Section {
        title: "queue".to_owned(),
        tables: vec![
            Table {
                title: "enqueue, jobs a second, durable".to_owned(),
                columns: vec![
                    rate("1 producer", ONE_BY_ONE_1),
                    rate("8 producers", ONE_BY_ONE_8),
                    rate("batches of 500", BATCHES),
                ],
                ours: OURS,
            },
            Table {
                title: "drain, jobs a second, durably acknowledged".to_owned(),
                columns: vec![rate("c 1", DRAIN_1), rate("c 8", DRAIN_8), rate("c 32", DRAIN_32)],
                ours: OURS,
            },
            Table {
                title: "idle pick-up, milliseconds from the call that enqueues to the handler".to_owned(),
                columns: vec![latency("p50", Statistic::Median), latency("p99", Statistic::P99)],
                ours: OURS,
            },
        ],
        targets: TARGETS.to_vec(),
        figures,
        notes: Vec::new(),
    }
}
