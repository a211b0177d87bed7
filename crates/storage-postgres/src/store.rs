//! The one generic store.

use async_trait::async_trait;
use lime_core::governance::{SealedStore, Sealing};
use lime_core::{
    Condition, Editable, Error, ErrorKind, Id, Lookup, Page, Query, Result, Scope, Store, Stored,
};
use sea_orm::sea_query::extension::postgres::PgFunc;
use sea_orm::sea_query::{self, Cond, Expr, ExprTrait, SimpleExpr};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, DbErr, EntityName, EntityTrait, FromQueryResult,
    IdenStatic, Iterable, QueryFilter, QueryOrder, QuerySelect, Value,
};
use tracing::Instrument;

use crate::error::{Doing, about};
use crate::storage::{span, sql};
use crate::{PgStorage, Row, fence};

/// Reads a row into its entity.
pub(crate) fn read<E: Row>(operation: &'static str, model: E::Model) -> Result<Stored<E>> {
    E::stored(model).map_err(|invalid| {
        let message = format!("a stored {} cannot be read by this version: {invalid}", E::NAME);
        Error::new(ErrorKind::Corrupt, operation, message)
    })
}

/// The rows of the scope's tenant.
fn ours<E: Row>(scope: &Scope) -> SimpleExpr {
    E::KEY.tenant_id.eq(scope.tenant().raw())
}

/// The version that somebody has read, if it is still the newest.
fn newest<E: Row>(scope: &Scope, id: Id<E>, version: i64) -> SimpleExpr {
    ours::<E>(scope).and(E::KEY.id.eq(id.raw())).and(E::KEY.version.eq(version))
}

fn value(value: &lime_core::Value) -> Option<Value> {
    match value {
        lime_core::Value::Null => None,
        lime_core::Value::Bool(flag) => Some((*flag).into()),
        lime_core::Value::Int(number) => Some((*number).into()),
        lime_core::Value::Text(text) => Some(text.as_str().into()),
        lime_core::Value::Time(time) => Some((*time).into()),
    }
}

fn column<E: Row>(operation: &'static str, name: &str) -> Result<<E::Table as EntityTrait>::Column> {
    <E::Table as EntityTrait>::Column::iter().find(|column| column.as_str() == name).ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, operation, format!("the table {} has no column {name}", E::TABLE))
    })
}

/// A condition in SQL; a null among the values matches nothing, and neither do no values.
fn condition<E: Row>(operation: &'static str, condition: &Condition<E>) -> Result<SimpleExpr> {
    Ok(match condition {
        Condition::Null(name) => column::<E>(operation, name.name)?.is_null(),
        Condition::AnyOf(name, values) => {
            let column = column::<E>(operation, name.name)?;
            let mut values = values.iter().filter_map(value);
            match (values.next(), values.next()) {
                (None, _) => Expr::val(false),
                (Some(only), None) => column.eq(only),
                (Some(first), Some(second)) => column.is_in([first, second].into_iter().chain(values)),
            }
        }
    })
}

pub(crate) fn check<E: Row>(operation: &'static str, value: &E) -> Result<()> {
    value.validate().map_err(|invalid| invalid.refused(operation, E::NAME))
}

/// Inserts one row, if the scope's fence holds.
pub(crate) async fn insert<E: Row>(
    db: &impl ConnectionTrait,
    scope: &Scope,
    operation: &'static str,
    value: E,
) -> Result<Stored<E>> {
    insert_row::<E>(db, scope, operation, value.active()).await
}

async fn insert_row<E: Row>(
    db: &impl ConnectionTrait,
    scope: &Scope,
    operation: &'static str,
    mut row: E::Active,
) -> Result<Stored<E>> {
    row.set(E::KEY.tenant_id, scope.tenant().raw().into());
    let columns = <E::Table as EntityTrait>::Column::iter;
    let (names, values): (Vec<_>, Vec<_>) = columns()
        .filter_map(|column| Some((column, column.save_as(Expr::val(row.get(column).into_value()?)))))
        .unzip();
    let given = sea_query::Query::select()
        .exprs(values)
        .cond_where(Cond::all().add_option(fence::condition(scope, operation)?))
        .take();
    let mut statement = sea_query::Query::insert();
    statement
        .into_table(E::Table::default().table_ref())
        .columns(names)
        .select_from(given)
        .expect("there are as many columns as values")
        .returning(
            sea_query::Query::returning().exprs(columns().map(|column| column.select_as(Expr::col(column)))),
        );
    let failed = |error: DbErr| about::<E>(operation, Doing::Write, &error);
    match db.query_one(&statement).await.map_err(failed)? {
        Some(inserted) => read(operation, E::Model::from_query_result(&inserted, "").map_err(failed)?),
        None => Err(match scope.fence() {
            Some(lease) => Error::stale_lease(operation, lease),
            None => failed(DbErr::RecordNotInserted),
        }),
    }
}

/// Why a compare-and-set found nothing.
async fn missed<E: Row>(
    db: &impl ConnectionTrait,
    scope: &Scope,
    operation: &'static str,
    id: Id<E>,
    version: i64,
) -> Error {
    if let Err(error) = fence::hold(db, scope, operation).await {
        return error;
    }
    let newest = E::Table::find()
        .select_only()
        .column(E::KEY.version)
        .filter(ours::<E>(scope).and(E::KEY.id.eq(id.raw())))
        .into_tuple::<i64>()
        .one(db)
        .await;
    match newest {
        Err(error) => about::<E>(operation, Doing::Write, &error),
        Ok(None) => Error::not_found(operation, E::NAME, id),
        Ok(Some(newest)) => {
            let message = format!("the {} {} has been changed meanwhile; read it again", E::NAME, id);
            Error::new(ErrorKind::Conflict, operation, message)
                .with("version", version)
                .with("newest", newest)
        }
    }
}

