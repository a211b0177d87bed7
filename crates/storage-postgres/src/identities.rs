use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use lime_core::identity::{
    Identity, LoginSession, Membership, NewSession, SignedIn, Tenant, TokenHash, User,
};
use lime_core::ports::Identities;
use lime_core::{Entity, Error, ErrorKind, Id, Invalid, Result, Scope, Stored};
use sea_orm::{ConnectionTrait, FromQueryResult, QueryResult, Value};
use tracing::{Instrument, Span};

use crate::PgStorage;
use crate::error::{Doing, about, unnamed};
use crate::fence;
use crate::members::{MEMBER, member};
use crate::storage::{commit, span, sql};
use crate::tenants;

#[derive(FromQueryResult)]
struct IdentityRow {
    id: i64,
    email: String,
    name: Option<String>,
    avatar_url: Option<String>,
    email_verified: bool,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

#[derive(FromQueryResult)]
struct SessionRow {
    id: i64,
    identity_id: i64,
    expires_at: DateTime<Utc>,
    ip_address: Option<String>,
    user_agent: Option<String>,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<IdentityRow> for Stored<Identity> {
    fn from(row: IdentityRow) -> Self {
        Self {
            id: Id::new(row.id),
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
            value: Identity {
                email: row.email,
                name: row.name,
                avatar_url: row.avatar_url,
                email_verified: row.email_verified,
            },
        }
    }
}

impl From<SessionRow> for Stored<LoginSession> {
    fn from(row: SessionRow) -> Self {
        Self {
            id: Id::new(row.id),
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
            value: LoginSession {
                identity_id: Id::new(row.identity_id),
                expires_at: row.expires_at,
                ip_address: row.ip_address.and_then(|address| address.parse().ok()),
                user_agent: row.user_agent,
            },
        }
    }
}

const SESSION: &str = "session.id, session.identity_id, session.expires_at, session.ip_address, session.user_agent, \
                       session.version, session.created_at, session.updated_at";

/// The first row of a statement, if there is one.
async fn one<T: FromQueryResult>(
    db: &impl ConnectionTrait,
    operation: &'static str,
    statement: String,
    values: impl IntoIterator<Item = Value>,
) -> Result<Option<T>> {
    let found = db.query_one_raw(sql(statement, values)).await.map_err(|error| unnamed(operation, &error))?;
    let row = found.map(|row| T::from_query_result(&row, "")).transpose();
    row.map_err(|error| unnamed(operation, &error))
}

fn hash(token: &TokenHash) -> Value {
    token.bytes().to_vec().into()
}

fn seconds(length: Duration) -> Value {
    length.as_secs_f64().into()
}

fn here(operation: &'static str, table: &'static str) -> Span {
    tracing::debug_span!("storage", operation, table)
}

async fn identify(db: &impl ConnectionTrait, identity: Identity) -> Result<Stored<Identity>> {
    const OPERATION: &str = "identities.identify";
    let columns =
        "id, email::text AS email, name, avatar_url, email_verified, version, created_at, updated_at";
    let email: Value = identity.email.into();
    let statement = format!(
        "INSERT INTO identities AS known (email, name, avatar_url, email_verified) VALUES ($1::citext, $2, $3, $4)
         ON CONFLICT (email) DO UPDATE
         SET email_verified = TRUE, version = known.version + 1, updated_at = clock_timestamp()
         WHERE excluded.email_verified AND NOT known.email_verified
         RETURNING {columns}"
    );
    let values =
        [email.clone(), identity.name.into(), identity.avatar_url.into(), identity.email_verified.into()];
    if let Some(row) = one::<IdentityRow>(db, OPERATION, statement, values).await? {
        return Ok(row.into());
    }
    let known = format!("SELECT {columns} FROM identities WHERE email = $1::citext");
    let known = one::<IdentityRow>(db, OPERATION, known, [email]).await?;
    known.map(Into::into).ok_or_else(|| {
        let message = "somebody else removes this person right now; try again";
        Error::new(ErrorKind::Conflict, OPERATION, message).retry(lime_core::Retry::After(None))
    })
}

const LINK: &str = "identities.link_user";

async fn link(
    db: &impl ConnectionTrait,
    scope: &Scope,
    user: Id<User>,
    identity: Id<Identity>,
) -> Result<()> {
    let statement = "WITH linked AS (
             UPDATE users SET identity_id = $3, version = version + 1, updated_at = clock_timestamp()
             WHERE tenant_id = $1 AND id = $2 AND identity_id IS NULL
         )
         SELECT identity_id FROM users WHERE tenant_id = $1 AND id = $2";
    let values = [scope.tenant().raw().into(), user.raw().into(), identity.raw().into()];
    let before = db.query_one_raw(sql(statement, values)).await;
    let before = before.map_err(|error| about::<User>(LINK, Doing::Write, &error))?;
    let Some(before) = before else { return Err(Error::not_found(LINK, User::NAME, user)) };
    let known: Option<i64> = before.try_get("", "identity_id").map_err(|error| unnamed(LINK, &error))?;
    match known {
        Some(known) if known != identity.raw() => {
            let message = "this user is another person already; make another user";
            Err(Error::new(ErrorKind::Conflict, LINK, message).with("user", user))
        }
        Some(_) | None => Ok(()),
    }
}

async fn memberships(db: &impl ConnectionTrait, identity: Id<Identity>) -> Result<Vec<Membership>> {
    const OPERATION: &str = "identities.memberships";
    let statement = format!(
        "SELECT tenant.*, {MEMBER} FROM users AS member
         JOIN tenants AS tenant ON tenant.id = member.tenant_id AND tenant.deleted_at IS NULL
         WHERE member.identity_id = $1 ORDER BY tenant.id"
    );
    let rows = db.query_all_raw(sql(statement, [identity.raw().into()])).await;
    let membership = |row: &QueryResult| {
        let user =
            member(OPERATION, row)?.ok_or_else(|| Error::not_found(OPERATION, "identity", identity))?;
        Ok(Membership { tenant: tenants::read(OPERATION, row)?, user: user.user })
    };
    rows.map_err(|error| unnamed(OPERATION, &error))?.iter().map(membership).collect()
}

async fn open(db: &impl ConnectionTrait, session: NewSession) -> Result<Stored<LoginSession>> {
    const OPERATION: &str = "identities.open_session";
    let statement = format!(
        "WITH forgotten AS (
             DELETE FROM login_sessions WHERE identity_id = $1 AND expires_at <= clock_timestamp()
         )
         INSERT INTO login_sessions AS session (identity_id, token_hash, expires_at, ip_address, user_agent)
         VALUES ($1, $2, clock_timestamp() + $3 * interval '1 s', $4, $5) RETURNING {SESSION}"
    );
    let values = [
        session.identity_id.raw().into(),
        hash(&session.token),
        seconds(session.lasts),
        session.ip_address.map(|address| address.to_string()).into(),
        session.user_agent().into(),
    ];
    let opened = one::<SessionRow>(db, OPERATION, statement, values).await?;
    opened
        .map(Into::into)
        .ok_or_else(|| Error::new(ErrorKind::Unexpected, OPERATION, "the session was not written"))
}

