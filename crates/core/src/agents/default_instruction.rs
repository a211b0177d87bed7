use super::{InstructionLayer, LayerScope, LayerSource, ResolvedInstructions};
use crate::runs::ProviderId;
use crate::{Editable, Invalid, Stored, entity};

/// What all agents of a tenant are told, or all of one provider (000 §5.12 default_agent_instructions).
///
/// - One for each provider, and one for any, which is told before the provider's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultInstruction {
    /// The provider; any, if none.
    pub provider: Option<ProviderId>,
    /// Whether it is told.
    pub enabled: bool,
    /// The instructions, in Markdown: 1 to [`MAX_LAYER_BYTES`](ResolvedInstructions::MAX_LAYER_BYTES) bytes.
    pub content_md: String,
}

impl DefaultInstruction {
    /// The provider's word in the database where it is for any.
    pub const ANY: &'static str = "any";

    /// The provider's word in the database.
    pub fn provider_word(&self) -> &str {
        self.provider.as_ref().map_or(Self::ANY, ProviderId::as_str)
    }
}

impl From<Stored<DefaultInstruction>> for InstructionLayer {
    fn from(stored: Stored<DefaultInstruction>) -> Self {
        let DefaultInstruction { provider, enabled, content_md } = stored.value;
        let layer = Self::new(LayerScope::Default, LayerSource::Default(stored.id), content_md);
        Self { provider, enabled, ..layer }
    }
}

entity! {
    DefaultInstruction as "default instruction" in "default_agent_instructions" {
        PROVIDER: String = provider => |instruction| instruction.provider_word();
        ENABLED: bool = enabled => |instruction| instruction.enabled;
    }
    unique [PROVIDER];
    validate |instruction| {
        if instruction.provider.as_ref().is_some_and(|provider| provider.as_str() == DefaultInstruction::ANY) {
            return Err(Invalid::new("provider", "must be none for any provider; `any` is not a provider's name"));
        }
        ResolvedInstructions::check_layer(&instruction.content_md)
    };
}
impl Editable for DefaultInstruction {}
