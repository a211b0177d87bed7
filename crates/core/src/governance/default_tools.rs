use super::{Allowlist, ToolPattern};
use crate::runs::ProviderId;
use crate::{Editable, Invalid, entity};

/// The tools that a tenant's agents have unless something narrows them (000 §5.12 default_agent_tools).
///
/// - One for each provider, and one for any. A provider's own narrows that for any; see
///   [`Allowlist::defaults`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultTools {
    /// The provider; any, if none.
    pub provider: Option<ProviderId>,
    /// What may be called, such as `Read` or `Bash(git *)`; nothing, if empty. Up to 200.
    pub allowed: Vec<ToolPattern>,
    /// What is never called, whatever is allowed (ours). Up to 200.
    pub denied: Vec<ToolPattern>,
    /// Whether it counts.
    pub enabled: bool,
}

impl DefaultTools {
    /// The provider's word in the database where it is for any.
    pub const ANY: &'static str = "any";

    /// The provider's word in the database.
    pub fn provider_word(&self) -> &str {
        self.provider.as_ref().map_or(Self::ANY, ProviderId::as_str)
    }
}

entity! {
    DefaultTools as "list of default tools" in "default_agent_tools" {
        PROVIDER: String = provider => |tools| tools.provider_word();
        ENABLED: bool = enabled => |tools| tools.enabled;
    }
    unique [PROVIDER];
    validate |tools| {
        if tools.provider.as_ref().is_some_and(|provider| provider.as_str() == DefaultTools::ANY) {
            return Err(Invalid::new("provider", "must be none for any provider; `any` is not a provider's name"));
        }
        for (field, patterns) in [("allowed_tools_json", &tools.allowed), ("denied_tools_json", &tools.denied)] {
            if patterns.len() > Allowlist::MAX_PATTERNS {
                return Err(Invalid::new(field, format!("must be at most {}", Allowlist::MAX_PATTERNS)));
            }
        }
        Ok(())
    };
}
impl Editable for DefaultTools {}
