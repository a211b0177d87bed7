//! An event as a line or a few for a person.

use chrono::SecondsFormat;
use lime_core::runs::{AgentEvent, RunEvent};
use serde_json::Value as Json;

use crate::text::{clean, count, first_line};

/// How many columns of what is said besides.
const ASIDE: usize = 160;

/// An event: its time, its position, its type, and what it says.
pub(crate) fn line(event: &RunEvent) -> String {
    let time = event.ts.to_rfc3339_opts(SecondsFormat::Secs, true);
    let said = said(&event.event);
    let mut lines = said.lines();
    let head = format!("{time}  {:>5}  {:<9}", event.seq, event.event.type_name());
    let mut text = format!("{head}  {}", lines.next().unwrap_or_default()).trim_end().to_owned();
    for more in lines {
        text.push('\n');
        text.push_str(&" ".repeat(head.len() + 2));
        text.push_str(more);
    }
    text
}

/// What an event says: messages and errors whole, all else in a line.
fn said(event: &AgentEvent) -> String {
    match event {
        AgentEvent::Status { status, detail } => {
            let detail = detail.as_ref().map(|detail| format!(": {}", first_line(detail, ASIDE)));
            format!("{status}{}", detail.unwrap_or_default())
        }
        AgentEvent::Message { role, text } => format!("{role}: {}", clean(text).trim()),
        AgentEvent::Delta { text } | AgentEvent::Reasoning { text } | AgentEvent::Log { text } => {
            first_line(text, ASIDE)
        }
        AgentEvent::Tool { name, status, input, output, duration_ms, .. } => {
            let about = input.as_ref().map(Json::to_string).or_else(|| output.clone()).unwrap_or_default();
            let took = duration_ms.map(|ms| format!(" in {ms} ms")).unwrap_or_default();
            format!("{} {status}{took} {}", first_line(name, 60), first_line(&about, ASIDE))
                .trim_end()
                .to_owned()
        }
        AgentEvent::Approval { approval_id, scope, action, status, summary, .. } => {
            let id = approval_id.map(|id| format!("{id} ")).unwrap_or_default();
            format!("{id}{status}: {scope} {}: {}", first_line(action, 60), first_line(summary, ASIDE))
        }
        AgentEvent::Diff { unified_diff, summary } => match summary {
            Some(summary) => first_line(summary, ASIDE),
            None => count(unified_diff.lines().count(), "line"),
        },
        AgentEvent::Artifact { name, url, .. } => {
            format!("{} {}", first_line(name, 60), first_line(url.as_deref().unwrap_or_default(), ASIDE))
        }
        AgentEvent::Error { message, kind, .. } => {
            let kind = kind.map(|kind| format!("{kind}: ")).unwrap_or_default();
            format!("{kind}{}", clean(message).trim())
        }
        AgentEvent::Session { session_id, model } => {
            format!("{} {}", first_line(session_id, 80), first_line(model.as_deref().unwrap_or_default(), 60))
        }
        AgentEvent::Usage(usage) => {
            let cost = usage.cost.map_or_else(|| "cost unknown".to_owned(), |cost| format!("${cost}"));
            format!(
                "{}, {} tokens in, {} out, {cost}",
                count(usage.turns, "turn"),
                usage.input_tokens,
                usage.output_tokens
            )
        }
        AgentEvent::Unknown(raw) => first_line(&raw.to_string(), ASIDE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lime_core::Id;
    use lime_core::runs::MessageRole;

    #[test]
    fn a_message_stays_in_its_column_and_gives_no_orders() {
        let text = "one\n\u{1b}[2Jtwo".to_owned();
        let event = RunEvent {
            run_id: Id::new(1),
            seq: 7,
            ts: chrono::DateTime::UNIX_EPOCH,
            event: AgentEvent::Message { role: MessageRole::Assistant, text },
        };
        assert_eq!(
            line(&event),
            "1970-01-01T00:00:00Z      7  message    assistant: one\n                                        two"
        );
    }
}
