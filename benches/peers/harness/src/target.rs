//! What is aimed at, and whether it is met.

use crate::figures::{Figures, Statistic};

/// A ratio that a figure of ours has to keep.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) measure: &'static str,
    pub(crate) statistic: Statistic,
    /// Ours.
    pub(crate) ours: &'static str,
    pub(crate) against: Against,
    pub(crate) bound: Bound,
}

/// What ours is divided by.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Against {
    /// The same figure of a peer.
    Peer(&'static str),
    /// The same figure of the peer among several that does best.
    Best(&'static str, &'static [&'static str]),
    /// Another figure of a peer.
    Other { peer: &'static str, measure: &'static str },
    /// Nothing: the figure itself is meant.
    Fixed,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// A target with what came of it.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) says: String,
    /// The ratio, if both figures are there.
    pub(crate) ratio: Option<f64>,
    pub(crate) bound: Bound,
    pub(crate) met: Option<bool>,
}

impl Target {
    pub(crate) const fn rate(
        measure: &'static str,
        ours: &'static str,
        against: Against,
        least: f64,
    ) -> Self {
        Self { measure, statistic: Statistic::Median, ours, against, bound: Bound::AtLeast(least) }
    }

    pub(crate) const fn latency(
        measure: &'static str,
        statistic: Statistic,
        ours: &'static str,
        against: Against,
        most: f64,
    ) -> Self {
        Self { measure, statistic, ours, against, bound: Bound::AtMost(most) }
    }

    pub(crate) fn judge(&self, figures: &Figures) -> Verdict {
        let ours = figures.get(self.measure, self.ours, self.statistic);
        let ratio = self.divisor(figures).zip(ours).map(|(divisor, ours)| ours / divisor);
        let met = ratio.map(|ratio| self.bound.holds(ratio));
        Verdict { says: self.says(), ratio, bound: self.bound, met }
    }

    fn divisor(&self, figures: &Figures) -> Option<f64> {
        let of = |peer| figures.get(self.measure, peer, self.statistic);
        match self.against {
            Against::Fixed => Some(1.0),
            Against::Peer(peer) => of(peer),
            Against::Other { peer, measure } => figures.get(measure, peer, self.statistic),
            Against::Best(_, peers) => {
                let all = peers.iter().filter_map(|peer| of(peer));
                match self.bound {
                    Bound::AtLeast(_) => all.max_by(f64::total_cmp),
                    Bound::AtMost(_) => all.min_by(f64::total_cmp),
                }
            }
        }
    }

    fn says(&self) -> String {
        let statistic = match (self.bound, self.statistic) {
            (Bound::AtLeast(_), _) => "",
            (_, Statistic::Median) => " p50",
            (_, Statistic::P95) => " p95",
            (_, Statistic::P99) => " p99",
        };
        let (measure, ours) = (self.measure, self.ours);
        match self.against {
            Against::Peer(peer) | Against::Best(peer, _) => format!("{measure}{statistic}: {ours} / {peer}"),
            Against::Other { peer, measure: other } => {
                format!("{measure}{statistic}: {ours} / {peer} ({other})")
            }
            Against::Fixed => format!("{measure}{statistic}: {ours}"),
        }
    }
}

impl Bound {
    pub(crate) fn holds(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(least) => ratio >= least,
            Self::AtMost(most) => ratio <= most,
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, "≥ {least}"),
            Self::AtMost(most) => write!(f, "≤ {most}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Against, Target};
    use crate::figures::{Figures, Statistic};

    fn figures() -> Figures {
        let mut figures = Figures::default();
        for (peer, value) in [("ours", 30.0), ("slow", 10.0), ("quick", 20.0)] {
            figures.add("drain", peer, value);
        }
        figures
    }

    #[test]
    fn a_rate_is_held_against_the_best_of_several_peers() {
        let target =
            Target::rate("drain", "ours", Against::Best("others", &["slow", "quick", "absent"]), 1.5);
        let verdict = target.judge(&figures());
        assert_eq!((verdict.ratio, verdict.met), (Some(1.5), Some(true)));
        assert_eq!(verdict.says, "drain: ours / others");
    }

    #[test]
    fn a_latency_is_held_against_the_shortest_of_several_peers() {
        let against = Against::Best("others", &["slow", "quick"]);
        let verdict = Target::latency("drain", Statistic::P99, "ours", against, 2.0).judge(&figures());
        assert_eq!((verdict.ratio, verdict.met), (Some(3.0), Some(false)));
    }

    #[test]
    fn without_a_figure_nothing_is_met_or_missed() {
        let verdict = Target::rate("drain", "ours", Against::Peer("absent"), 1.0).judge(&figures());
        assert_eq!((verdict.ratio, verdict.met), (None, None));
    }
}
