//! `lime purge` and `lime maintain`: what goes from the log, and room for what comes.

use chrono::{DateTime, Utc};
use lime_storage_postgres::{Purge, Purged};
use serde::Serialize;

use crate::age::Age;
use crate::confirm::confirm;
use crate::desk::Desk;
use crate::exit::Failure;
use crate::text::{count, stamp};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PurgeView {
    dry_run: bool,
    before: DateTime<Utc>,
    runs: u64,
    events: u64,
    dropped: Vec<String>,
}

/// Gives up the events of runs that ended long ago, once the operator has seen how many they are.
pub(crate) async fn purge(desk: &Desk, age: Age, dry_run: bool) -> Result<(), Failure> {
    if desk.tenant.is_some() {
        return Err(Failure::usage(
            "events are given up for all tenants together: leave --tenant and LIME_TENANT out",
        ));
    }
    let look = Purge { older_than: age.duration(), dry_run: true };
    let planned = desk.storage.purge(&look).await?;
    if dry_run {
        return answer(desk, planned, true);
    }
    if planned.runs > 0 || !planned.dropped.is_empty() {
        let (events, runs) = (count(planned.events, "event"), count(planned.runs, "run"));
        confirm(
            desk.yes,
            &format!(
                "{events} of {runs}, of all tenants, that ended more than {age} ago, before {}, will be deleted.",
                stamp(planned.before)
            ),
        )?;
    }
    let purged = desk.storage.purge(&Purge { dry_run: false, ..look }).await?;
    answer(desk, purged, false)
}

fn answer(desk: &Desk, purged: Purged, dry_run: bool) -> Result<(), Failure> {
    let Purged { before, runs, events, dropped } = purged;
    let view = PurgeView { dry_run, before, runs, events, dropped };
    desk.out.answer(&view, || view.text())
}

impl PurgeView {
    fn text(&self) -> String {
        let verb = if self.dry_run { "Would delete" } else { "Deleted" };
        let (events, runs) = (count(self.events, "event"), count(self.runs, "run"));
        let months = match self.dropped.as_slice() {
            [] => String::new(),
            names => format!(" Whole months: {}.", names.join(", ")),
        };
        format!("{verb} {events} of {runs} that ended before {}.{months}", stamp(self.before))
    }
}

#[derive(Debug, Serialize)]
struct MaintainView {
    made: Vec<String>,
}

/// Makes room for the events of the coming months.
pub(crate) async fn maintain(desk: &Desk) -> Result<(), Failure> {
    let view = MaintainView { made: desk.storage.maintain().await? };
    desk.out.answer(&view, || match view.made.len() {
        0 => "There is room for the coming months already.".to_owned(),
        made => format!("Made {}: {}.", count(made, "month"), view.made.join(", ")),
    })
}
