use std::collections::BTreeMap;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use crate::Micros;
use crate::runs::Usage;

/// What models cost, as of a date.
///
/// - Data, and replaceable: read your own from JSON. A model is found by its exact name, or by the longest name
///   in the table that it continues with a `-` and a digit, as dated versions do.
/// - A model that is not in it has no known cost; nothing is guessed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PriceTable {
    /// The day on which the prices were read.
    pub as_of: NaiveDate,
    /// The prices by model.
    pub models: BTreeMap<String, ModelPrice>,
}

/// What a model costs, in millionths of a US dollar for a million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ModelPrice {
    /// Tokens read.
    pub input: Micros,
    /// Tokens read from the cache.
    pub cached_input: Micros,
    /// Tokens written to the cache; those read, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<Micros>,
    /// Tokens written.
    pub output: Micros,
}

impl PriceTable {
    /// The public list prices of OpenAI's models that this version was shipped with.
    ///
    /// - Standard rates in US dollars; surcharges for very long contexts, priority or regions are not in them.
    /// - Claude's programs say what they cost, so their models need no price here.
    pub fn shipped() -> Self {
        serde_json::from_str(include_str!("prices.json"))
            .expect("the shipped prices are tested to be readable")
    }

    /// What this usage of a model cost, rounded up; `None` if its price is not known.
    pub fn cost(&self, model: &str, usage: &Usage) -> Option<Micros> {
        let price = self.price(model)?;
        let written = usage.cache_write_tokens;
        let cached = usage.cached_input_tokens;
        let fresh = usage.input_tokens.saturating_sub(cached).saturating_sub(written);
        let total: i128 = [
            (fresh, price.input),
            (cached, price.cached_input),
            (written, price.cache_write.unwrap_or(price.input)),
            (usage.output_tokens, price.output),
        ]
        .into_iter()
        .map(|(tokens, price)| i128::from(tokens) * i128::from(price.0))
        .sum();
        i64::try_from((total + 999_999) / 1_000_000).ok().map(Micros)
    }

    fn price(&self, model: &str) -> Option<&ModelPrice> {
        self.models
            .iter()
            .filter(|(name, _)| match model.strip_prefix(name.as_str()) {
                Some("") => true,
                Some(rest) => {
                    rest.strip_prefix('-').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
                }
                None => false,
            })
            .max_by_key(|(name, _)| name.len())
            .map(|(_, price)| price)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_table_reads_and_prices() {
        let prices = PriceTable::shipped();
        let usage = Usage {
            input_tokens: 1_000_000,
            cached_input_tokens: 400_000,
            output_tokens: 10,
            ..Usage::default()
        };
        let price = prices.models["gpt-5"];
        let expected =
            (600_000 * price.input.0 + 400_000 * price.cached_input.0 + 10 * price.output.0) / 1_000_000;
        assert_eq!(prices.cost("gpt-5-2025-08-07", &usage), Some(Micros(expected)));
        assert_eq!(prices.cost("gpt-5-mystery", &usage), None);
        assert_eq!(prices.cost("nobody", &usage), None);
    }
}
