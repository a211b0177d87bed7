//! What a database error means to a caller.
//!
//! - Decided by SQLSTATE. The server's own words are kept only in the classes that never quote a value; the
//!   driver's error is not attached as a source, since its text can hold values, and a URL with a password.

use std::sync::Arc;

use lime_core::{Entity, Error, ErrorKind, Retry};
use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr, SqlxError, SqlxPostgresError};

/// What a write was about to do, since a broken reference means different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    Write,
    Delete,
}

/// The error of an operation on an entity.
pub(crate) fn about<E: Entity>(operation: &'static str, doing: Doing, error: &DbErr) -> Error {
    match database_error(error) {
        Some(database) => match database.code() {
            "23505" => {
                let fields = unique_fields::<E>(database.constraint().unwrap_or_default());
                let message = format!("a {} with the same {fields} exists", E::NAME);
                Error::new(ErrorKind::AlreadyExists, operation, message)
            }
            "23503" if doing == Doing::Delete => {
                let user = database.table().unwrap_or("others");
                let message =
                    format!("this {} is still used by {user}; delete or change those first", E::NAME);
                Error::new(ErrorKind::Conflict, operation, message)
            }
            _ => of_code(operation, E::NAME, E::TABLE, database),
        },
        None => broken(operation, error),
    }
}

/// The error of an operation that is about no entity.
pub(crate) fn unnamed(operation: &'static str, error: &DbErr) -> Error {
    match database_error(error) {
        Some(database) => of_code(operation, "row", database.table().unwrap_or_default(), database),
        None => broken(operation, error),
    }
}

/// The error of a connection that could not be opened.
pub(crate) fn connecting(error: &DbErr) -> Error {
    const OPERATION: &str = "storage.connect";
    let unparsed = matches!(error, DbErr::Conn(RuntimeErr::Internal(_)))
        || matches!(driver_error(error), Some(SqlxError::Configuration(_)));
    if unparsed {
        let message =
            "the database's URL cannot be read; it looks like postgres://user:password@host/database";
        return Error::invalid(OPERATION, message);
    }
    unnamed(OPERATION, error)
}

/// An error of the driver itself, as SeaORM has it.
pub(crate) fn driver(error: SqlxError) -> DbErr {
    match error {
        SqlxError::PoolTimedOut => DbErr::ConnectionAcquire(ConnAcquireErr::Timeout),
        SqlxError::PoolClosed => DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed),
        error => DbErr::Query(RuntimeErr::SqlxError(Arc::new(error))),
    }
}

fn driver_error(error: &DbErr) -> Option<&SqlxError> {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(error))
        | DbErr::Exec(RuntimeErr::SqlxError(error))
        | DbErr::Query(RuntimeErr::SqlxError(error)) => Some(error),
        _ => None,
    }
}

fn database_error(error: &DbErr) -> Option<&SqlxPostgresError> {
    match driver_error(error)? {
        SqlxError::Database(error) => error.try_downcast_ref(),
        _ => None,
    }
}

/// `<table>_<columns>_key` in words.
fn unique_fields<E: Entity>(constraint: &str) -> String {
    let columns = |group: &[lime_core::Column<E>], separator| {
        group.iter().map(|column| column.name).collect::<Vec<_>>().join(separator)
    };
    let named =
        |group: &&&[lime_core::Column<E>]| constraint == format!("{}_{}_key", E::TABLE, columns(group, "_"));
    match E::UNIQUE.iter().find(named) {
        Some(group) => columns(group, ", "),
        None => field(E::TABLE, constraint).to_owned(),
    }
}

/// `<table>_<field>_<kind>` without its ends.
fn field<'a>(table: &str, constraint: &'a str) -> &'a str {
    let inner = constraint.strip_prefix(table).map_or(constraint, |rest| rest.trim_start_matches('_'));
    ["_fkey", "_check", "_key", "_idx"].iter().find_map(|end| inner.strip_suffix(end)).unwrap_or(inner)
}

