//! What was measured, by measurement and peer.

use std::collections::BTreeMap;
use std::time::Duration;

/// Values of one measurement of one peer: a rate for each round, or latencies in microseconds of all rounds.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    values: BTreeMap<(&'static str, &'static str), Vec<f64>>,
    /// In the order in which they were first heard of.
    peers: Vec<(&'static str, String)>,
    failures: Vec<String>,
}

/// What is told of several values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Statistic {
    Median,
    P95,
    P99,
}

impl Figures {
    /// Names a peer and how it is set up.
    pub(crate) fn introduce(&mut self, peer: &'static str, setup: String) {
        if !self.peers.iter().any(|it| it.0 == peer) {
            self.peers.push((peer, setup));
        }
    }

    pub(crate) fn add(&mut self, measure: &'static str, peer: &'static str, value: f64) {
        self.values.entry((measure, peer)).or_default().push(value);
    }

    pub(crate) fn add_latencies(
        &mut self,
        measure: &'static str,
        peer: &'static str,
        latencies: &[Duration],
    ) {
        let micros = latencies.iter().map(|it| it.as_secs_f64() * 1e6);
        self.values.entry((measure, peer)).or_default().extend(micros);
    }

    /// A measurement that could not be made.
    pub(crate) fn fail(&mut self, measure: &str, peer: &str, why: &str) {
        self.failures.push(format!("{peer}: {measure}: {why}"));
    }

    pub(crate) fn get(&self, measure: &str, peer: &str, statistic: Statistic) -> Option<f64> {
        statistic.of(self.values(measure, peer)?)
    }

    pub(crate) fn values(&self, measure: &str, peer: &str) -> Option<&[f64]> {
        let found = self.values.iter().find(|((of, by), _)| *of == measure && *by == peer)?;
        Some(found.1)
    }

    pub(crate) fn peers(&self) -> &[(&'static str, String)] {
        &self.peers
    }

    pub(crate) fn measures(&self) -> impl Iterator<Item = (&'static str, &'static str, &[f64])> {
        self.values.iter().map(|((measure, peer), values)| (*measure, *peer, values.as_slice()))
    }

    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }
}

impl Statistic {
    /// Of the values in any order; none of none.
    pub(crate) fn of(self, values: &[f64]) -> Option<f64> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let middle = last / 2;
        match self {
            Self::Median if last % 2 == 1 => Some(f64::midpoint(sorted[middle], sorted[middle + 1])),
            Self::Median => Some(sorted[middle]),
            // The nearest rank: 99 of 100 are no greater.
            Self::P95 => Some(sorted[(sorted.len() * 95).div_ceil(100) - 1]),
            Self::P99 => Some(sorted[(sorted.len() * 99).div_ceil(100) - 1]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Statistic;

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        assert_eq!(Statistic::Median.of(&[]), None);
        assert_eq!(Statistic::Median.of(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(Statistic::Median.of(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn of_a_hundred_values_one_is_above_the_99th_percentile() {
        let hundred: Vec<f64> = (1..=100_u32).rev().map(f64::from).collect();
        assert_eq!(Statistic::P99.of(&hundred), Some(99.0));
        assert_eq!(Statistic::P99.of(&[7.0]), Some(7.0));
    }
}
