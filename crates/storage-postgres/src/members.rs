//! People with what their roles permit, as authentication finds them.

use lime_core::identity::{Grant, Member, User};
use lime_core::{Error, ErrorKind, Id, Result};
use sea_orm::{DbErr, FromQueryResult, JsonValue, QueryResult};
use serde::Deserialize;

use crate::error::unnamed;
use crate::store::read;
use crate::tables::role::permissions;
use crate::tables::user;

/// The columns of a `member`, which is a row of `users` or none, and what their roles permit.
pub(crate) const MEMBER: &str = "
    member.id AS member_id, member.tenant_id AS member_tenant_id, member.email::text AS member_email,
    member.name AS member_name, member.github_user_id AS member_github_user_id, member.status AS member_status,
    member.version AS member_version, member.created_at AS member_created_at, member.updated_at AS member_updated_at,
    (SELECT jsonb_agg(jsonb_build_object('permissions', role.permissions_json, 'project', given.project_id)
                      ORDER BY given.id)
     FROM user_roles AS given JOIN roles AS role ON role.tenant_id = given.tenant_id AND role.id = given.role_id
     WHERE given.tenant_id = member.tenant_id AND given.user_id = member.id) AS grants";

#[derive(Deserialize)]
struct Given {
    permissions: JsonValue,
    project: Option<i64>,
}

/// The columns of [`MEMBER`] as a person; none where there was no row.
pub(crate) fn member(operation: &'static str, row: &QueryResult) -> Result<Option<Member>> {
    let columns = || -> Result<Option<(user::Model, Option<JsonValue>)>, DbErr> {
        if row.try_get::<Option<i64>>("", "member_id")?.is_none() {
            return Ok(None);
        }
        Ok(Some((user::Model::from_query_result(row, "member_")?, row.try_get("", "grants")?)))
    };
    let Some((model, given)) = columns().map_err(|error| unnamed(operation, &error))? else {
        return Ok(None);
    };
    let unread = || Error::new(ErrorKind::Corrupt, operation, "stored roles cannot be read by this version");
    let given: Vec<Given> = match given {
        Some(given) => serde_json::from_value(given).map_err(|_| unread())?,
        None => Vec::new(),
    };
    let grant = |given: Given| {
        let permissions = permissions("permissions_json", given.permissions).map_err(|_| unread())?;
        Ok(Grant { permissions, project_id: given.project.map(Id::new) })
    };
    let grants = given.into_iter().map(grant).collect::<Result<_>>()?;
    Ok(Some(Member { user: read::<User>(operation, model)?, grants }))
}
