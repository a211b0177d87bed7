//! `lime api-key`: the keys of a tenant.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use lime_core::identity::{ApiKey, Caller, KeyPrefix, Peppers, Permission, Permissions, User};
use lime_core::planning::Project;
use lime_core::ports::ApiKeys;
use lime_core::{Id, LookupExt, Query, Scope, Stored};
use lime_engine::{Authenticator, NewKey};
use secrecy::ExposeSecret;
use serde::Serialize;

use crate::args::{ApiKeyCommand, ApiKeyCreateArgs};
use crate::confirm::confirm;
use crate::desk::Desk;
use crate::environment;
use crate::exit::Failure;
use crate::out::{Table, say};
use crate::runs::find_project;
use crate::text::{ago, now, or_dash, stamp};
use crate::whose::Whose;

pub(crate) async fn run(desk: &Desk, command: ApiKeyCommand) -> Result<(), Failure> {
    match command {
        ApiKeyCommand::Create(args) => create(desk, args).await,
        ApiKeyCommand::List { all } => list(desk, all).await,
        ApiKeyCommand::Revoke { prefix } => revoke(desk, &prefix).await,
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct KeyView {
    id: Id<ApiKey>,
    prefix: String,
    name: String,
    user_id: Option<Id<User>>,
    project_id: Option<Id<Project>>,
    scopes: Permissions,
    created_at: DateTime<Utc>,
    last_used_at: Option<DateTime<Utc>>,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
}

impl From<Stored<ApiKey>> for KeyView {
    fn from(key: Stored<ApiKey>) -> Self {
        let Stored { id, created_at, value, .. } = key;
        Self {
            id,
            prefix: value.prefix.as_str().to_owned(),
            name: value.name,
            user_id: value.user_id,
            project_id: value.project_id,
            scopes: value.scopes,
            created_at,
            last_used_at: value.last_used_at,
            expires_at: value.expires_at,
            revoked_at: value.revoked_at,
        }
    }
}

#[derive(Serialize)]
struct Made<'a> {
    #[serde(flatten)]
    made: KeyView,
    key: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    api_keys: Vec<KeyView>,
}

async fn create(desk: &Desk, args: ApiKeyCreateArgs) -> Result<(), Failure> {
    let peppers = environment::variable(Peppers::VARIABLE).ok_or_else(|| {
        Failure::usage(format!(
            "with which pepper? Set {} as the servers have it, such as 1:KEY with KEY from `openssl rand -base64 32`",
            Peppers::VARIABLE
        ))
    })?;
    let peppers = Peppers::parse(&peppers.into())?;
    let whose = Whose::one(&desk.storage, desk.tenant.as_ref()).await?;
    let project_id = match &args.project {
        Some(project) => Some(find_project(desk, &whose, project).await?),
        None => None,
    };
    let user_id = match &args.user {
        Some(email) => Some(find_user(desk, &whose, email).await?),
        None => None,
    };
    let expires_at = args.expires_in.map(|age| {
        let length = TimeDelta::from_std(age.duration()).unwrap_or(TimeDelta::MAX);
        now().checked_add_signed(length).unwrap_or(DateTime::<Utc>::MAX_UTC)
    });
    let scopes: Permissions = args.scopes.into_iter().collect();
    let new = NewKey { name: args.name, scopes, user_id, project_id, expires_at };
    let authenticator = Authenticator::new(Arc::new(desk.storage.clone()), peppers);
    let issued = authenticator.create_key(&Caller::system(whose.scope), new).await?;
    let view = KeyView::from(issued.key);
    let prefix = view.prefix.clone();
    let secret = issued.secret.reveal();
    let key = secret.expose_secret();
    desk.out.answer(&Made { made: view, key }, || key.to_owned())?;
    if !desk.out.json {
        say(&format!("This key is shown only now. To take it back: lime api-key revoke {prefix}"));
    }
    Ok(())
}

async fn find_user(desk: &Desk, whose: &Whose, email: &str) -> Result<Id<User>, Failure> {
    let query = Query::all().filter(User::EMAIL.eq(email));
    match desk.storage.find(&whose.scope, query).await? {
        Some(user) => Ok(user.id),
        None => Err(Failure::not_found(format!(
            "the tenant {} has no user with the address {email}",
            whose.slug.as_str()
        ))),
    }
}

async fn list(desk: &Desk, all: bool) -> Result<(), Failure> {
    let whose = Whose::one(&desk.storage, desk.tenant.as_ref()).await?;
    let keys = desk.storage.all(&whose.scope, Query::<ApiKey>::all()).await?;
    let now = now();
    let shown = keys.into_iter().filter(|key| all || key.check_usable(now).is_ok());
    let document = Document { api_keys: shown.map(KeyView::from).collect() };
    desk.out.answer(&document, || {
        let mut table =
            Table::new(["PREFIX", "NAME", "USER", "PROJECT", "SCOPES", "AGE", "USED", "EXPIRES", "REVOKED"]);
        for key in &document.api_keys {
            let scopes: Vec<_> = key.scopes.iter().map(|scope: Permission| scope.to_string()).collect();
            table.row([
                key.prefix.clone(),
                key.name.clone(),
                or_dash(key.user_id),
                or_dash(key.project_id),
                scopes.join(" "),
                ago(key.created_at),
                or_dash(key.last_used_at.map(ago)),
                or_dash(key.expires_at.map(stamp)),
                or_dash(key.revoked_at.map(stamp)),
            ]);
        }
        table.text()
    })?;
    if !desk.out.json && document.api_keys.is_empty() {
        say("There are none; make one with `lime api-key create`.");
    }
    Ok(())
}

async fn revoke(desk: &Desk, prefix: &KeyPrefix) -> Result<(), Failure> {
    let none = || Failure::not_found(format!("there is no API key that begins with lime_{prefix}"));
    let found = desk.storage.find_key(prefix).await?.ok_or_else(none)?;
    let scope = match &desk.tenant {
        Some(slug) => Whose::named(&desk.storage, slug).await?.scope,
        None => Scope::system(found.tenant_id, Whose::reason()),
    };
    if scope.tenant() != found.tenant_id {
        return Err(none());
    }
    if found.key.revoked_at.is_none() {
        let name = &found.key.name;
        confirm(desk.yes, &format!("The API key lime_{prefix}… ({name}) will let nobody in any more."))?;
    }
    let revoked: KeyView = desk.storage.revoke_key(&scope, found.key.id).await?.into();
    desk.out.answer(&revoked, || {
        format!("Revoked lime_{}… ({}); within a second, no server takes it.", revoked.prefix, revoked.name)
    })
}
