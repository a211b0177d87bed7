use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::life::after;
use super::{MemoryStorage, State};
use crate::identity::{Identity, LoginSession, Membership, NewSession, SignedIn, Tenant, TokenHash, User};
use crate::ports::Identities;
use crate::{Error, ErrorKind, Id, Invalid, Result, Scope, Stored};

/// People over all tenants.
#[derive(Default)]
pub(super) struct People {
    identities: BTreeMap<Id<Identity>, Stored<Identity>>,
    /// Who the users of the tenants are; some of those may have been deleted.
    links: BTreeMap<Id<User>, Id<Identity>>,
    sessions: HashMap<TokenHash, Stored<LoginSession>>,
    last_session: i64,
}

impl People {
    fn session(&mut self, token: &TokenHash, now: DateTime<Utc>) -> Option<&mut Stored<LoginSession>> {
        self.sessions.get_mut(token).filter(|session| session.expires_at > now)
    }
}

impl State {
    /// The users that a person is, and whose they are.
    fn users_of(&mut self, identity: Id<Identity>) -> Vec<(Id<Tenant>, Stored<User>)> {
        let links = self.people.links.iter().filter(|(_, of)| **of == identity);
        let ids: Vec<_> = links.map(|(user, _)| *user).collect();
        let rows = &self.table::<User>().rows;
        let users = ids.iter().filter_map(|user| rows.get(user));
        users.map(|row| (row.tenant, row.stored.clone())).collect()
    }
}

fn no_such_person(operation: &'static str, noun: &'static str, identity: Id<Identity>) -> Error {
    Invalid::new("identity_id", format!("there is no identity {identity}")).refused(operation, noun)
}

#[async_trait]
impl Identities for MemoryStorage {
    async fn identify(&self, identity: Identity) -> Result<Stored<Identity>> {
        identity.validate().map_err(|invalid| invalid.refused("identities.identify", "identity"))?;
        let now = self.now();
        let mut state = self.lock();
        let identities = &mut state.people.identities;
        let email = identity.email.to_lowercase();
        if let Some(known) = identities.values_mut().find(|known| known.email.to_lowercase() == email) {
            if identity.email_verified && !known.email_verified {
                known.value.email_verified = true;
                known.version += 1;
                known.updated_at = now;
            }
            return Ok(known.clone());
        }
        let id = Id::new(identities.keys().last().map_or(1, |last| last.raw() + 1));
        let stored = Stored { id, version: 1, created_at: now, updated_at: now, value: identity };
        identities.insert(id, stored.clone());
        Ok(stored)
    }

    async fn link_user(&self, scope: &Scope, user: Id<User>, identity: Id<Identity>) -> Result<()> {
        const OPERATION: &str = "identities.link_user";
        let now = self.now();
        let mut state = self.lock();
        state.check_fence(scope, OPERATION, now)?;
        state.row(scope, OPERATION, user)?;
        match state.people.links.get(&user) {
            Some(linked) if *linked == identity => return Ok(()),
            Some(_) => {
                let message = "this user is another person already; make another user";
                return Err(Error::new(ErrorKind::Conflict, OPERATION, message).with("user", user));
            }
            None => {}
        }
        if !state.people.identities.contains_key(&identity) {
            return Err(no_such_person(OPERATION, "user", identity));
        }
        if state.users_of(identity).iter().any(|(tenant, _)| *tenant == scope.tenant()) {
            let message = "another user of the tenant is this person";
            return Err(Error::new(ErrorKind::AlreadyExists, OPERATION, message));
        }
        state.people.links.insert(user, identity);
        let linked = &mut state.row(scope, OPERATION, user)?.stored;
        linked.version += 1;
        linked.updated_at = now;
        Ok(())
    }

    async fn memberships(&self, identity: Id<Identity>) -> Result<Vec<Membership>> {
        let mut state = self.lock();
        let mut users = state.users_of(identity);
        users.sort_by_key(|(tenant, _)| *tenant);
        let tenants = state.tenants.iter().filter(|tenant| !state.is_deleted(tenant.id));
        let membership = |(id, user)| {
            let tenant = tenants.clone().find(|tenant| tenant.id == id)?.clone();
            Some(Membership { tenant, user })
        };
        Ok(users.into_iter().filter_map(membership).collect())
    }

    async fn open_session(&self, session: NewSession) -> Result<Stored<LoginSession>> {
        const OPERATION: &str = "identities.open_session";
        LoginSession::check_length(session.lasts).map_err(|invalid| invalid.refused(OPERATION, "session"))?;
        let now = self.now();
        let mut state = self.lock();
        let people = &mut state.people;
        let identity_id = session.identity_id;
        if !people.identities.contains_key(&identity_id) {
            return Err(no_such_person(OPERATION, "session", identity_id));
        }
        people.sessions.retain(|_, known| known.identity_id != identity_id || known.expires_at > now);
        people.last_session += 1;
        let value = LoginSession {
            identity_id,
            expires_at: after(now, session.lasts),
            ip_address: session.ip_address,
            user_agent: session.user_agent(),
        };
        let id = Id::new(people.last_session);
        let stored = Stored { id, version: 1, created_at: now, updated_at: now, value };
        people.sessions.insert(session.token, stored.clone());
        Ok(stored)
    }

    async fn find_session(&self, token: &TokenHash) -> Result<Option<Stored<LoginSession>>> {
        let now = self.now();
        Ok(self.lock().people.session(token, now).cloned())
    }

    async fn find_member(&self, token: &TokenHash, tenant: Id<Tenant>) -> Result<Option<SignedIn>> {
        let now = self.now();
        let mut state = self.lock();
        let Some(session) = state.people.session(token, now).cloned() else { return Ok(None) };
        let users = if state.is_deleted(tenant) { Vec::new() } else { state.users_of(session.identity_id) };
        let user = users.into_iter().find(|(of, _)| *of == tenant);
        let member = user.and_then(|(tenant, user)| state.member(tenant, user.id));
        Ok(Some(SignedIn { session, member }))
    }

    async fn extend_session(&self, token: &TokenHash, lasts: Duration) -> Result<Stored<LoginSession>> {
        const OPERATION: &str = "identities.extend_session";
        LoginSession::check_length(lasts).map_err(|invalid| invalid.refused(OPERATION, "session"))?;
        let now = self.now();
        let mut state = self.lock();
        let session = state.people.session(token, now).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, OPERATION, "the session has ended; sign in again")
        })?;
        session.value.expires_at = after(now, lasts);
        session.version += 1;
        session.updated_at = now;
        Ok(session.clone())
    }

    async fn end_session(&self, token: &TokenHash) -> Result<()> {
        self.lock().people.sessions.remove(token);
        Ok(())
    }

    async fn end_sessions(&self, identity: Id<Identity>) -> Result<usize> {
        let now = self.now();
        let mut state = self.lock();
        let theirs = |session: &Stored<LoginSession>| session.identity_id == identity;
        let sessions = &mut state.people.sessions;
        let ended = sessions.values().filter(|session| theirs(session) && session.expires_at > now).count();
        sessions.retain(|_, session| !theirs(session));
        Ok(ended)
    }
}
