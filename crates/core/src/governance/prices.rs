use std::collections::BTreeMap;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use super::Currency;
use crate::runs::Usage;
use crate::{Invalid, Micros};

/// What models cost, as of a date.
///
/// - Data, and replaceable: read your own from JSON. A model is found by its exact name, or by a name in the table that
///   it continues with a date, as `gpt-5-2025-08-07` does.
/// - A model that is not in it has no known cost; nothing is guessed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PriceTable {
    /// The day on which the prices were read; the first of several.
    pub as_of: NaiveDate,
    /// The prices by model.
    pub models: BTreeMap<String, ModelPrice>,
    /// What a US dollar is in other currencies, in their micros; budgets in any other cannot be held without.
    #[serde(default)]
    pub per_usd: BTreeMap<Currency, Micros>,
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
    /// The most tokens that one call can read; not known, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_input_tokens: Option<u64>,
    /// The most tokens that one call can write; not known, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u64>,
}

impl ModelPrice {
    /// The most tokens that one call can read and write, if known.
    pub fn largest_call(&self) -> Option<u64> {
        Some(self.max_input_tokens?.saturating_add(self.max_output_tokens?))
    }

    /// The most that one call can cost, in micros of a US dollar, if its size is known.
    pub fn dearest_call(&self) -> Option<Micros> {
        per_million([(self.max_input_tokens?, self.dearest_input()), (self.max_output_tokens?, self.output)])
    }

    /// The most that this many tokens can cost, in micros of a US dollar.
    pub fn dearest(&self, tokens: u64) -> Option<Micros> {
        per_million([(tokens, self.dearest_input().max(self.output))])
    }

    fn dearest_input(&self) -> Micros {
        self.input.max(self.cached_input).max(self.cache_write.unwrap_or(self.input))
    }
}

/// What tokens cost at their prices for a million, rounded up; `None` if it does not fit.
fn per_million(tokens: impl IntoIterator<Item = (u64, Micros)>) -> Option<Micros> {
    let total: i128 = tokens.into_iter().map(|(count, price)| i128::from(count) * i128::from(price.0)).sum();
    i64::try_from((total + 999_999) / 1_000_000).ok().map(Micros)
}

impl PriceTable {
    /// The public list prices of OpenAI's and Anthropic's models that this version was shipped with.
    ///
    /// - Standard rates in US dollars; surcharges for very long contexts, priority or regions are not in them, so a
    ///   call of OpenAI's models is taken to read 272,000 tokens at most, as Codex has it. Writes to Claude's cache
    ///   have the price of the longer kind, which is the dearer one.
    /// - Claude's programs say what they cost: their prices are for what they may cost. Exchange rates are not shipped.
    pub fn shipped() -> Self {
        serde_json::from_str(include_str!("prices.json"))
            .expect("the shipped prices are tested to be readable")
    }

    /// Reads a table from JSON.
    ///
    /// - Fails with the line and what is wrong there, and for a price or a rate that no model or currency can have.
    pub fn from_json(text: &str) -> Result<Self, Invalid> {
        let table: Self = serde_json::from_str(text)
            .map_err(|error| Invalid::new("prices", format!("cannot be read: {error}")))?;
        for (model, price) in &table.models {
            let all = [price.input, price.cached_input, price.cache_write.unwrap_or_default(), price.output];
            if all.into_iter().any(|price| price < Micros::ZERO) {
                return Err(Invalid::new("prices", format!("the model `{model}` has a price below 0")));
            }
        }
        match table.per_usd.iter().find(|(_, rate)| **rate <= Micros::ZERO) {
            Some((currency, _)) => {
                Err(Invalid::new("prices", format!("the rate of {currency} in `perUsd` must be above 0")))
            }
            None => Ok(table),
        }
    }

