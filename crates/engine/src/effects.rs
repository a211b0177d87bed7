//! Changes to the world outside: written down before they are made, and looked for before they are made again.

use lime_core::governance::Approval;
use lime_core::ports::{Clock, Storage};
use lime_core::runs::{Effect, EffectKind, EffectStatus, Lease};
use lime_core::{Error, ErrorKind, Id, Lookup, LookupExt, Query, Result, Scope, Stored};
use serde_json::Value as Json;

use crate::patience::persist;

const OPERATION: &str = "effect.perform";

/// A change that an attempt is about to make.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) kind: EffectKind,
    /// What makes it this change and no other, unique in the run; 1 to 200 characters.
    pub(crate) key: String,
    /// What is to be there afterwards, and what was there before: enough to look whether it was made.
    pub(crate) expected: Json,
    /// The leave that was given for it.
    pub(crate) approval: Option<Id<Approval>>,
}

/// What there is to see of a change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Sight {
    /// It is made, with this result.
    Made(Json),
    /// All is as it was before.
    Unmade,
    /// Something else is in its place, for this reason it cannot be made any more.
    Other(String),
}

/// Makes the changes of one attempt, under its lease.
pub(crate) struct Effects<'a> {
    pub(crate) storage: &'a dyn Storage,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) scope: &'a Scope,
    pub(crate) lease: Lease,
}

impl Effects<'_> {
    /// Makes a change once, and gives its result.
    ///
    /// - It is written down first, under the lease: that write is the last proof that the lease holds before `act`.
    /// - One that an earlier attempt has made gives its result; one that it may have made is looked for first.
    /// - Where `act` fails, `look` says what came of it. What cannot be seen, or may still come, stays pending for
    ///   the next attempt to look for.
    pub(crate) async fn perform<L, A>(
        &self,
        plan: Plan,
        look: impl Fn() -> L,
        act: impl FnOnce() -> A,
    ) -> Result<Json>
    where
        L: Future<Output = Result<Sight>>,
        A: Future<Output = Result<Json>>,
    {
        let effect = match self.write_ahead(plan, &look).await? {
            Begun::Pending(effect) => effect,
            Begun::Made(result) => return Ok(result),
        };
        let error = match act().await {
            Ok(result) => {
                self.end(effect, EffectStatus::Done, Some(result.clone()), None).await?;
                return Ok(result);
            }
            Err(error) if error.kind() == ErrorKind::StaleLease => return Err(error),
            Err(error) => error,
        };
        match look().await {
            Ok(Sight::Made(result)) => {
                self.end(effect, EffectStatus::Done, Some(result.clone()), None).await?;
                return Ok(result);
            }
            Ok(Sight::Unmade) if error.is_retryable() => {}
            Ok(Sight::Unmade) => {
                self.end(effect, EffectStatus::Abandoned, None, Some(error.message())).await?;
            }
            Ok(Sight::Other(reason)) => {
                self.end(effect, EffectStatus::Abandoned, None, Some(&reason)).await?;
            }
            Err(unseen) => tracing::warn!(%unseen, "what came of an effect cannot be seen now"),
        }
        Err(error)
    }

    /// Looks for a change that an earlier attempt may have made; gives its result if it has.
    pub(crate) async fn reconcile(&self, effect: Stored<Effect>, sight: Sight) -> Result<Option<Json>> {
        match sight {
            Sight::Made(result) => {
                self.end(effect, EffectStatus::Done, Some(result.clone()), None).await?;
                Ok(Some(result))
            }
            Sight::Unmade => {
                let reason = "the attempt ended before it was made";
                self.end(effect, EffectStatus::Abandoned, None, Some(reason)).await?;
                Ok(None)
            }
            Sight::Other(reason) => {
                self.end(effect, EffectStatus::Abandoned, None, Some(&reason)).await?;
                Ok(None)
            }
        }
    }

    async fn write_ahead<L: Future<Output = Result<Sight>>>(
        &self,
        plan: Plan,
        look: impl Fn() -> L,
    ) -> Result<Begun> {
        let effect = Effect {
            run_id: self.lease.run,
            attempt_id: self.lease.attempt,
            kind: plan.kind,
            idempotency_key: plan.key,
            expected: plan.expected,
            status: EffectStatus::Pending,
            approval_id: plan.approval,
            result: None,
            error: None,
            ended_at: None,
        };
        let error = match persist(|| self.storage.insert(self.scope, effect.clone())).await {
            Ok(stored) => return Ok(Begun::Pending(stored)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => error,
            Err(error) => return Err(error),
        };
        let same = || {
            Query::all()
                .filter(Effect::RUN_ID.eq(effect.run_id))
                .filter(Effect::IDEMPOTENCY_KEY.eq(effect.idempotency_key.clone()))
        };
        let known = persist(|| self.storage.find(self.scope, same())).await?.ok_or(error)?;
        if known.status == EffectStatus::Done {
            return Ok(Begun::Made(known.value.result.unwrap_or_default()));
        }
        match look().await? {
            Sight::Made(result) => {
                self.end(known, EffectStatus::Done, Some(result.clone()), None).await?;
                Ok(Begun::Made(result))
            }
            Sight::Unmade => {
                let ours = Stored { value: effect, ..known };
                persist(|| self.storage.update(self.scope, &ours)).await.map(Begun::Pending)
            }
            Sight::Other(reason) => {
                self.end(known, EffectStatus::Abandoned, None, Some(&reason)).await?;
                Err(Error::new(ErrorKind::Conflict, OPERATION, reason))
            }
        }
    }

    async fn end(
        &self,
        mut effect: Stored<Effect>,
        status: EffectStatus,
        result: Option<Json>,
        error: Option<&str>,
    ) -> Result<()> {
        let now = self.clock.now();
        let value = &mut effect.value;
        (value.status, value.result, value.ended_at) = (status, result, Some(now));
        value.error = error.map(str::to_owned);
        match persist(|| self.storage.update(self.scope, &effect)).await {
            // Only this attempt writes it now, so it was a try of our own that seemed to fail.
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let now: Stored<Effect> =
                    persist(|| Lookup::get(self.storage, self.scope, effect.id)).await?;
                if now.status == status { Ok(()) } else { Err(error) }
            }
            ended => ended.map(drop),
        }
    }
}

/// What was found when a change was to be written down.
enum Begun {
    /// It is written down, and may be made.
    Pending(Stored<Effect>),
    /// It is made already.
    Made(Json),
}
