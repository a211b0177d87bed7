//! The app-server's messages.

use chrono::DateTime;
use lime_core::runs::{AgentEvent, FailureKind};
use serde::Deserialize;
use serde_json::Value as Json;

use super::{Translator, TurnEnd};
use crate::dialogue::is_message;
use crate::failure;
use crate::wire::app::{
    Delta, DiffUpdated, ErrorHappened, Incoming, ItemChanged, ModelRerouted, Notice, PlanUpdated, RateLimits,
    RateLimitsUpdated, ThreadOpened, TurnChanged, TurnStatus, UsageUpdated,
};

/// What Codex tells that is no event of a run: its own state, pieces of what is told whole later, and features
/// that are switched off. By its schema (0.169.0).
const PASSED_OVER: &[&str] = &[
    "account/gatewayOAuth/changed",
    "account/login/completed",
    "account/updated",
    "app/list/updated",
    "command/exec/outputDelta",
    "externalAgentConfig/import/completed",
    "externalAgentConfig/import/progress",
    "fs/changed",
    "fuzzyFileSearch/sessionCompleted",
    "fuzzyFileSearch/sessionUpdated",
    "hook/completed",
    "hook/started",
    "item/commandExecution/outputDelta",
    "item/commandExecution/terminalInteraction",
    "item/fileChange/outputDelta",
    "item/fileChange/patchUpdated",
    "item/mcpToolCall/progress",
    "item/plan/delta",
    "item/reasoning/summaryPartAdded",
    "item/reasoning/summaryTextDelta",
    "item/reasoning/textDelta",
    "mcpServer/event/stream/notification",
    "mcpServer/oauthLogin/completed",
    "mcpServer/startupStatus/updated",
    "model/safetyBuffering/updated",
    "model/verification",
    "modelProvider/authRecoveryCompleted",
    "modelProvider/authRecoveryStarted",
    "process/exited",
    "process/outputDelta",
    "project/changed",
    "remoteControl/status/changed",
    "serverRequest/resolved",
    "skills/changed",
    "thread/archived",
    "thread/attachment/updated",
    "thread/closed",
    "thread/environment/connected",
    "thread/environment/disconnected",
    "thread/goal/cleared",
    "thread/goal/updated",
    "thread/name/updated",
    "thread/prediction/updated",
    "thread/project/updated",
    "thread/queue/changed",
    "thread/readState/changed",
    "thread/section/changed",
    "thread/settings/updated",
    "thread/status/changed",
    "turn/moderationMetadata",
];

impl Translator {
    /// Reads one message.
    pub(crate) fn app(&mut self, message: Incoming) -> Vec<AgentEvent> {
        match message {
            Incoming::Notification { method, params } => match self.notification(&method, &params) {
                Some(events) => events,
                None => vec![AgentEvent::Unknown(Incoming::Notification { method, params }.into_json())],
            },
            // The session answers it; what was decided is told by the item's status.
            Incoming::Request { .. } => Vec::new(),
            Incoming::Response { answer: Ok(result), .. } => match ThreadOpened::deserialize(&result) {
                Ok(opened) => self.opened(opened),
                Err(_) => Vec::new(),
            },
            Incoming::Response { id, answer: Err(error) } => {
                if is_message(&id) {
                    let text = format!("Codex did not take a message: {}", error.message);
                    return vec![AgentEvent::Log { text }];
                }
                if !self.turn_began {
                    self.refusal = Some(error.message);
                }
                Vec::new()
            }
        }
    }

