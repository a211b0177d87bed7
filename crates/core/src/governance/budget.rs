use super::{Amount, BudgetPeriod, Currency, PriceTable};
use crate::agents::Agent;
use crate::planning::Project;
use crate::runs::Usage;
use crate::words::words;
use crate::{Editable, Id, Invalid, Micros, entity};

/// How much a tenant, a project or an agent may use in a period (000 §5.11 project_budgets, widened).
///
/// - Every budget that means a run must admit it. Amounts are in the budget's [unit](BudgetUnit).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// Whose use it limits.
    pub subject: BudgetSubject,
    /// For how long (000).
    pub period: BudgetPeriod,
    /// What it counts.
    pub unit: BudgetUnit,
    /// The most of a period (000 `limit_cents`); 0 lets nothing begin.
    pub limit: Amount,
    /// Where a warning is due, once a period; at most the limit (000 `soft_limit_cents`).
    pub soft_limit: Option<Amount>,
    /// Whether nothing more begins, and agents are stopped, at the limit; otherwise it only warns (000).
    pub enforce_hard_stop: bool,
    /// Whether it counts (ours).
    pub enabled: bool,
}

/// Whose use a budget limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BudgetSubject {
    /// All runs of the tenant.
    Tenant,
    /// The runs of a project.
    Project(Id<Project>),
    /// The runs of a named agent, in whatever project.
    Agent(Id<Agent>),
}

/// What a budget counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BudgetUnit {
    /// Money, in micros of this currency (000 `currency`).
    Money(Currency),
    /// Tokens read and written, those from the cache included.
    Tokens,
    /// Runs that end, however they end; an attempt that is lost or handed back is none.
    Runs,
}

words! {
    /// The word for what a budget counts.
    pub enum BudgetUnitKind: "unit" {
        /// Money.
        Money = "money",
        /// Tokens.
        Tokens = "tokens",
        /// Runs.
        Runs = "runs",
    }
}

impl BudgetSubject {
    /// The project, if it is one.
    pub const fn project(self) -> Option<Id<Project>> {
        match self {
            Self::Project(project) => Some(project),
            Self::Tenant | Self::Agent(_) => None,
        }
    }

    /// The agent, if it is one.
    pub const fn agent(self) -> Option<Id<Agent>> {
        match self {
            Self::Agent(agent) => Some(agent),
            Self::Tenant | Self::Project(_) => None,
        }
    }
}

impl std::fmt::Display for BudgetSubject {
    /// `tenant`, `project 3` or `agent 7`: the column that makes it unique.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tenant => f.write_str("tenant"),
            Self::Project(project) => write!(f, "project {project}"),
            Self::Agent(agent) => write!(f, "agent {agent}"),
        }
    }
}

impl BudgetUnit {
    /// The word for it.
    pub const fn kind(self) -> BudgetUnitKind {
        match self {
            Self::Money(_) => BudgetUnitKind::Money,
            Self::Tokens => BudgetUnitKind::Tokens,
            Self::Runs => BudgetUnitKind::Runs,
        }
    }

    /// The currency of money; US dollars for what is not money, as the column has it (000).
    pub const fn currency(self) -> Currency {
        match self {
            Self::Money(currency) => currency,
            Self::Tokens | Self::Runs => Currency::USD,
        }
    }

    /// An amount for a person, such as `1.2500 EUR` or `40000 tokens`.
    pub fn show(self, amount: Amount) -> String {
        match self {
            Self::Money(currency) => format!("{} {currency}", Micros(amount.get())),
            Self::Tokens => format!("{amount} tokens"),
            Self::Runs => format!("{amount} runs"),
        }
    }

    /// How much of it an attempt has used by now; `None` if nobody can say what that cost.
    ///
    /// - Money is what the provider says, or else what the table does, in the budget's currency, rounded up.
    /// - `ends` says whether the run ends with this: only then it counts as a run.
    pub fn used(self, usage: &Usage, model: Option<&str>, prices: &PriceTable, ends: bool) -> Option<Amount> {
        match self {
            Self::Money(currency) => {
                let cost = usage.cost.or_else(|| prices.cost(model?, usage))?;
                prices.convert(cost, currency).map(Amount::from)
            }
            Self::Tokens => Some(Amount::from(usage.input_tokens).plus(Amount::from(usage.output_tokens))),
            Self::Runs => Some(Amount::new(i64::from(ends))),
        }
    }
}

impl Budget {
    /// A budget without a soft limit, that stops what would pass its limit.
    pub const fn new(subject: BudgetSubject, period: BudgetPeriod, unit: BudgetUnit, limit: Amount) -> Self {
        Self { subject, period, unit, limit, soft_limit: None, enforce_hard_stop: true, enabled: true }
    }

    /// Whether it limits the runs of this project and agent.
    pub fn applies(&self, project: Id<Project>, agent: Option<Id<Agent>>) -> bool {
        self.enabled
            && match self.subject {
                BudgetSubject::Tenant => true,
                BudgetSubject::Project(only) => only == project,
                BudgetSubject::Agent(only) => agent == Some(only),
            }
    }

    /// Where it warns: at its soft limit, or at the limit itself if that stops nothing.
    pub fn warns_above(&self) -> Option<Amount> {
        self.soft_limit.or(if self.enforce_hard_stop { None } else { Some(self.limit) })
    }
}

entity! {
    Budget as "budget" in "project_budgets" {
        PROJECT_ID: Option<Id<Project>> = project_id => |budget| budget.subject.project();
        AGENT_ID: Option<Id<Agent>> = agent_id => |budget| budget.subject.agent();
        SUBJECT: String = subject => |budget| budget.subject.to_string();
        PERIOD: BudgetPeriod = period => |budget| budget.period;
        UNIT: BudgetUnitKind = unit => |budget| budget.unit.kind();
        ENABLED: bool = enabled => |budget| budget.enabled;
    }
    unique [SUBJECT, PERIOD, UNIT];
    refers PROJECT_ID -> Project Cascade;
    validate |budget| {
        if budget.soft_limit.is_some_and(|soft| soft > budget.limit) {
            return Err(Invalid::new("soft_limit", "must be at most the limit"));
        }
        match (budget.period, budget.unit) {
            (BudgetPeriod::Run, BudgetUnit::Runs) => {
                Err(Invalid::new("unit", "must be money or tokens for the period `run`: a run is one run"))
            }
            (BudgetPeriod::Run, BudgetUnit::Money(_) | BudgetUnit::Tokens)
            | (BudgetPeriod::Daily | BudgetPeriod::Weekly | BudgetPeriod::Monthly, _) => Ok(()),
        }
    };
}
impl Editable for Budget {}
