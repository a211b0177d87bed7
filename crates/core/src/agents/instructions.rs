//! What an agent is told, layer by layer (000 §5.10, §5.12, §11).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::runs::{AgentMode, ProviderId};
use crate::words::words;

words! {
    /// Where a layer comes from, in the order in which they are told.
    pub enum LayerScope: "scope_type" {
        /// The tenant's defaults, for any provider or one of them.
        Default = "default",
        /// The tenant.
        Tenant = "tenant",
        /// The project.
        Project = "project",
        /// The repository.
        Repository = "repository",
        /// The ticket.
        Ticket = "ticket",
    }
}

/// Some instructions, and when they apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstructionLayer {
    /// Where it comes from.
    pub scope: LayerScope,
    /// The row that it was read from, such as `custom_instructions 12`; a file or a name otherwise.
    pub source: String,
    /// The provider that it is for; any, if none. Only defaults have one.
    pub provider: Option<ProviderId>,
    /// The mode that it is for; any, if none.
    pub mode: Option<AgentMode>,
    /// Lower is stronger, and comes later within its scope.
    pub priority: i32,
    /// Whether it applies at all.
    pub enabled: bool,
    /// The instructions, in Markdown.
    pub content_md: String,
}

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
    /// The row or name that it was read from.
    pub source: String,
    /// Its priority.
    pub priority: i32,
    /// SHA-256 of its content, in hexadecimal.
    pub sha256: String,
}

impl ResolvedInstructions {
    /// Puts the layers in order for a provider and a mode.
    ///
    /// - default for any provider -> default for this one -> tenant -> project -> repository -> ticket; the
    ///   prompt comes after all of them, and is not part of it.
    /// - Within a scope the stronger priority, the lower number, comes last; equal ones in the order given.
    /// - Disabled layers, and those of another provider or mode, are left out.
    pub fn resolve(layers: &[InstructionLayer], provider: &ProviderId, mode: AgentMode) -> Self {
        let mut applying: Vec<_> = layers
            .iter()
            .filter(|layer| layer.enabled && !layer.content_md.trim().is_empty())
            .filter(|layer| layer.provider.as_ref().is_none_or(|wanted| wanted == provider))
            .filter(|layer| layer.mode.is_none_or(|wanted| wanted == mode))
            .collect();
        applying.sort_by_key(|layer| (layer.scope, layer.provider.is_some(), -i64::from(layer.priority)));
        let text = applying.iter().map(|layer| layer.content_md.trim()).collect::<Vec<_>>().join("\n\n");
        let layers = applying
            .into_iter()
            .map(|layer| LayerRecord {
                scope: layer.scope,
                source: layer.source.clone(),
                priority: layer.priority,
                sha256: hex(&layer.content_md),
            })
            .collect();
        Self { layers, sha256: hex(&text), text }
    }
}

fn hex(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CLAUDE: ProviderId = ProviderId::from_static("claude");

    fn layer(scope: LayerScope, priority: i32, content: &str) -> InstructionLayer {
        InstructionLayer {
            scope,
            source: content.to_owned(),
            provider: None,
            mode: None,
            priority,
            enabled: true,
            content_md: content.to_owned(),
        }
    }

    #[test]
    fn the_order_of_the_lead_document() {
        let own = InstructionLayer { provider: Some(CLAUDE), ..layer(LayerScope::Default, 100, "own") };
        let other = InstructionLayer {
            provider: Some(ProviderId::from_static("codex")),
            ..layer(LayerScope::Default, 100, "other")
        };
        let layers = [
            layer(LayerScope::Ticket, 100, "ticket"),
            layer(LayerScope::Repository, 100, "repository"),
            layer(LayerScope::Project, 1, "strong"),
            layer(LayerScope::Project, 200, "weak"),
            layer(LayerScope::Tenant, 100, "tenant"),
            own,
            other,
            layer(LayerScope::Default, 100, "any"),
        ];
        let resolved = ResolvedInstructions::resolve(&layers, &CLAUDE, AgentMode::Implement);
        assert_eq!(resolved.text.replace("\n\n", " "), "any own tenant weak strong repository ticket");
    }

    proptest! {
        #[test]
        fn the_order_of_input_does_not_matter_between_priorities(seed in 0u64..1000) {
            let mut layers: Vec<_> = LayerScope::ALL
                .iter()
                .enumerate()
                .flat_map(|(n, scope)| [layer(*scope, 1, &format!("{n}b")), layer(*scope, 2, &format!("{n}a"))])
                .collect();
            let straight = ResolvedInstructions::resolve(&layers, &CLAUDE, AgentMode::Plan);
            let mut state = seed;
            for at in (1..layers.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                layers.swap(at, usize::try_from(state >> 33).unwrap() % (at + 1));
            }
            let shuffled = ResolvedInstructions::resolve(&layers, &CLAUDE, AgentMode::Plan);
            prop_assert_eq!(straight, shuffled);
        }
    }
}
