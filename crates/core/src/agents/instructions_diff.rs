//! What one run was told and another was not.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LayerRecord, LayerSource, ResolvedInstructions};

/// A difference between what two runs were told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum LayerChange {
    /// Only the second was told this.
    Added {
        /// The layer.
        layer: LayerRecord,
    },
    /// Only the first was told this.
    Removed {
        /// The layer.
        layer: LayerRecord,
    },
    /// Both were told it, with another content, scope or priority; its place may be another, too.
    Changed {
        /// As the first was told it.
        before: LayerRecord,
        /// As the second was told it.
        after: LayerRecord,
    },
    /// Both were told the same, the second at another place among what both were told.
    Moved {
        /// The layer.
        layer: LayerRecord,
    },
}

impl ResolvedInstructions {
    /// What is different in another: what was removed in the order of this one, then the rest in the order of the other.
    ///
    /// - A layer is known by its source; a file of the repository is the same at every commit.
    /// - No differences, and only then, if both were told the same text of the same layers. As few layers as possible
    ///   count as moved.
    pub fn diff(&self, other: &Self) -> Vec<LayerChange> {
        let mut free: Vec<bool> = vec![true; self.layers.len()];
        // For each layer of the other, where the same one is in this.
        let places: Vec<Option<usize>> = other
            .layers
            .iter()
            .map(|layer| {
                let same = |(at, own): (usize, &LayerRecord)| free[at] && own.source.is_same(&layer.source);
                let found = self.layers.iter().enumerate().position(same)?;
                free[found] = false;
                Some(found)
            })
            .collect();
        let stays = longest_rise(&places);
        let removed = self.layers.iter().zip(&free).filter(|(_, free)| **free);
        let removed = removed.map(|(layer, _)| LayerChange::Removed { layer: layer.clone() });
        let others = other.layers.iter().zip(&places).zip(&stays);
        let rest = others.filter_map(|((after, place), stays)| {
            let Some(before) = place.map(|place| &self.layers[place]) else {
                return Some(LayerChange::Added { layer: after.clone() });
            };
            if !before.says_the_same(after) {
                Some(LayerChange::Changed { before: before.clone(), after: after.clone() })
            } else if *stays {
                None
            } else {
                Some(LayerChange::Moved { layer: after.clone() })
            }
        });
        removed.chain(rest).collect()
    }
}

impl LayerRecord {
    fn says_the_same(&self, other: &Self) -> bool {
        self.sha256 == other.sha256 && self.scope == other.scope && self.priority == other.priority
    }
}

impl LayerChange {
    /// What the layer was read from.
    pub fn source(&self) -> &LayerSource {
        match self {
            Self::Added { layer } | Self::Removed { layer } | Self::Moved { layer } => &layer.source,
            Self::Changed { after, .. } => &after.source,
        }
    }
}

/// Marks a longest selection of places that rise from each to the next; what has no place is not in it.
fn longest_rise(places: &[Option<usize>]) -> Vec<bool> {
    // For each, the length of the longest selection that ends with it, and the one before it in there.
    let mut best: Vec<(usize, Option<usize>)> = Vec::with_capacity(places.len());
    for (at, place) in places.iter().enumerate() {
        let before = (0..at).filter(|&earlier| places[earlier].is_some() && places[earlier] < *place);
        let longest = before.max_by_key(|&earlier| (best[earlier].0, std::cmp::Reverse(earlier)));
        best.push(match (place, longest) {
            (None, _) => (0, None),
            (Some(_), None) => (1, None),
            (Some(_), Some(earlier)) => (best[earlier].0 + 1, Some(earlier)),
        });
    }
    let mut marked = vec![false; places.len()];
    let mut at = (0..places.len()).rev().max_by_key(|&at| best[at].0).filter(|&at| best[at].0 > 0);
    while let Some(here) = at {
        marked[here] = true;
        at = best[here].1;
    }
    marked
}
