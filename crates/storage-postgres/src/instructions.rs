//! Everything that could be told to the agent of a run, by one statement.

use async_trait::async_trait;
use lime_core::agents::{InstructionLayer, LayerScope, LayerSource};
use lime_core::ports::{InstructionSource, RunTarget};
use lime_core::{Error, ErrorKind, Id, Invalid, Result, Scope};
use sea_orm::{ConnectionTrait, FromQueryResult};
use tracing::Instrument;

use crate::PgStorage;
use crate::error::unnamed;
use crate::storage::{span, sql};
use crate::tables::{custom_instruction, default_instruction};

const OPERATION: &str = "instructions.layers";

#[derive(FromQueryResult)]
struct Layer {
    scope_type: String,
    id: i64,
    provider: String,
    mode: String,
    priority: i32,
    content_md: String,
    content_sha256: String,
}

impl Layer {
    fn read(self) -> Result<InstructionLayer, Invalid> {
        let scope = LayerScope::parse(&self.scope_type)?;
        let source = match scope {
            LayerScope::Default => LayerSource::Default(Id::new(self.id)),
            _ => LayerSource::Custom(Id::new(self.id)),
        };
        Ok(InstructionLayer {
            provider: default_instruction::provider(self.provider)?,
            mode: custom_instruction::mode(&self.mode)?,
            priority: self.priority,
            content_sha256: Some(self.content_sha256),
            ..InstructionLayer::new(scope, source, self.content_md)
        })
    }
}

async fn layers(
    db: &impl ConnectionTrait,
    scope: &Scope,
    target: RunTarget,
) -> Result<Vec<InstructionLayer>> {
    // A row whose id is compared with null does not match.
    const LAYERS: &str = "SELECT 'default' AS scope_type, id, provider, 'any' AS mode, 100 AS priority, content_md, content_sha256
         FROM default_agent_instructions WHERE tenant_id = $1 AND enabled
         UNION ALL
         SELECT scope_type, id, 'any', mode, priority, content_md, content_sha256
         FROM custom_instructions
         WHERE tenant_id = $1 AND enabled AND (scope_type, scope_id) IN
             (('tenant', $1), ('project', $2), ('repository', $3), ('ticket', $4))";
    let values = [
        scope.tenant().raw().into(),
        target.project_id.raw().into(),
        target.repository_id.map(Id::raw).into(),
        target.ticket_id.map(Id::raw).into(),
    ];
    let rows = db.query_all_raw(sql(LAYERS, values)).await.map_err(|error| unnamed(OPERATION, &error))?;
    let read = |row| {
        let layer = Layer::from_query_result(row, "").map_err(|error| unnamed(OPERATION, &error))?;
        let id = layer.id;
        layer.read().map_err(|invalid| {
            let message = format!("stored instructions cannot be read by this version: {invalid}");
            Error::new(ErrorKind::Corrupt, OPERATION, message).with("id", id)
        })
    };
    rows.iter().map(read).collect()
}

#[async_trait]
impl InstructionSource for PgStorage {
    async fn layers(&self, scope: &Scope, target: RunTarget) -> Result<Vec<InstructionLayer>> {
        let span = span(OPERATION, scope.tenant(), "custom_instructions");
        layers(&self.connection_of(scope), scope, target).instrument(span).await
    }
}
