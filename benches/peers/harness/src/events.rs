//! Appending events, and telling subscribers of them.

mod bare;
mod delivery;
mod ours;
mod pubsub;

use std::time::Duration;

use async_trait::async_trait;

use crate::args::Args;
use crate::figures::{Figures, Statistic};
use crate::ground::Ground;
use crate::report::{Column, Section, Table, Unit};
use crate::target::{Against, Target};
use crate::{Outcome, say};

use bare::Bare;
use ours::Ours;
use pubsub::PubSub;

/// Each event awaits its commit before its run's next one.
const SINGLE: &str = "append, each awaiting its commit";
/// The same: until it is acknowledged.
const ACKNOWLEDGED: &str = "append, acknowledged";
const WINDOW: &str = "append, 64 in flight of each of 50 runs";
const NARROW: &str = "append, 64 in flight of 50 runs together";
const BULK: &str = "append in bulk";
const DELIVERY: &str = "to 50 subscribers";
/// A bare INSERT at the pace of the deliveries.
const COMMIT: &str = "a bare commit";
/// [`DELIVERY`] without [`COMMIT`]: what is left if durability does not count.
const DELIVERY_ALONE: &str = "to 50 subscribers, without the commit";

/// How many events are appended in bulk in one measurement.
const EVENTS: u64 = 100_000;
/// How many runs they belong to.
const RUNS: usize = 50;
/// Of the size that an agent's messages mostly are.
const TEXT: &str = "The failing test compares the parsed date with a local one; the parser returns UTC. I will \
                    change the comparison and run the suite again, then look at the two call sites that rely on it.";
/// After this long a measurement has failed.
const LIMIT: Duration = Duration::from_secs(240);

const OURS: &str = crate::roster::OURS;
const TARGETS: [Target; 7] = [
    Target::rate(WINDOW, OURS, Against::Other { peer: "copy", measure: BULK }, 0.8),
    Target::rate(WINDOW, OURS, Against::Other { peer: "inserts", measure: SINGLE }, 10.0),
    Target::rate(SINGLE, OURS, Against::Peer("inserts"), 5.0),
    // In microseconds.
    Target::latency(ACKNOWLEDGED, Statistic::P99, OURS, Against::Fixed, 2000.0),
    Target::latency(
        DELIVERY_ALONE,
        Statistic::Median,
        OURS,
        Against::Other { peer: "redis-pubsub", measure: DELIVERY },
        1.2,
    ),
    Target::latency(
        DELIVERY_ALONE,
        Statistic::P99,
        OURS,
        Against::Other { peer: "redis-pubsub", measure: DELIVERY },
        1.4,
    ),
    Target::rate(WINDOW, OURS, Against::Peer("ours-silent"), 0.95),
];

/// One who appends or publishes, and what it can be measured in.
#[async_trait(?Send)]
trait Source: Send + Sync {
    fn name(&self) -> &'static str;

    /// How it is set up, for the reader of the tables.
    fn setup(&self) -> &'static str;

    /// Measures everything once.
    async fn measure(&self, span: Duration, taken: &mut Taken) -> Outcome<()>;
}