    /// What this usage of a model cost, rounded up; `None` if its price is not known.
    pub fn cost(&self, model: &str, usage: &Usage) -> Option<Micros> {
        let price = self.price(model)?;
        let written = usage.cache_write_tokens;
        let cached = usage.cached_input_tokens;
        let fresh = usage.input_tokens.saturating_sub(cached).saturating_sub(written);
        per_million([
            (fresh, price.input),
            (cached, price.cached_input),
            (written, price.cache_write.unwrap_or(price.input)),
            (usage.output_tokens, price.output),
        ])
    }

    /// An amount of US dollars in another currency, rounded up; `None` if its rate is not known.
    pub fn convert(&self, usd: Micros, currency: Currency) -> Option<Micros> {
        if currency == Currency::USD {
            return Some(usd);
        }
        per_million([(u64::try_from(usd.0).ok()?, *self.per_usd.get(&currency)?)])
    }

    /// The price of a model, if known.
    pub fn price(&self, model: &str) -> Option<&ModelPrice> {
        self.models.get(model).or_else(|| {
            let dated = |name: &str| model.strip_prefix(name).is_some_and(is_date);
            self.models.iter().find(|(name, _)| dated(name)).map(|(_, price)| price)
        })
    }
}

/// Whether a text is a date that ends a model's name, such as `-20250929` or `-2025-08-07`.
fn is_date(text: &str) -> bool {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    text.starts_with('-')
        && (text.len() == 9
            || (text.len() == 11 && text[1..].match_indices('-').map(|(at, _)| at).eq([4, 7])))
        && digits.len() == 8
        && digits.bytes().all(|byte| byte.is_ascii_digit())
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
        for unknown in ["gpt-5-mystery", "gpt-5-1", "gpt-5-202508-07", "claude-opus-5-7", "gpt-5-2025080é"] {
            assert_eq!(prices.cost(unknown, &usage), None, "{unknown}");
        }
        assert!(prices.price("claude-sonnet-4-5-20250929").is_some());
        assert_eq!(prices.cost("nobody", &usage), None);
    }

    #[test]
    fn every_shipped_model_has_a_worst_call() {
        for (model, price) in &PriceTable::shipped().models {
            let (call, cost) = (price.largest_call().unwrap(), price.dearest_call().unwrap());
            assert!(cost > Micros::ZERO && cost <= price.dearest(call).unwrap(), "{model}");
        }
        let gpt = PriceTable::shipped().models["gpt-5"];
        assert_eq!(gpt.dearest_call(), Some(Micros(272_000 * 125 / 100 + 128_000 * 10)));
        assert_eq!(ModelPrice { max_output_tokens: None, ..gpt }.dearest_call(), None);
    }

    #[test]
    fn dollars_become_other_money_at_the_rate_given() {
        let euro = Currency::parse("EUR").unwrap();
        let mut prices = PriceTable::shipped();
        assert_eq!(prices.convert(Micros(7), Currency::USD), Some(Micros(7)));
        assert_eq!(prices.convert(Micros(7), euro), None);
        prices.per_usd.insert(euro, Micros(920_000));
        assert_eq!(prices.convert(Micros(1_000_000), euro), Some(Micros(920_000)));
        assert_eq!(prices.convert(Micros(1), euro), Some(Micros(1)), "rounded up");
        let read = PriceTable::from_json(&serde_json::to_string(&prices).unwrap()).unwrap();
        assert_eq!(read, prices);
        prices.per_usd.insert(euro, Micros(0));
        let said = |prices: &PriceTable| {
            PriceTable::from_json(&serde_json::to_string(prices).unwrap()).unwrap_err().to_string()
        };
        assert!(said(&prices).contains("the rate of EUR"), "{}", said(&prices));
        prices.models.get_mut("gpt-5").unwrap().output = Micros(-1);
        assert!(said(&prices).contains("`gpt-5` has a price below 0"), "{}", said(&prices));
        assert!(PriceTable::from_json("{}").unwrap_err().to_string().contains("asOf"));
        assert!(["", "eur", "EURO", "E R"].iter().all(|bad| Currency::parse(bad).is_err()));
    }
}
