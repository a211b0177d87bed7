use futures_util::StreamExt;
use lime_core::Id;
use lime_core::ports::{EventLog, Live};
use lime_core::runs::{AgentRun, Seq};

use super::event::line;
use crate::desk::Desk;
use crate::exit::Failure;
use crate::out::say;
use crate::whose::Whose;

/// Shows what happens in a run until it ends, or the operator has seen enough.
pub(crate) async fn follow(desk: &Desk, id: Id<AgentRun>, after: Seq) -> Result<(), Failure> {
    let whose = Whose::of_run(&desk.storage, desk.tenant.as_ref(), id).await?;
    let mut events = desk.storage.subscribe(&whose.scope, id, after);
    let enough = tokio::signal::ctrl_c();
    tokio::pin!(enough);
    let mut seen = after;
    loop {
        let live = tokio::select! {
            live = events.next() => live,
            heard = &mut enough => {
                heard.map_err(|error| Failure::failed(format!("Ctrl-C cannot be heard: {error}")))?;
                say(&format!("\nThe run goes on; go on looking with `lime runs follow {id} --after {seen}`."));
                return Ok(());
            }
        };
        match live.transpose()? {
            Some(Live::Recorded(event)) => {
                seen = event.seq;
                if desk.out.json {
                    desk.out.json_line(&event)?;
                } else {
                    desk.out.text(&line(&event))?;
                }
            }
            // A piece of a message has no position; the whole message follows.
            Some(Live::Ephemeral(_)) => {}
            None => return Ok(()),
        }
    }
}
