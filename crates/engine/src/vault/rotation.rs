//! Changing keys while they are in use.

use lime_core::governance::{EnvVar, SealedStore, Sealing, TenantKey};
use lime_core::ports::Storage;
use lime_core::{Error, ErrorKind, Id, Lookup, Query, Result, Scope, Store, Stored};

use super::Vault;

/// How often a key that is being given up may turn out to be in use again: a node that has kept it seals with it for as
/// long as it keeps it.
const ROUNDS: usize = 1_000;

/// What a rotation did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rotated {
    /// How many data keys were wrapped under the newest master key.
    pub wrapped: u64,
    /// How many rows were sealed anew.
    pub sealed: u64,
    /// How many data keys were given up.
    pub dropped: u64,
}

impl Vault {
    /// Wraps the tenant's data keys under the newest master key, where they are under an older one.
    ///
    /// - Changes a few hundred bytes for each key, and no secret. Once it is done for every tenant, the older master keys
    ///   are needed for backups only.
    /// - Safe to break off and to repeat, and to do from several places at once.
    /// - Fails as [`KeyWrapper`](lime_core::ports::KeyWrapper) does.
    pub async fn rewrap(&self, scope: &Scope) -> Result<Rotated> {
        let mut rotated = Rotated::default();
        for row in self.key_rows(scope).await? {
            let wrapper = &*self.0.wrapper;
            if wrapper.is_newest(&row.wrapped) {
                continue;
            }
            let bytes = wrapper.unwrap(scope.tenant(), &row.wrapped).await?;
            let wrapped = wrapper.wrap(scope.tenant(), &bytes).await?;
            match self.0.storage.update(scope, &Stored { value: TenantKey { wrapped }, ..row }).await {
                Ok(_) => rotated.wrapped += 1,
                // Somebody else does the same.
                Err(error) if is_overtaken(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(rotated)
    }

    /// Seals all secrets of the tenant with a new data key, and gives the older ones up.
    ///
    /// - A rotation that was broken off is gone on with: while there is more than one key, no other is made.
    /// - Secrets stay readable, and may be written, all the while. A key goes only when nothing is sealed with it, which
    ///   the database proves.
    /// - A tenant without a key has no secrets, and gets none.
    /// - Fails with [`Conflict`](ErrorKind::Conflict) if others keep writing with the older keys.
    pub async fn rotate(&self, scope: &Scope) -> Result<Rotated> {
        let mut rows = self.key_rows(scope).await?;
        if rows.len() == 1 {
            rows.push(self.add_key(scope).await?);
        }
        let Some(newest) = rows.pop() else { return Ok(Rotated::default()) };
        let mut rotated = Rotated::default();
        for old in rows {
            let mut rounds = 0;
            loop {
                rotated.sealed += self.reseal_all::<EnvVar>(scope, old.id, newest.id).await?;
                match self.0.storage.delete(scope, &old).await {
                    Ok(()) => rotated.dropped += 1,
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    // Something was sealed with it in between, or it was wrapped anew.
                    Err(error) if error.kind() == ErrorKind::Conflict && rounds < ROUNDS => {
                        rounds += 1;
                        match Lookup::get(&*self.0.storage, scope, old.id).await {
                            Ok(row) if row.version != old.version => return self.go_on(scope, rotated).await,
                            Ok(_) => continue,
                            Err(error) if error.kind() == ErrorKind::NotFound => {}
                            Err(error) => return Err(error),
                        }
                    }
                    Err(error) => return Err(error),
                }
                break;
            }
        }
        self.0.keys.forget(scope.tenant());
        Ok(rotated)
    }

    /// Goes on with a rotation whose keys were changed meanwhile.
    async fn go_on(&self, scope: &Scope, so_far: Rotated) -> Result<Rotated> {
        let more = Box::pin(self.rotate(scope)).await?;
        let Rotated { wrapped, sealed, dropped } = so_far;
        Ok(Rotated {
            wrapped: wrapped + more.wrapped,
            sealed: sealed + more.sealed,
            dropped: dropped + more.dropped,
        })
    }

    /// Seals the rows of one table with the newest key that are sealed with an older one; gives how many.
    async fn reseal_all<E: Sealing>(
        &self,
        scope: &Scope,
        old: Id<TenantKey>,
        newest: Id<TenantKey>,
    ) -> Result<u64>
    where
        dyn Storage: SealedStore<E>,
    {
        let mut sealed = 0;
        self.0.keys.forget(scope.tenant());
        let key = self.newest(scope).await?;
        if key.id() < newest {
            let message = "the tenant's new key is gone; rotate again";
            return Err(Error::new(ErrorKind::Conflict, "secrets.rotate", message));
        }
        loop {
            let query = Query::all().filter(E::SEALED_WITH.eq(old)).limit(Query::<E>::MAX_LIMIT);
            let page = Lookup::<E>::list(&*self.0.storage, scope, &query).await?;
            if page.items.is_empty() {
                return Ok(sealed);
            }
            for row in page.items {
                let next = self.resealed(scope, &row, &key).await?;
                match Store::<E>::update(&*self.0.storage, scope, &next).await {
                    Ok(_) => sealed += 1,
                    Err(error) if is_overtaken(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
}

/// Whether somebody else has changed or deleted the row meanwhile.
fn is_overtaken(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound)
}
