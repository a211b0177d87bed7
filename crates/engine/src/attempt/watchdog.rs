//! When an agent is stopped by itself: it took its time, gives no sign of life, or goes in circles.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use lime_core::runs::{AgentEvent, Limit, ToolStatus};
use serde_json::Value as Json;
use tokio::time::Instant;

/// How many different failing calls are kept apart.
const MOST_CALLS: usize = 1_000;

/// A limit that was reached, and what a person is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) limit: Limit,
    pub(super) message: String,
}

/// Watches the agent of one attempt.
///
/// - While it is held, as a person is asked, no time counts.
#[derive(Debug)]
pub(super) struct Watchdog {
    time_is_up: Option<Instant>,
    hang_after: Duration,
    last_sign: Instant,
    held_since: Option<Instant>,
    loops: Loops,
}

impl Watchdog {
    pub(super) fn new(budget: Option<Duration>, hang_after: Duration, loop_limit: u32, now: Instant) -> Self {
        let loops = Loops { limit: loop_limit, open: HashMap::new(), failed: HashMap::new() };
        let time_is_up = budget.and_then(|budget| now.checked_add(budget));
        Self { time_is_up, hang_after, last_sign: now, held_since: None, loops }
    }

    /// No time counts from now on.
    pub(super) fn hold(&mut self, now: Instant) {
        self.held_since.get_or_insert(now);
    }

    /// Time counts again.
    pub(super) fn release(&mut self, now: Instant) {
        if let Some(since) = self.held_since.take() {
            self.last_sign = now;
            self.time_is_up = self.time_is_up.and_then(|time| time.checked_add(now - since));
        }
    }

    /// A session begins: that is a sign of life.
    pub(super) fn begin_session(&mut self, now: Instant) {
        self.last_sign = now;
        self.loops.open.clear();
    }

    /// How much of the time is left; `None` if there is no end to it.
    pub(super) fn time_left(&self, now: Instant) -> Option<Duration> {
        let now = self.held_since.unwrap_or(now);
        self.time_is_up.map(|time| time.saturating_duration_since(now))
    }

    /// When the time is up, or the agent has been silent for too long.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.held_since.is_some() {
            return None;
        }
        let silence = self.last_sign.checked_add(self.hang_after);
        [self.time_is_up, silence].into_iter().flatten().min()
    }

    /// The limit that was reached by now, if any.
    pub(super) fn reached(&self, now: Instant) -> Option<Reached> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return None;
        }
        if self.time_is_up.is_some_and(|time| time <= now) {
            return Some(Reached::time());
        }
        let silent = seconds(self.hang_after);
        let message = format!("The agent gave no sign of life for {silent} and was stopped.");
        Some(Reached { limit: Limit::Silence, message })
    }

    /// Takes note of what the agent does; gives the limit if it goes in circles.
    pub(super) fn hear(&mut self, event: &AgentEvent, now: Instant) -> Option<Reached> {
        self.last_sign = now;
        self.loops.hear(event)
    }
}

impl Reached {
    /// The money that the agent may use is used.
    pub(super) fn cost() -> Self {
        Self {
            limit: Limit::Cost,
            message: "The agent used all the money that it may, and was stopped.".into(),
        }
    }

    /// The time that the agent may take is up.
    pub(super) fn time() -> Self {
        Self {
            limit: Limit::Time,
            message: "The agent took all the time that it may, and was stopped.".into(),
        }
    }
}