fn of_code(operation: &'static str, name: &str, table: &str, database: &SqlxPostgresError) -> Error {
    let code = database.code();
    let field = database.column().unwrap_or_else(|| field(table, database.constraint().unwrap_or_default()));
    let invalid = |rule: &str| {
        let field = if field.is_empty() { "a value" } else { field };
        Error::invalid(operation, format!("this {name} cannot be stored: {field}: {rule}"))
    };
    let said = |kind, what: &str| Error::new(kind, operation, format!("{what}: {}", database.message()));
    let again = |error: Error| error.retry(Retry::After(None));
    let error = match code {
        "23505" => {
            Error::new(ErrorKind::AlreadyExists, operation, format!("a {name} with the same {field} exists"))
        }
        "23503" => invalid("there is no such row in this tenant"),
        "23502" => invalid("must be given"),
        "23514" => invalid("breaks the table's rule"),
        "22001" => invalid("is too long"),
        "22P05" | "22021" => invalid("must not contain the NUL character, and must be UTF-8"),
        "22003" => invalid("is too great a number"),
        // What `tenants_check_open` raises.
        "LM001" => Error::new(ErrorKind::Conflict, operation, database.message()),
        "40001" | "40P01" => {
            let message = "somebody else changed the same rows at once; try again";
            again(Error::new(ErrorKind::Conflict, operation, message))
        }
        "57014" | "55P03" => {
            Error::new(ErrorKind::Timeout, operation, "the database took longer than allowed")
        }
        "42P01" | "42703" => said(ErrorKind::Missing, "the database is not up to date; migrate it"),
        "3D000" => said(ErrorKind::Missing, "the database is missing; create it"),
        "42501" => said(ErrorKind::PermissionDenied, "the database user may not do this"),
        "25006" => said(ErrorKind::Unavailable, "the database only reads at the moment"),
        _ => match code.get(..2) {
            Some("22" | "23") => invalid("the database refused it"),
            Some("54") => invalid("is too long for the database"),
            Some("28") => said(ErrorKind::Unauthenticated, "the database refused the login"),
            Some("08" | "53" | "57" | "58") => {
                said(ErrorKind::Unavailable, "the database does not answer as it should")
            }
            Some("42") => said(ErrorKind::Unexpected, "the database does not understand the statement"),
            _ => Error::new(ErrorKind::Unexpected, operation, "the database refused the statement"),
        },
    };
    error.with("sqlstate", code)
}

fn broken(operation: &'static str, error: &DbErr) -> Error {
    let unavailable = |message: &str| Error::new(ErrorKind::Unavailable, operation, message);
    if let DbErr::ConnectionAcquire(ConnAcquireErr::Timeout) = error {
        return unavailable(
            "no connection to the database became free in time; is it up, are there enough of them, are calls slow?",
        );
    }
    if let DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed) = error {
        return unavailable("the storage is closed");
    }
    match driver_error(error) {
        Some(SqlxError::Io(io)) => unavailable("the database cannot be reached")
            .because(std::io::Error::new(io.kind(), io.to_string())),
        Some(SqlxError::Tls(_)) => unavailable("the encrypted connection to the database failed"),
        Some(SqlxError::Protocol(_) | SqlxError::WorkerCrashed | SqlxError::BeginFailed) => {
            unavailable("the connection to the database broke")
        }
        Some(SqlxError::PoolTimedOut) => {
            unavailable("the database does not answer; is it up, and is its address right?")
        }
        _ => match error {
            DbErr::Conn(_) => unavailable("the database cannot be reached"),
            DbErr::Type(_) | DbErr::Json(_) | DbErr::Query(_) | DbErr::TryIntoErr { .. } => {
                let message =
                    "the database gave what this version cannot read; was it migrated by another one?";
                Error::new(ErrorKind::Corrupt, operation, message)
            }
            DbErr::Custom(_) | DbErr::Migration(_) => {
                let message = "the database was migrated by another version; use that one, or a newer";
                Error::new(ErrorKind::Conflict, operation, message)
            }
            _ => Error::new(ErrorKind::Unexpected, operation, "the call to the database failed"),
        },
    }
}
