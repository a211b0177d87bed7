//! What agents may use, what they must ask for, and what it costs.

mod admission;
mod allowlist;
mod amount;
mod approval;
mod budget;
mod currency;
mod default_tools;
mod env_vars;
mod glob;
mod ledger;
mod need;
mod period;
mod prices;
mod redactor;
mod reservation;
mod secrets;
mod shell;
mod tool_parts;
mod tool_pattern;

pub use admission::{BudgetAccount, BudgetCounter, BudgetExceeded, Posted, SoftLimitPassed, admit};
pub use allowlist::{Allowlist, ToolDenied, ToolGrant, ToolLayer, WhyDenied};
pub use amount::Amount;
pub use approval::{
    Action, ActionScope, Approval, ApprovalPolicy, ApprovalRule, ApprovalStatus, Decision, Verdict,
    asked_tools, payload_hash, verdict,
};
pub use budget::{Budget, BudgetSubject, BudgetUnit, BudgetUnitKind};
pub use currency::Currency;
pub use default_tools::DefaultTools;
pub use env_vars::{EnvKey, EnvScope, EnvScopeKind, EnvValue, EnvVar, EnvVarSet};
pub use ledger::{BudgetEntry, EntryKind, Posting};
pub use need::{BudgetNeed, NeedUnknown, NextStep, RunCaps, UnknownPrice};
pub use period::{BudgetPeriod, BudgetWindow, TimeZone};
pub use prices::{ModelPrice, PriceTable};
pub use redactor::{Redactor, SessionRedactor};
pub use reservation::{Reservation, ReservationClosed, ReservationSignal, ReservationStatus};
pub use secrets::{
    Cell, DataKey, DataKeyBytes, MasterKeyId, MasterKeys, Sealed, SealedStore, Sealing, TenantKey, WrappedKey,
};
pub use shell::Unclear;
pub use tool_pattern::ToolPattern;
pub(crate) use tool_pattern::subjects;

/// Code of a tenant that is called when something happens (000 §5.5); known here by its id only, until its table comes.
#[derive(Debug, Clone, Copy)]
pub enum Hook {}
