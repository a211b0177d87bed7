use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Micros;

/// What an agent used: turns, tokens, and money where the provider says it.
///
/// - Totals since the session began in this attempt, not differences: each report replaces the one before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Usage {
    /// Calls of the model, or turns as the provider counts them.
    pub turns: u32,
    /// Tokens read, those from the cache included.
    pub input_tokens: u64,
    /// Those of them that were read from the cache.
    pub cached_input_tokens: u64,
    /// Those of them that were written to the cache.
    pub cache_write_tokens: u64,
    /// Tokens written, those of the reasoning included.
    pub output_tokens: u64,
    /// What it cost, in millionths of a US dollar; absent where nobody knows.
    #[serde(rename = "costMicros", skip_serializing_if = "Option::is_none")]
    pub cost: Option<Micros>,
}

impl Usage {
    /// This usage and another one, added up; the cost is known if both are, or if one of them used nothing.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let cost = match (self.cost, other.cost) {
            (Some(a), Some(b)) => Some(a + b),
            (known, None) if other == Self::default() => known,
            (None, known) if self == Self::default() => known,
            (Some(_) | None, _) => None,
        };
        Self {
            turns: self.turns.saturating_add(other.turns),
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            cached_input_tokens: self.cached_input_tokens.saturating_add(other.cached_input_tokens),
            cache_write_tokens: self.cache_write_tokens.saturating_add(other.cache_write_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
            cost,
        }
    }
}