/// What was measured of one source in one round.
#[derive(Default)]
struct Taken {
    rates: Vec<(&'static str, f64)>,
    latencies: Vec<(&'static str, Vec<Duration>)>,
}

impl Taken {
    fn rate(&mut self, measure: &'static str, rate: f64) {
        self.rates.push((measure, rate));
    }

    fn latencies(&mut self, measure: &'static str, latencies: Vec<Duration>) {
        self.latencies.push((measure, latencies));
    }
}

pub(crate) async fn measure(args: &Args, ground: &Ground) -> Outcome<Section> {
    let span = Duration::from_secs(args.seconds);
    let sources = open(args, ground).await;
    let mut figures = Figures::default();
    for source in &sources {
        figures.introduce(source.name(), source.setup().to_owned());
    }
    for round in 1..=args.rounds {
        for source in &sources {
            ground.calm().await;
            let (name, mut taken) = (source.name(), Taken::default());
            let measured = tokio::time::timeout(LIMIT, source.measure(span, &mut taken)).await;
            if let Err(error) = measured.unwrap_or_else(|_| Err("takes too long".into())) {
                figures.fail("events", name, &error.to_string());
                say::line(&format!("round {round} of {}  {name}  failed: {error}", args.rounds));
            }
            for (measure, rate) in taken.rates {
                say::line(&format!("round {round} of {}  {name}  {measure}  {rate:.0}/s", args.rounds));
                figures.add(measure, name, rate);
            }
            for (measure, latencies) in taken.latencies {
                let count = latencies.len();
                say::line(&format!("round {round} of {}  {name}  {measure}  {count} samples", args.rounds));
                figures.add_latencies(measure, name, &latencies);
            }
        }
    }
    for source in &sources {
        without_the_commit(&mut figures, source.name());
    }
    Ok(section(figures))
}

async fn open(args: &Args, ground: &Ground) -> Vec<Box<dyn Source>> {
    let mut sources: Vec<Box<dyn Source>> = Vec::new();
    let ways = [ours::Way::Apart, ours::Way::Inside, ours::Way::Silent];
    for way in ways.into_iter().filter(|way| args.wants(way.name())) {
        match Ours::open(ground, way).await {
            Ok(source) => sources.push(Box::new(source)),
            Err(why) => say::skipped(way.name(), &why.to_string()),
        }
    }
    let ways = [bare::Way::Inserts, bare::Way::Inserts8, bare::Way::Unnest, bare::Way::Copy];
    for way in ways.into_iter().filter(|way| args.wants(way.name())) {
        match Bare::open(ground, way).await {
            Ok(source) => sources.push(Box::new(source)),
            Err(why) => say::skipped(way.name(), &why.to_string()),
        }
    }
    if args.wants(PubSub::NAME) {
        match PubSub::open(ground).await {
            Ok(source) => sources.push(Box::new(source)),
            Err(why) => say::skipped(PubSub::NAME, &why.to_string()),
        }
    }
    sources
}

/// Takes a bare commit off each delivery of a durable event: the median off the median, the slowest off the slowest.
fn without_the_commit(figures: &mut Figures, name: &'static str) {
    let sorted = |peer: &str, measure: &str| {
        let mut values = figures.values(measure, peer)?.to_vec();
        values.sort_by(f64::total_cmp);
        Some(values)
    };
    if name == PubSub::NAME {
        return;
    }
    let (Some(whole), Some(commits)) = (sorted(name, DELIVERY), sorted("inserts", COMMIT)) else { return };
    for (place, whole_us) in whole.iter().enumerate() {
        let commit_us = commits[place * commits.len() / whole.len()];
        figures.add(DELIVERY_ALONE, name, (whole_us - commit_us).max(0.0));
    }
}

fn section(figures: Figures) -> Section {
    let rate =
        |title, measure| Column { title, measure, statistic: Statistic::Median, unit: Unit::PerSecond };
    let both = |measure, p50, p99| {
        [(p50, Statistic::Median), (p99, Statistic::P99)].map(|(title, statistic)| Column {
            title,
            measure,
            statistic,
            unit: Unit::Millis,
        })
    };
    Section {
        title: "events".to_owned(),
        tables: vec![
            Table {
                title: "append, events a second, durable".to_owned(),
                columns: vec![
                    rate("each awaited", SINGLE),
                    rate("64 in flight", NARROW),
                    rate("64 in flight a run", WINDOW),
                    rate("in bulk", BULK),
                ],
                ours: OURS,
            },
            Table {
                title: "append, milliseconds until it is acknowledged".to_owned(),
                columns: [both(ACKNOWLEDGED, "p50", "p99"), both(COMMIT, "quiet p50", "quiet p99")].concat(),
                ours: OURS,
            },
            Table {
                title: "from the call to a subscriber, milliseconds, 50 subscribers".to_owned(),
                columns: [
                    both(DELIVERY, "p50", "p99"),
                    both(DELIVERY_ALONE, "less commit p50", "less commit p99"),
                ]
                .concat(),
                ours: OURS,
            },
        ],
        targets: TARGETS.to_vec(),
        figures,
        notes: Vec::new(),
    }
}