#[async_trait]
impl<E: Row> Lookup<E> for PgStorage {
    async fn get(&self, scope: &Scope, id: Id<E>) -> Result<Stored<E>> {
        const OPERATION: &str = "store.get";
        let found = E::Table::find()
            .filter(ours::<E>(scope).and(E::KEY.id.eq(id.raw())))
            .one(&self.connection_of(scope))
            .instrument(span(OPERATION, scope.tenant(), E::TABLE))
            .await
            .map_err(|error| about::<E>(OPERATION, Doing::Write, &error))?;
        read(OPERATION, found.ok_or_else(|| Error::not_found(OPERATION, E::NAME, id))?)
    }

    async fn list(&self, scope: &Scope, query: &Query<E>) -> Result<Page<E>> {
        const OPERATION: &str = "store.list";
        let newest_first = query.is_newest_first();
        let mut select = E::Table::find().filter(ours::<E>(scope));
        for each in query.conditions() {
            select = select.filter(condition::<E>(OPERATION, each)?);
        }
        if let Some(ids) = query.ids() {
            let ids: Vec<i64> = ids.iter().map(|id| id.raw()).collect();
            select = select.filter(Expr::col(E::KEY.id).eq(PgFunc::any(ids)));
        }
        if let Some(cursor) = query.cursor() {
            let id = E::KEY.id;
            select = select.filter(if newest_first { id.lt(cursor.raw()) } else { id.gt(cursor.raw()) });
        }
        select = if newest_first { select.order_by_desc(E::KEY.id) } else { select.order_by_asc(E::KEY.id) };
        let one_more = u64::try_from(query.page_size()).map_or(u64::MAX, |size| size.saturating_add(1));
        let found = select
            .limit(one_more)
            .all(&self.connection_of(scope))
            .instrument(span(OPERATION, scope.tenant(), E::TABLE))
            .await
            .map_err(|error| about::<E>(OPERATION, Doing::Write, &error))?;
        let items = found.into_iter().map(|model| read(OPERATION, model)).collect::<Result<_>>()?;
        Ok(Page::of(query, items))
    }
}

/// Each write is one statement, with the proof of the scope's fence in its condition: none needs a transaction.
#[async_trait]
impl<E: Row + Editable> Store<E> for PgStorage {
    async fn insert(&self, scope: &Scope, value: E) -> Result<Stored<E>> {
        const OPERATION: &str = "store.insert";
        check(OPERATION, &value)?;
        insert(&self.connection_of(scope), scope, OPERATION, value)
            .instrument(span(OPERATION, scope.tenant(), E::TABLE))
            .await
    }

    async fn update(&self, scope: &Scope, stored: &Stored<E>) -> Result<Stored<E>> {
        const OPERATION: &str = "store.update";
        check(OPERATION, &stored.value)?;
        let Stored { id, version, ref value, .. } = *stored;
        let db = &self.connection_of(scope);
        let update = async {
            let updated = E::Table::update_many()
                .set(value.clone().active())
                .col_expr(E::KEY.version, Expr::col(E::KEY.version).add(1))
                .col_expr(E::KEY.updated_at, Expr::cust("clock_timestamp()"))
                .filter(newest(scope, id, version))
                .filter(Cond::all().add_option(fence::condition(scope, OPERATION)?))
                .exec_with_returning(db)
                .await
                .map_err(|error| about::<E>(OPERATION, Doing::Write, &error))?
                .pop();
            match updated {
                Some(model) => read(OPERATION, model),
                None => Err(missed(db, scope, OPERATION, id, version).await),
            }
        };
        update.instrument(span(OPERATION, scope.tenant(), E::TABLE)).await
    }

    async fn delete(&self, scope: &Scope, stored: &Stored<E>) -> Result<()> {
        const OPERATION: &str = "store.delete";
        let (id, version) = (stored.id, stored.version);
        let db = &self.connection_of(scope);
        let delete = async {
            let deleted = E::Table::delete_many()
                .filter(newest(scope, id, version))
                .filter(Cond::all().add_option(fence::condition(scope, OPERATION)?))
                .exec(db)
                .await
                .map_err(|error| about::<E>(OPERATION, Doing::Delete, &error))?;
            match deleted.rows_affected {
                0 => Err(missed(db, scope, OPERATION, id, version).await),
                _ => Ok(()),
            }
        };
        delete.instrument(span(OPERATION, scope.tenant(), E::TABLE)).await
    }
}

#[async_trait]
impl<E: Row + Sealing> SealedStore<E> for PgStorage {
    async fn draw_id(&self, scope: &Scope) -> Result<Id<E>> {
        const OPERATION: &str = "store.draw_id";
        let draw = format!("SELECT nextval(pg_get_serial_sequence('{}', 'id')) AS id", E::TABLE);
        let db = self.connection_of(scope);
        let drawn =
            db.query_one_raw(sql(draw, [])).instrument(span(OPERATION, scope.tenant(), E::TABLE)).await;
        let id = drawn.and_then(|row| row.ok_or(DbErr::RecordNotInserted)?.try_get("", "id"));
        id.map(Id::new).map_err(|error| about::<E>(OPERATION, Doing::Write, &error))
    }

    async fn insert_as(&self, scope: &Scope, id: Id<E>, value: E) -> Result<Stored<E>> {
        const OPERATION: &str = "store.insert";
        check(OPERATION, &value)?;
        let mut row = value.active();
        row.set(E::KEY.id, id.raw().into());
        insert_row(&self.connection_of(scope), scope, OPERATION, row)
            .instrument(span(OPERATION, scope.tenant(), E::TABLE))
            .await
    }
}
