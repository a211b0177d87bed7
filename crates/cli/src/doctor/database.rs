//! The server, the tables, and the room for what is to come.

use chrono::{DateTime, TimeDelta, Utc};
use lime_storage_postgres::{PgStorage, ServerState};

use super::{Finding, bytes, line};
use crate::text::{count, now, stamp};

/// The oldest PostgreSQL that the tables work on.
const OLDEST: i32 = 150_000;
/// How far the clocks may be apart before somebody should know.
const SKEW: TimeDelta = TimeDelta::seconds(2);
/// How much room for coming events there should be.
const AHEAD: TimeDelta = TimeDelta::days(14);

pub(super) async fn look(storage: &PgStorage) -> Vec<Finding> {
    let asked = now();
    let server = match storage.server_state().await {
        Ok(server) => server,
        Err(error) => {
            let advice = "nothing works without it: start the server, or correct the URL";
            return vec![Finding::error("database", &error, advice)];
        }
    };
    let answered = now();
    let mut findings =
        vec![version(&server, answered - asked), connections(&server), clock(&server, asked, answered)];
    let is_up_to_date = migrations(storage, &mut findings).await;
    if is_up_to_date {
        findings.push(log(storage, server.now).await);
        findings.extend(line::look(storage).await);
    }
    findings
}

fn version(server: &ServerState, took: TimeDelta) -> Finding {
    let said = format!(
        "PostgreSQL {}, the database {} of {}, answers in {} ms",
        server.version,
        server.database,
        bytes(server.bytes),
        took.num_milliseconds().max(0)
    );
    if server.version_number < OLDEST {
        return Finding::fail("database", said, "move to PostgreSQL 15 or newer");
    }
    Finding::ok("database", said)
}

fn connections(server: &ServerState) -> Finding {
    let (used, most) = (server.connections, server.max_connections);
    let said = format!("{used} of {most} connections are in use");
    if used * 10 >= most * 9 {
        let advice = "give workers fewer (LIME_DATABASE_CONNECTIONS), raise max_connections, or put a pooler before it";
        return Finding::warn("connections", said, advice);
    }
    Finding::ok("connections", said)
}

fn clock(server: &ServerState, asked: DateTime<Utc>, answered: DateTime<Utc>) -> Finding {
    // The server read its clock some time between the two.
    let skew = if server.now < asked {
        asked - server.now
    } else if server.now > answered {
        server.now - answered
    } else {
        TimeDelta::zero()
    };
    let said = format!("this machine and the database are {} ms apart", skew.num_milliseconds());
    if skew > SKEW {
        let advice = "set both by NTP; leases follow the database's clock alone, so no run is lost, but times of steps \
                      and tickets are wrong";
        return Finding::warn("clock", said, advice);
    }
    Finding::ok("clock", said)
}

/// Adds what is to be said about the migrations; gives whether the tables are there to be looked at.
async fn migrations(storage: &PgStorage, findings: &mut Vec<Finding>) -> bool {
    let state = match storage.migrations().await {
        Ok(state) => state,
        Err(error) => {
            findings.push(Finding::error("migrations", &error, "look at the rights of the database's user"));
            return false;
        }
    };
    findings.push(if !state.pending.is_empty() {
        let said = format!(
            "{} must be applied: {}",
            count(state.pending.len(), "migration"),
            state.pending.join(", ")
        );
        Finding::fail("migrations", said, "run `lime migrate`")
    } else if !state.unknown.is_empty() {
        let said = format!("a newer version was here, which knows {}", state.unknown.join(", "));
        Finding::warn("migrations", said, "use the `lime` and the workers of that version")
    } else {
        Finding::ok("migrations", format!("all {} are applied", state.applied.len()))
    });
    state.pending.is_empty()
}

async fn log(storage: &PgStorage, now: DateTime<Utc>) -> Finding {
    const CHECK: &str = "partitions";
    const MAINTAIN: &str = "run `lime maintain`; a worker does so too, so look whether one runs";
    let state = match storage.log_state().await {
        Ok(state) => state,
        Err(error) => return Finding::error(CHECK, &error, "run `lime migrate --check`"),
    };
    let Some(reaches) = state.reaches else {
        return Finding::warn(CHECK, "no month of events has a partition of its own", MAINTAIN);
    };
    if state.has_strays {
        let said = "there are events in the partition for those that fit in no other";
        return Finding::warn(CHECK, said, MAINTAIN);
    }
    let said = format!("there is room for events until {}", stamp(reaches));
    if reaches - now < AHEAD {
        return Finding::warn(CHECK, said, MAINTAIN);
    }
    Finding::ok(CHECK, said)
}