async fn find_in(
    db: &impl ConnectionTrait,
    token: &TokenHash,
    tenant: Id<Tenant>,
) -> Result<Option<SignedIn>> {
    const OPERATION: &str = "identities.find_member";
    let statement = format!(
        "SELECT {SESSION}, {MEMBER} FROM login_sessions AS session
         LEFT JOIN (users AS member JOIN tenants AS tenant
                    ON tenant.id = member.tenant_id AND tenant.deleted_at IS NULL)
         ON member.tenant_id = $2 AND member.identity_id = session.identity_id
         WHERE session.token_hash = $1 AND session.expires_at > clock_timestamp()"
    );
    let found = db.query_one_raw(sql(statement, [hash(token), tenant.raw().into()])).await;
    let Some(row) = found.map_err(|error| unnamed(OPERATION, &error))? else { return Ok(None) };
    let session = SessionRow::from_query_result(&row, "").map_err(|error| unnamed(OPERATION, &error))?;
    Ok(Some(SignedIn { session: session.into(), member: member(OPERATION, &row)? }))
}

fn check_length(operation: &'static str, lasts: Duration) -> Result<()> {
    LoginSession::check_length(lasts).map_err(|invalid: Invalid| invalid.refused(operation, "session"))
}

#[async_trait]
impl Identities for PgStorage {
    async fn identify(&self, identity: Identity) -> Result<Stored<Identity>> {
        const OPERATION: &str = "identities.identify";
        identity.validate().map_err(|invalid| invalid.refused(OPERATION, "identity"))?;
        identify(self.connection(), identity).instrument(here(OPERATION, "identities")).await
    }

