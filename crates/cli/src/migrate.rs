//! `lime migrate`: brings the tables up to date.

use serde::Serialize;

use crate::confirm::confirm;
use crate::desk::Desk;
use crate::exit::Failure;
use crate::text::count;

#[derive(Debug, Serialize)]
struct Document {
    applied: Vec<String>,
    pending: Vec<String>,
    unknown: Vec<String>,
}

/// Applies what is missing; with `check`, only says what that is, and fails if it is anything.
pub(crate) async fn run(desk: &Desk, check: bool) -> Result<(), Failure> {
    let before = desk.storage.migrations().await?;
    let unknown = before.unknown.clone();
    if check {
        let document = Document { applied: before.applied, pending: before.pending, unknown };
        desk.out.answer(&document, || document.state())?;
        return match document.pending.len() {
            0 => Ok(()),
            pending => Err(Failure::failed(format!(
                "{} must be applied; run `lime migrate`",
                count(pending, "migration")
            ))),
        };
    }
    if !before.unknown.is_empty() {
        return Err(Failure::failed(format!(
            "the database was migrated by a newer version, which knows {}; use its `lime`",
            before.unknown.join(", ")
        )));
    }
    let is_new = before.applied.is_empty();
    if !is_new && !before.pending.is_empty() {
        let pending = before.pending.join(", ");
        confirm(
            desk.yes,
            &format!(
                "The tables will be changed ({pending}). Workers and servers of older versions may then fail."
            ),
        )?;
    }
    desk.storage.migrate().await?;
    let after = desk.storage.migrations().await?;
    let applied: Vec<_> = after.applied.into_iter().filter(|name| !before.applied.contains(name)).collect();
    let document = Document { applied, pending: after.pending, unknown };
    desk.out.answer(&document, || match document.applied.len() {
        0 => "The tables are up to date.".to_owned(),
        many => format!("Applied {}: {}.", count(many, "migration"), document.applied.join(", ")),
    })
}

impl Document {
    fn state(&self) -> String {
        let mut text = String::new();
        for (state, names) in
            [("applied", &self.applied), ("pending", &self.pending), ("unknown", &self.unknown)]
        {
            for name in names {
                text.push_str(&format!("{state}  {name}\n"));
            }
        }
        text
    }
}
