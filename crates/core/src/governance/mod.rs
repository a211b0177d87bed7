//! What agents may use, what they must ask for, and what it costs.

mod approval;
mod prices;
mod redactor;
mod tool_pattern;

pub use approval::{
    Action, ActionScope, Approval, ApprovalPolicy, ApprovalRule, ApprovalStatus, Decision, Verdict,
    asked_tools, payload_hash, verdict,
};
pub use prices::{ModelPrice, PriceTable};
pub use redactor::Redactor;
pub use tool_pattern::ToolPattern;
pub(crate) use tool_pattern::subjects;