    async fn link_user(&self, scope: &Scope, user: Id<User>, identity: Id<Identity>) -> Result<()> {
        let (this, scope) = (self.clone(), scope.clone());
        let span = span(LINK, scope.tenant(), User::TABLE);
        let work = async move {
            let tx = this.begin(LINK).await?;
            fence::hold(&tx, &scope, LINK).await?;
            link(&tx, &scope, user, identity).await?;
            commit(LINK, tx).await
        };
        self.detached(LINK, span, work).await
    }

    async fn memberships(&self, identity: Id<Identity>) -> Result<Vec<Membership>> {
        let span = here("identities.memberships", "users");
        memberships(self.connection(), identity).instrument(span).await
    }

    async fn open_session(&self, session: NewSession) -> Result<Stored<LoginSession>> {
        const OPERATION: &str = "identities.open_session";
        check_length(OPERATION, session.lasts)?;
        open(self.connection(), session).instrument(here(OPERATION, "login_sessions")).await
    }

    async fn find_session(&self, token: &TokenHash) -> Result<Option<Stored<LoginSession>>> {
        const OPERATION: &str = "identities.find_session";
        let statement = format!(
            "SELECT {SESSION} FROM login_sessions AS session
             WHERE token_hash = $1 AND expires_at > clock_timestamp()"
        );
        let found = one::<SessionRow>(self.connection(), OPERATION, statement, [hash(token)]);
        Ok(found.instrument(here(OPERATION, "login_sessions")).await?.map(Into::into))
    }

    async fn find_member(&self, token: &TokenHash, tenant: Id<Tenant>) -> Result<Option<SignedIn>> {
        let span = span("identities.find_member", tenant, "login_sessions");
        find_in(self.connection(), token, tenant).instrument(span).await
    }

    async fn extend_session(&self, token: &TokenHash, lasts: Duration) -> Result<Stored<LoginSession>> {
        const OPERATION: &str = "identities.extend_session";
        check_length(OPERATION, lasts)?;
        let statement = format!(
            "UPDATE login_sessions AS session
             SET expires_at = clock_timestamp() + $2 * interval '1 s', version = version + 1,
                 updated_at = clock_timestamp()
             WHERE token_hash = $1 AND expires_at > clock_timestamp() RETURNING {SESSION}"
        );
        let values = [hash(token), seconds(lasts)];
        let extended = one::<SessionRow>(self.connection(), OPERATION, statement, values);
        let extended = extended.instrument(here(OPERATION, "login_sessions")).await?;
        extended
            .map(Into::into)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, OPERATION, "the session has ended; sign in again"))
    }

    async fn end_session(&self, token: &TokenHash) -> Result<()> {
        const OPERATION: &str = "identities.end_session";
        let ended = sql("DELETE FROM login_sessions WHERE token_hash = $1", [hash(token)]);
        let ended = self.connection().execute_raw(ended).instrument(here(OPERATION, "login_sessions")).await;
        ended.map(drop).map_err(|error| unnamed(OPERATION, &error))
    }

    async fn end_sessions(&self, identity: Id<Identity>) -> Result<usize> {
        const OPERATION: &str = "identities.end_sessions";
        let statement =
            "WITH ended AS (DELETE FROM login_sessions WHERE identity_id = $1 RETURNING expires_at)
             SELECT count(*) AS number FROM ended WHERE expires_at > clock_timestamp()";
        let span = here(OPERATION, "login_sessions");
        let ended = self.connection().query_one_raw(sql(statement, [identity.raw().into()]));
        let row = ended.instrument(span).await.map_err(|error| unnamed(OPERATION, &error))?;
        let number = row.map_or(Ok(0), |row| row.try_get::<i64>("", "number"));
        number
            .map(|number| usize::try_from(number).unwrap_or_default())
            .map_err(|error| unnamed(OPERATION, &error))
    }
}
