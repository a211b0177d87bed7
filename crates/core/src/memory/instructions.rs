use async_trait::async_trait;

use super::MemoryStorage;
use crate::agents::{CustomInstruction, DefaultInstruction, InstructionLayer};
use crate::ports::{InstructionSource, RunTarget};
use crate::{Result, Scope};

#[async_trait]
impl InstructionSource for MemoryStorage {
    async fn layers(&self, scope: &Scope, target: RunTarget) -> Result<Vec<InstructionLayer>> {
        let mut state = self.lock();
        let defaults = state.table::<DefaultInstruction>().rows.values();
        let defaults = defaults.filter(|row| row.tenant == scope.tenant() && row.stored.enabled);
        let mut layers: Vec<InstructionLayer> = defaults.map(|row| row.stored.clone().into()).collect();
        let customs = state.table::<CustomInstruction>().rows.values();
        let customs = customs.filter(|row| row.tenant == scope.tenant() && row.stored.enabled);
        let customs = customs.filter(|row| row.stored.scope.applies(target));
        layers.extend(customs.map(|row| InstructionLayer::from(row.stored.clone())));
        Ok(layers)
    }
}
