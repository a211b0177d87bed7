use lime_core::{Entity, Invalid, Stored};
use sea_orm::{ActiveModelBehavior, EntityTrait, FromQueryResult, IntoActiveModel, ModelTrait};

/// Binds an entity to its table; [`PgStorage`](crate::PgStorage) then is its store.
///
/// - The table has the columns `id`, `tenant_id`, `version`, `created_at` and `updated_at` beside the entity's own,
///   and constraints named `<table>_<columns>_key`, `_fkey` and `_check`, from which errors name the field.
/// - Every column that the entity declares is a column of the table with the same name.
///
/// ```
/// use lime_core::{Id, Invalid, Stored, entity};
/// use lime_storage_postgres::{Key, Row, sea_orm};
/// use sea_orm::ActiveValue::Set;
/// use sea_orm::entity::prelude::*;
///
/// #[derive(Debug, Clone)]
/// pub struct Label {
///     name: String,
/// }
/// entity! {
///     Label as "label" in "labels" {
///         NAME: String = name => |label| label.name.clone();
///     }
///     validate |label| Invalid::text("name", &label.name, 1, 40);
/// }
///
/// #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
/// #[sea_orm(table_name = "labels")]
/// pub struct Model {
///     #[sea_orm(primary_key)]
///     pub id: i64,
///     pub tenant_id: i64,
///     pub name: String,
///     pub version: i64,
///     pub created_at: DateTimeUtc,
///     pub updated_at: DateTimeUtc,
/// }
/// #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
/// pub enum Relation {}
/// impl ActiveModelBehavior for ActiveModel {}
///
/// impl Row for Label {
///     type Table = Entity;
///     type Model = Model;
///     type Active = ActiveModel;
///     const KEY: Key<Entity> = Key {
///         id: Column::Id,
///         tenant_id: Column::TenantId,
///         version: Column::Version,
///         updated_at: Column::UpdatedAt,
///     };
///
///     fn stored(model: Model) -> Result<Stored<Self>, Invalid> {
///         Ok(Stored {
///             id: Id::new(model.id),
///             version: model.version,
///             created_at: model.created_at,
///             updated_at: model.updated_at,
///             value: Self { name: model.name },
///         })
///     }
///
///     fn active(self) -> ActiveModel {
///         ActiveModel { name: Set(self.name), ..Default::default() }
///     }
/// }
/// ```
///
/// A table without a tenant does not compile as an entity's table (DESIGN, rule 3):
///
/// ```compile_fail,E0599
/// # use lime_core::{Id, Invalid, Stored, entity};
/// # use lime_storage_postgres::{Key, Row, sea_orm};
/// # use sea_orm::ActiveValue::Set;
/// # use sea_orm::entity::prelude::*;
/// #
/// # #[derive(Debug, Clone)]
/// # pub struct Label {
/// #     name: String,
/// # }
/// # entity! {
/// #     Label as "label" in "labels" {
/// #         NAME: String = name => |label| label.name.clone();
/// #     }
/// #     validate |label| Invalid::text("name", &label.name, 1, 40);
/// # }
/// #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
/// #[sea_orm(table_name = "labels")]
/// pub struct Model {
///     #[sea_orm(primary_key)]
///     pub id: i64,
///     // without: pub tenant_id: i64,
///     pub name: String,
///     pub version: i64,
///     pub created_at: DateTimeUtc,
///     pub updated_at: DateTimeUtc,
/// }
/// # #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
/// # pub enum Relation {}
/// # impl ActiveModelBehavior for ActiveModel {}
/// impl Row for Label {
///     type Table = Entity;
///     type Model = Model;
///     type Active = ActiveModel;
///     const KEY: Key<Entity> = Key {
///         id: Column::Id,
///         tenant_id: Column::TenantId, // there is no such column
///         version: Column::Version,
///         updated_at: Column::UpdatedAt,
///     };
///     // …
/// #
/// #     fn stored(model: Model) -> Result<Stored<Self>, Invalid> {
/// #         Ok(Stored {
/// #             id: Id::new(model.id),
/// #             version: model.version,
/// #             created_at: model.created_at,
/// #             updated_at: model.updated_at,
/// #             value: Self { name: model.name },
/// #         })
/// #     }
/// #
/// #     fn active(self) -> ActiveModel {
/// #         ActiveModel { name: Set(self.name), ..Default::default() }
/// #     }
/// }
/// ```
pub trait Row: Entity {
    /// The table.
    type Table: EntityTrait<Model = Self::Model, ActiveModel = Self::Active>;
    /// One row of it, as read.
    type Model: ModelTrait<Entity = Self::Table>
        + FromQueryResult
        + IntoActiveModel<Self::Active>
        + Send
        + Sync;
    /// One row of it, as written.
    type Active: ActiveModelBehavior<Entity = Self::Table> + Send;
    /// The columns that every table has.
    const KEY: Key<Self::Table>;

    /// Reads a row.
    ///
    /// - Fails if it is not in the form that this version knows.
    fn stored(model: Self::Model) -> Result<Stored<Self>, Invalid>;

    /// The entity's own columns, set; those of [`Row::KEY`] are left to the store.
    fn active(self) -> Self::Active;
}

/// The columns that the store itself needs of a table.
#[derive(Debug, Clone, Copy)]
pub struct Key<T: EntityTrait> {
    /// `id`
    pub id: T::Column,
    /// `tenant_id`
    pub tenant_id: T::Column,
    /// `version`
    pub version: T::Column,
    /// `updated_at`
    pub updated_at: T::Column,
}
