//! The peers, each opened if it is wanted and there is what it needs.

use crate::args::Args;
use crate::ground::Ground;
use crate::peer::Peer;
use crate::peers::{Apalis, Graphile, Mode, Ours, OursRedis, Pgmq, Sql, Streams, Way, bullmq, pgboss};
use crate::{Outcome, say};

/// Ours on PostgreSQL.
pub(crate) const OURS: &str = "ours";
/// Ours on Redis.
pub(crate) const OURS_REDIS: &str = "ours-redis";

/// Opens the peers that are wanted; a line on stderr tells of each one that cannot be.
pub(crate) async fn open(args: &Args, ground: &Ground) -> Vec<Box<dyn Peer>> {
    let mut roster = Roster { args, peers: Vec::new() };
    roster.add(OURS, async || Ours::open(ground, Way::Queue).await).await;
    roster.add("ours-inside", async || Ours::open(ground, Way::OneProcess).await).await;
    roster.add("ours-runs", async || Ours::open(ground, Way::Runs).await).await;
    roster.add("graphile", async || Graphile::open(ground, Mode::Batched).await).await;
    roster.add("graphile-unbatched", async || Graphile::open(ground, Mode::Unbatched).await).await;
    roster.add("graphile-direct", async || Graphile::open(ground, Mode::Direct).await).await;
    roster.add("apalis", async || Apalis::open(ground).await).await;
    roster.add("pgmq", async || Pgmq::open(ground).await).await;
    roster.add("pg-boss", async || pgboss::open(ground).await).await;
    roster.add("sql", async || Sql::open(ground, 1).await).await;
    roster.add("sql-b32", async || Sql::open(ground, 32).await).await;
    roster.add(OURS_REDIS, async || OursRedis::open(ground).await).await;
    roster.add("bullmq", async || bullmq::synced(ground).await).await;
    roster.add("bullmq-given", async || bullmq::given(ground).await).await;
    roster.add("streams", async || Streams::synced(ground).await).await;
    roster.add("streams-given", async || Streams::given(ground).await).await;
    for name in &args.only {
        if !roster.peers.iter().any(|peer| peer.name() == name) {
            say::line(&format!("{name}: is no peer of the queue that could be measured"));
        }
    }
    roster.peers
}

struct Roster<'a> {
    args: &'a Args,
    peers: Vec<Box<dyn Peer>>,
}

impl Roster<'_> {
    async fn add<P: Peer + 'static>(&mut self, name: &'static str, open: impl AsyncFnOnce() -> Outcome<P>) {
        if !self.args.wants(name) {
            return;
        }
        match open().await {
            Ok(peer) => self.peers.push(Box::new(peer)),
            Err(why) => say::skipped(name, &why.to_string()),
        }
    }
}
