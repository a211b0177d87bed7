use lime_core::agents::DefaultInstruction;
use lime_core::runs::ProviderId;
use lime_core::{Id, Invalid, Stored};
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;

use crate::{Key, Row};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "default_agent_instructions")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub tenant_id: i64,
    pub provider: String,
    pub content_md: String,
    pub enabled: bool,
    pub version: i64,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Row for DefaultInstruction {
    type Table = Entity;
    type Model = Model;
    type Active = ActiveModel;
    const KEY: Key<Entity> = Key {
        id: Column::Id,
        tenant_id: Column::TenantId,
        version: Column::Version,
        updated_at: Column::UpdatedAt,
    };

    fn stored(model: Model) -> Result<Stored<Self>, Invalid> {
        Ok(Stored {
            id: Id::new(model.id),
            version: model.version,
            created_at: model.created_at,
            updated_at: model.updated_at,
            value: Self {
                provider: provider(model.provider)?,
                enabled: model.enabled,
                content_md: model.content_md,
            },
        })
    }

    fn active(self) -> ActiveModel {
        ActiveModel {
            provider: Set(self.provider_word().to_owned()),
            enabled: Set(self.enabled),
            content_md: Set(self.content_md),
            ..Default::default()
        }
    }
}

/// The provider of this word; none, for any.
pub(crate) fn provider(word: String) -> Result<Option<ProviderId>, Invalid> {
    (word != DefaultInstruction::ANY).then(|| ProviderId::parse(word)).transpose()
}
