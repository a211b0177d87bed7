//! What happens in a run, as it is told to other processes.

use chrono::{DateTime, Utc};
use lime_core::Id;
use lime_core::ports::Live;
use lime_core::runs::{AgentEvent, AgentRun, RunEvent, Seq};
use serde::{Deserialize, Serialize};

/// The most bytes of one message; more is not told, but read from the log.
const MOST_BYTES: usize = 64 << 10;

#[derive(Serialize, Deserialize)]
struct News<F, I> {
    /// The process that tells, so that it does not listen to itself.
    from: F,
    items: I,
}

#[derive(Serialize, Deserialize)]
struct Item<E> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seq: Option<Seq>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ts: Option<DateTime<Utc>>,
    event: E,
}

/// The message that tells this; none if it would be too long, and listeners shall read the log.
pub(crate) fn write(from: &str, items: &[Live]) -> Option<Vec<u8>> {
    let items: Vec<_> = items
        .iter()
        .map(|live| match live {
            Live::Recorded(RunEvent { seq, ts, event, .. }) => Item { seq: Some(*seq), ts: Some(*ts), event },
            Live::Ephemeral(event) => Item { seq: None, ts: None, event },
        })
        .collect();
    if items.iter().map(|item| item.event.text_bytes()).sum::<usize>() > MOST_BYTES {
        return None;
    }
    serde_json::to_vec(&News { from, items }).ok().filter(|bytes| bytes.len() <= MOST_BYTES)
}

/// What a message tells.
#[derive(Debug, PartialEq)]
pub(crate) enum Told {
    /// What this process knows itself.
    Own,
    /// What happened elsewhere.
    Items(Vec<Live>),
    /// That something happened, and that the log knows what.
    Look,
}

/// Reads a message about a run; what cannot be read is a reason to look.
pub(crate) fn read(own: &str, run: Id<AgentRun>, bytes: &[u8]) -> Told {
    let Ok(news) = serde_json::from_slice::<News<String, Vec<Item<AgentEvent>>>>(bytes) else {
        return Told::Look;
    };
    if news.from == own {
        return Told::Own;
    }
    let live = |item: Item<AgentEvent>| match (item.seq, item.ts) {
        (Some(seq), Some(ts)) => Some(Live::Recorded(RunEvent { run_id: run, seq, ts, event: item.event })),
        (None, None) if item.event.is_ephemeral() => Some(Live::Ephemeral(item.event)),
        _ => None,
    };
    news.items.into_iter().map(live).collect::<Option<_>>().map_or(Told::Look, Told::Items)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Id<AgentRun> = Id::new(7);

    fn items() -> Vec<Live> {
        let ts = DateTime::from_timestamp_nanos(1_700_000_000_123_456_789);
        let event = AgentEvent::system("hi");
        vec![
            Live::Ephemeral(AgentEvent::Delta { text: "h".into() }),
            Live::Recorded(RunEvent { run_id: RUN, seq: 3, ts, event }),
        ]
    }

    #[test]
    fn news_come_back_as_they_were() {
        let bytes = write("me", &items()).unwrap();
        assert_eq!(read("you", RUN, &bytes), Told::Items(items()));
        assert_eq!(read("me", RUN, &bytes), Told::Own);
    }

    #[test]
    fn what_cannot_be_told_is_looked_for() {
        let long = AgentEvent::Delta { text: "x".repeat(MOST_BYTES) };
        assert_eq!(write("me", &[Live::Ephemeral(long)]), None);
        for odd in
            [&b""[..], b"{}", br#"{"from":"you","items":[{"seq":1,"event":{"type":"log","text":""}}]}"#]
        {
            assert_eq!(read("me", RUN, odd), Told::Look);
        }
    }
}