fn seconds(length: Duration) -> String {
    match length.as_secs() {
        0 => format!("{} ms", length.as_millis()),
        seconds if seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}

/// Counts how often the same call has failed since one succeeded.
#[derive(Debug)]
struct Loops {
    limit: u32,
    open: HashMap<String, (String, u64)>,
    failed: HashMap<u64, u32>,
}

impl Loops {
    fn hear(&mut self, event: &AgentEvent) -> Option<Reached> {
        match event {
            AgentEvent::Tool { call_id, name, status: ToolStatus::Started, input, .. } => {
                self.begin(call_id, name, input.as_ref());
                None
            }
            // A question is about a call that may not have begun.
            AgentEvent::Approval { call_id: Some(call_id), action, payload, .. } => {
                self.begin(call_id, action, payload.as_ref());
                None
            }
            AgentEvent::Tool { call_id, status: ToolStatus::Completed, .. } => {
                self.open.remove(call_id);
                self.failed.clear();
                None
            }
            AgentEvent::Tool { call_id, status: ToolStatus::Failed | ToolStatus::Denied, .. } => {
                let (tool, call) = self.open.remove(call_id)?;
                if self.failed.len() >= MOST_CALLS {
                    self.failed.clear();
                }
                let times = self.failed.entry(call).or_default();
                *times += 1;
                let message = format!(
                    "The agent made the same call of {tool} {times} times, it failed each time, and the agent was stopped."
                );
                (*times >= self.limit).then_some(Reached { limit: Limit::Loop, message })
            }
            _ => None,
        }
    }

    fn begin(&mut self, call_id: &str, tool: &str, input: Option<&Json>) {
        let mut hasher = DefaultHasher::new();
        tool.hash(&mut hasher);
        input.map(Json::to_string).hash(&mut hasher);
        self.open.entry(call_id.to_owned()).or_insert_with(|| (tool.to_owned(), hasher.finish()));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tool(call_id: &str, status: ToolStatus, command: &str) -> AgentEvent {
        AgentEvent::Tool {
            call_id: call_id.into(),
            name: "Bash".into(),
            status,
            input: (status == ToolStatus::Started).then(|| json!({ "command": command })),
            output: None,
            duration_ms: None,
        }
    }

    fn watchdog(limit: u32) -> Watchdog {
        Watchdog::new(Some(Duration::from_secs(60)), Duration::from_secs(10), limit, Instant::now())
    }

    /// Whether the limit was reached by calls of these commands that ended so.
    fn looped(limit: u32, calls: &[(&str, ToolStatus)]) -> bool {
        let mut watchdog = watchdog(limit);
        let now = Instant::now();
        (0..).zip(calls).any(|(number, (command, status))| {
            let id = format!("c{number}");
            watchdog.hear(&tool(&id, ToolStatus::Started, command), now);
            watchdog.hear(&tool(&id, *status, command), now).is_some()
        })
    }

    #[test]
    fn the_same_failing_call_is_a_loop_until_one_succeeds() {
        use ToolStatus::{Completed, Denied, Failed};
        assert!(looped(3, &[("a", Failed), ("a", Denied), ("a", Failed)]));
        assert!(!looped(3, &[("a", Failed), ("a", Failed), ("b", Completed), ("a", Failed)]));
        assert!(!looped(3, &[("a", Failed), ("b", Failed), ("c", Failed)]));
        assert!(looped(3, &[("a", Failed), ("b", Failed), ("a", Failed), ("b", Failed), ("a", Failed)]));
        assert!(!looped(3, &[("a", Completed); 9]));
    }

    #[test]
    fn a_failure_that_turns_out_to_be_a_denial_counts_once() {
        let mut watchdog = watchdog(2);
        let now = Instant::now();
        watchdog.hear(&tool("c", ToolStatus::Started, "a"), now);
        assert_eq!(watchdog.hear(&tool("c", ToolStatus::Failed, "a"), now), None);
        assert_eq!(watchdog.hear(&tool("c", ToolStatus::Denied, "a"), now), None);
    }

    #[test]
    fn silence_and_time_do_not_count_while_it_is_held() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut watchdog = Watchdog::new(Some(Duration::from_secs(60)), Duration::from_secs(10), 5, begun);
        let limit = |watchdog: &Watchdog, seconds| watchdog.reached(at(seconds)).map(|reached| reached.limit);
        assert_eq!(limit(&watchdog, 9), None);
        assert_eq!(limit(&watchdog, 10), Some(Limit::Silence));
        watchdog.hold(at(5));
        watchdog.hold(at(50));
        assert_eq!((limit(&watchdog, 1_000), watchdog.deadline()), (None, None));
        watchdog.release(at(105));
        assert_eq!(watchdog.time_left(at(105)), Some(Duration::from_secs(55)));
        assert_eq!(limit(&watchdog, 114), None);
        assert_eq!(limit(&watchdog, 115), Some(Limit::Silence));
        watchdog.hear(&AgentEvent::system("alive"), at(159));
        assert_eq!(limit(&watchdog, 160), Some(Limit::Time));
    }
}
