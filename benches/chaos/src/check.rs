//! What must hold once the dust has settled, whatever was done.

use std::collections::HashMap;
use std::path::Path;

use assembly_lime::{Error, ErrorKind, Result};

use crate::ground::{Ground, broken};

/// A rule of the database, and a statement that counts what breaks it as `n`.
const RULES: &[(&str, &str)] = &[
    ("runs that have not ended", "SELECT count(*) AS n FROM agent_runs WHERE ended_at IS NULL"),
    (
        "places of runs that have ended",
        "SELECT (SELECT count(*) FROM run_queue) + (SELECT count(*) FROM run_leases) AS n",
    ),
    (
        "runs that did not end exactly once",
        "SELECT count(*) AS n FROM agent_runs AS run WHERE 1 <> (
             SELECT count(*) FROM agent_events AS event
             WHERE event.tenant_id = run.tenant_id AND event.agent_run_id = run.id AND event.type = 'status'
               AND event.payload_json ->> 'status' IN ('succeeded', 'failed', 'cancelled'))",
    ),
    (
        "runs whose log has a gap or does not end with them",
        "SELECT count(*) AS n FROM agent_runs AS run JOIN LATERAL (
             SELECT count(*) AS events, min(seq) AS first, max(seq) AS last, count(DISTINCT seq) AS places
             FROM agent_events AS event WHERE event.tenant_id = run.tenant_id AND event.agent_run_id = run.id
         ) AS log ON true
         WHERE log.first <> 1 OR log.last <> log.events OR log.places <> log.events OR log.last <> run.last_seq",
    ),
    (
        "runs with more than one attempt that ended well",
        "SELECT count(*) AS n FROM (
             SELECT run_id FROM run_attempts WHERE outcome = 'succeeded' GROUP BY run_id HAVING count(*) > 1
         ) AS twice",
    ),
    ("attempts that have not ended", "SELECT count(*) AS n FROM run_attempts WHERE outcome IS NULL"),
    (
        "attempts that began before the one before them had ended",
        "SELECT count(*) AS n FROM run_attempts AS next JOIN run_attempts AS before
             ON before.tenant_id = next.tenant_id AND before.run_id = next.run_id AND before.number = next.number - 1
         WHERE next.created_at < before.ended_at",
    ),
    (
        "runs that said something after their end",
        "SELECT count(*) AS n FROM agent_events AS event JOIN agent_events AS later
             ON later.tenant_id = event.tenant_id AND later.agent_run_id = event.agent_run_id
            AND later.seq = event.seq + 1
         WHERE event.type = 'status' AND event.payload_json ->> 'status' IN ('succeeded', 'failed', 'cancelled')",
    ),
    (
        "events that an attempt wrote after a later one had begun",
        "SELECT count(*) AS n FROM agent_events AS event
         JOIN run_attempts AS attempt
             ON attempt.tenant_id = event.tenant_id AND attempt.id = event.run_attempt_id
         JOIN run_attempts AS later
             ON later.tenant_id = attempt.tenant_id AND later.run_id = attempt.run_id
            AND later.number = attempt.number + 1
         WHERE event.ts > later.created_at",
    ),
    (
        "runs that succeeded without exactly one push",
        "SELECT count(*) AS n FROM agent_runs AS run WHERE status = 'succeeded' AND 1 <> (
             SELECT count(*) FROM effects AS effect
             WHERE effect.tenant_id = run.tenant_id AND effect.run_id = run.id
               AND effect.kind = 'push' AND effect.status = 'done')",
    ),
    (
        "effects that nobody has looked after",
        "SELECT count(*) AS n FROM effects WHERE status = 'pending'",
    ),
    (
        "runs that succeeded without exactly one diff",
        "SELECT count(*) AS n FROM agent_runs AS run WHERE status = 'succeeded' AND 1 <> (
             SELECT count(*) FROM code_diffs AS diff
             WHERE diff.tenant_id = run.tenant_id AND diff.agent_run_id = run.id)",
    ),
];

/// Checks everything, and gives what is broken in words.
pub(crate) async fn check(ground: &Ground) -> Result<Vec<String>> {
    let mut wrongs = Vec::new();
    for (rule, statement) in RULES {
        let count = ground.number(statement).await?;
        if count != 0 {
            wrongs.push(format!("{rule}: {count}"));
        }
    }
    wrongs.extend(check_branches(ground).await?);
    Ok(wrongs)
}

/// Every run that succeeded has changed its branch exactly once, and nobody else has changed any.
async fn check_branches(ground: &Ground) -> Result<Vec<String>> {
    let rows = ground
        .rows(
            "SELECT run.branch, run.status, repository.clone_url FROM agent_runs AS run
             JOIN repositories AS repository
               ON repository.tenant_id = run.tenant_id AND repository.id = run.repository_id
             WHERE run.branch IS NOT NULL",
        )
        .await?;
    let mut expected: HashMap<String, HashMap<String, bool>> = HashMap::new();
    for row in rows {
        let text = |column: &str| -> Result<String> {
            row.try_get("", column).map_err(|error| broken(format!("{column}: {error}")))
        };
        let succeeded = text("status")? == "succeeded";
        expected.entry(text("clone_url")?).or_default().insert(text("branch")?, succeeded);
    }
    let mut wrongs = Vec::new();
    for (repository, branches) in expected {
        let (mut missing, mut again, mut stray) = (0, 0, 0);
        for (branch, succeeded) in &branches {
            match (succeeded, changes(Path::new(&repository), branch).await?) {
                (true, 1) | (false, 0) => {}
                (true, 0) => missing += 1,
                (true, _) => again += 1,
                (false, _) => stray += 1,
            }
        }
        for (what, count) in [
            ("branches that never came", missing),
            ("branches that were pushed more than once", again),
            ("branches of runs that did not succeed", stray),
        ] {
            if count != 0 {
                wrongs.push(format!("{what} in {repository}: {count}"));
            }
        }
    }
    Ok(wrongs)
}

/// How often a branch was changed, by the repository's own log.
async fn changes(repository: &Path, branch: &str) -> Result<usize> {
    match tokio::fs::read_to_string(repository.join("logs/refs/heads").join(branch)).await {
        Ok(log) => Ok(log.lines().count()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => {
            Err(Error::new(ErrorKind::Unexpected, "chaos.check", "a log cannot be read").because(error))
        }
    }
}
