//! What an agent is told, layer by layer (000 §5.10, §5.12, §11).

use std::cmp::Reverse;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{InstructionLayer, LayerScope, LayerSource};
use crate::Invalid;
use crate::runs::{AgentMode, ProviderId};

/// What stands between two layers.
const BETWEEN: &str = "\n\n";

/// What an agent was told, and where each part came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedInstructions {
    /// The layers that applied, in the order in which they were told.
    pub layers: Vec<LayerRecord>,
    /// SHA-256 of the whole text, in hexadecimal.
    pub sha256: String,
    /// The whole text: the layers' contents with a blank line between them.
    pub text: String,
}

/// A layer that applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LayerRecord {
    /// Where it comes from.
    pub scope: LayerScope,
    /// What it was read from.
    pub source: LayerSource,
    /// Its priority.
    pub priority: i32,
    /// SHA-256 of its content, in hexadecimal.
    pub sha256: String,
    /// How many bytes of the whole text it is; unknown of runs from before it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<usize>,
}

/// A layer that is too long, or with which the whole becomes so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InstructionsTooLong {
    /// By itself.
    #[error(
        "{layer} has {bytes} bytes; a layer may have {}: shorten it",
        ResolvedInstructions::MAX_LAYER_BYTES
    )]
    Layer {
        /// The layer.
        layer: LayerName,
        /// Its length.
        bytes: usize,
    },
    /// With those that are told before it.
    #[error(
        "{layer} with its {bytes} bytes brings the instructions to {whole} bytes; all together may have {}: shorten \
         or disable some",
        ResolvedInstructions::MAX_BYTES
    )]
    Whole {
        /// The first layer that is past the limit.
        layer: LayerName,
        /// Its length.
        bytes: usize,
        /// The length of the whole up to its end.
        whole: usize,
    },
}

/// A layer by what a person finds it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerName {
    /// Where it comes from.
    pub scope: LayerScope,
    /// What it was read from.
    pub source: LayerSource,
    /// Its priority.
    pub priority: i32,
}

impl fmt::Display for LayerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scope, source, priority } = self;
        write!(f, "the layer `{source}` of the scope {scope} with the priority {priority}")
    }
}

impl ResolvedInstructions {
    /// The most bytes of a layer: 64 KiB.
    pub const MAX_LAYER_BYTES: usize = 64 << 10;
    /// The most bytes of all layers together: 256 KiB, some 65,000 tokens.
    pub const MAX_BYTES: usize = 256 << 10;

    /// Puts the layers in order for a provider and a mode.
    ///
    /// - checkout -> default for any provider -> default for this one -> tenant -> project -> repository -> ticket; the
    ///   prompt comes after all of them, and is not part of it.
    /// - Within a scope the stronger priority, the lower number, comes last; of equal ones that for any mode comes
    ///   before that for this one, and otherwise the order is that given.
    /// - Disabled layers, those of another provider or mode, and those of blanks only are left out.
    /// - Fails with the first layer in that order that is past a limit.
    pub fn resolve<'l>(
        layers: impl IntoIterator<Item = &'l InstructionLayer>,
        provider: &ProviderId,
        mode: AgentMode,
    ) -> Result<Self, InstructionsTooLong> {
        let applies = |layer: &&InstructionLayer| {
            layer.enabled
                && layer.provider.as_ref().is_none_or(|wanted| wanted == provider)
                && layer.mode.is_none_or(|wanted| wanted == mode)
        };
        let mut applying: Vec<_> = layers
            .into_iter()
            .filter(applies)
            .map(|layer| (layer, layer.content_md.trim()))
            .filter(|(_, told)| !told.is_empty())
            .collect();
        applying.sort_by_key(|(layer, _)| {
            (layer.scope, layer.provider.is_some(), Reverse(layer.priority), layer.mode.is_some())
        });
        check(&applying)?;
        let text = applying.iter().map(|(_, told)| *told).collect::<Vec<_>>().join(BETWEEN);
        let layers = applying.into_iter().map(|(layer, told)| LayerRecord::of(layer, told.len())).collect();
        Ok(Self { layers, sha256: sha256(&text), text })
    }

    /// Checks the content of a layer alone.
    pub fn check_layer(content_md: &str) -> Result<(), Invalid> {
        const FIELD: &str = "content_md";
        Invalid::text(FIELD, content_md, 1, Self::MAX_LAYER_BYTES)?;
        if content_md.len() > Self::MAX_LAYER_BYTES {
            let (bytes, most) = (content_md.len(), Self::MAX_LAYER_BYTES);
            return Err(Invalid::new(FIELD, format!("must have at most {most} bytes, it has {bytes}")));
        }
        Invalid::no_nul(FIELD, content_md)
    }

    /// The layers, each with what it said; nothing, for runs from before the layers' lengths were kept.
    pub fn told(&self) -> Option<Vec<(&LayerRecord, &str)>> {
        let mut at = 0;
        let told = self.layers.iter().map(|layer| {
            let end = at + layer.bytes?;
            let part = self.text.get(at..end)?;
            at = end + BETWEEN.len();
            Some((layer, part))
        });
        told.collect()
    }
}

/// Checks the limits, in the order in which the layers are told.
fn check(applying: &[(&InstructionLayer, &str)]) -> Result<(), InstructionsTooLong> {
    let mut whole = 0;
    for (layer, told) in applying {
        let bytes = told.len();
        let name =
            || LayerName { scope: layer.scope, source: layer.source.clone(), priority: layer.priority };
        if bytes > ResolvedInstructions::MAX_LAYER_BYTES {
            return Err(InstructionsTooLong::Layer { layer: name(), bytes });
        }
        whole += bytes + if whole == 0 { 0 } else { BETWEEN.len() };
        if whole > ResolvedInstructions::MAX_BYTES {
            return Err(InstructionsTooLong::Whole { layer: name(), bytes, whole });
        }
    }
    Ok(())
}

impl LayerRecord {
    fn of(layer: &InstructionLayer, bytes: usize) -> Self {
        Self {
            scope: layer.scope,
            source: layer.source.clone(),
            priority: layer.priority,
            sha256: layer.content_sha256.clone().unwrap_or_else(|| sha256(&layer.content_md)),
            bytes: Some(bytes),
        }
    }
}

/// SHA-256 in hexadecimal.
fn sha256(text: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digest = Sha256::digest(text);
    digest
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|half| char::from(DIGITS[usize::from(half)]))
        .collect()
}