    /// Reads a notification; `None` if its method or its parameters are not known.
    fn notification(&mut self, method: &str, params: &Json) -> Option<Vec<AgentEvent>> {
        Some(match method {
            "thread/started" => {
                let opened: ThreadOpened = read(params)?;
                // Other threads are sub-agents: they have a session of their own.
                if self.session_id.is_some() { Vec::new() } else { self.opened(opened) }
            }
            "turn/started" => {
                let turn: TurnChanged = read(params)?;
                if self.is_ours(&turn) {
                    self.turn_began = true;
                    // What was sent to the agent may begin another turn, and its end is the one that counts.
                    self.end = None;
                }
                Vec::new()
            }
            "turn/completed" => {
                let turn: TurnChanged = read(params)?;
                if self.is_ours(&turn) { self.turn_ended(turn) } else { Vec::new() }
            }
            "item/started" => self.item_began(&read::<ItemChanged>(params)?.item),
            "item/completed" => self.item_ended(&read::<ItemChanged>(params)?.item),
            "item/agentMessage/delta" => vec![AgentEvent::Delta { text: read::<Delta>(params)?.delta }],
            "turn/diff/updated" => self.diff(read::<DiffUpdated>(params)?.diff),
            "turn/plan/updated" => {
                let steps = read::<PlanUpdated>(params)?.plan;
                self.plan(steps.iter().map(|step| (step.status.as_str(), step.step.as_str())))
            }
            "thread/tokenUsage/updated" => {
                let updated: UsageUpdated = read(params)?;
                self.count(updated.thread_id, updated.token_usage.total)
            }
            "account/rateLimits/updated" => self.limits(&read::<RateLimitsUpdated>(params)?.rate_limits),
            // One after which nothing is tried comes again with the end of the turn, and is the report's.
            "error" => {
                let happened: ErrorHappened = read(params)?;
                if happened.will_retry { vec![failure::passing(&happened.error)] } else { Vec::new() }
            }
            "warning" | "guardianWarning" | "configWarning" | "deprecationNotice" => {
                vec![AgentEvent::Log { text: read::<Notice>(params)?.message }]
            }
            "thread/compacted" => {
                vec![AgentEvent::Log { text: "Codex summed up the conversation to make room.".into() }]
            }
            "model/rerouted" => {
                let ModelRerouted { from_model, to_model } = read(params)?;
                let text = format!("Codex changed the model from {from_model} to {to_model}.");
                self.model = Some(to_model);
                vec![AgentEvent::Log { text }]
            }
            known if PASSED_OVER.binary_search(&known).is_ok() => Vec::new(),
            _ => return None,
        })
    }

    fn opened(&mut self, opened: ThreadOpened) -> Vec<AgentEvent> {
        let model = opened.model.or(opened.thread.model);
        self.session(opened.thread.id, model)
    }

    /// A sub-agent's turn is another thread's, and ends nothing.
    fn is_ours(&self, turn: &TurnChanged) -> bool {
        match (&turn.thread_id, &self.session_id) {
            (Some(theirs), Some(ours)) => theirs == ours,
            _ => true,
        }
    }

    fn turn_ended(&mut self, changed: TurnChanged) -> Vec<AgentEvent> {
        match changed.turn.status {
            TurnStatus::Completed => self.end = Some(TurnEnd::Completed),
            TurnStatus::Interrupted => self.end = Some(TurnEnd::Interrupted),
            TurnStatus::Failed => {
                let error = changed.turn.error.unwrap_or_default();
                return self.fail(failure::of_turn(&error));
            }
            TurnStatus::InProgress | TurnStatus::Unknown => {
                return self
                    .fail(failure::failure(FailureKind::Protocol, "the turn ended in an unknown way"));
            }
        }
        self.close_calls()
    }

    fn diff(&mut self, unified_diff: String) -> Vec<AgentEvent> {
        let first = self.diff.is_none();
        if !Self::changed(&mut self.diff, &unified_diff) || (first && unified_diff.is_empty()) {
            return Vec::new();
        }
        vec![AgentEvent::Diff { unified_diff, summary: None }]
    }

    /// Tells once that a limit of the account is reached, and keeps when it ends.
    fn limits(&mut self, limits: &RateLimits) -> Vec<AgentEvent> {
        let spent = limits.spend_control_reached.unwrap_or_default();
        let reached =
            limits.rate_limit_reached_type.clone().or_else(|| spent.then(|| "spend_control".to_owned()));
        if reached.is_none() || reached == self.limit_reached {
            return Vec::new();
        }
        let kind = match reached.as_deref() {
            Some("rate_limit_reached") => FailureKind::RateLimited,
            _ => FailureKind::QuotaExceeded,
        };
        let full = [&limits.primary, &limits.secondary]
            .into_iter()
            .flatten()
            .max_by_key(|window| window.used_percent);
        self.retry_at =
            full.and_then(|window| window.resets_at).and_then(|seconds| DateTime::from_timestamp(seconds, 0));
        self.limit_reached = reached;
        vec![failure::failure(kind, "").into_event(None)]
    }
}

fn read<'a, T: Deserialize<'a>>(params: &'a Json) -> Option<T> {
    T::deserialize(params).ok()
}

#[cfg(test)]
mod tests {
    use super::PASSED_OVER;

    #[test]
    fn the_list_can_be_searched() {
        assert!(PASSED_OVER.is_sorted());
    }
}
