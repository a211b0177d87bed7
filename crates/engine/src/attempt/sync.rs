//! What the repository itself says to agents, read once for each commit.

use std::sync::Arc;

use lime_core::ports::WhyLeftOut;
use lime_core::repos::RepositoryConfig;
use lime_core::runs::AgentEvent;
use lime_core::{ErrorKind, LookupExt, Query, Result, Stored};

use super::Attempt;
use super::checkout::Checkout;
use crate::patience::persist;
use crate::recorder::Recorder;

impl Attempt {
    /// What the commit that the checkout started from has, and a line in the log of what of it is not told.
    pub(super) async fn repository_config(
        &self,
        recorder: &mut Recorder,
        checkout: &Checkout,
    ) -> Result<Option<Arc<RepositoryConfig>>> {
        if !self.parts.repository_instructions {
            return Ok(None);
        }
        let (scope, repository) = (self.claim.scope(), checkout.repository.id);
        let commit = &checkout.workspace.base_commit;
        let config =
            self.shelf.repository_config(&scope, repository, commit, || self.synced(checkout)).await?;
        if !config.config.left_out.is_empty() {
            let named: Vec<_> = config
                .config
                .left_out
                .iter()
                .map(|left| format!("{} ({})", left.path, reason(left.why)))
                .collect();
            let text =
                format!("Of what the repository says to agents, this is not told: {}.", named.join(", "));
            recorder.take(AgentEvent::Log { text }).await?;
        }
        Ok(Some(config))
    }

    /// What is stored of the commit, or is read from it now and stored.
    async fn synced(&self, checkout: &Checkout) -> Result<Arc<RepositoryConfig>> {
        let (scope, storage) = (self.claim.scope(), &*self.parts.storage);
        let (repository, commit) = (checkout.repository.id, &checkout.workspace.base_commit);
        let query = || Query::all().filter(RepositoryConfig::REPOSITORY_ID.eq(repository));
        let known = persist(|| storage.find(&scope, query())).await?;
        if let Some(known) = &known
            && known.config_sha.as_ref() == Some(commit)
        {
            return Ok(Arc::new(known.value.clone()));
        }
        let before =
            known.as_ref().map_or_else(|| RepositoryConfig::new(repository), |known| known.value.clone());
        match self.workspaces()?.committed_files(&checkout.workspace, &before.wanted()).await {
            Ok(files) => {
                let config = before.synced(commit, files, self.parts.clock.now());
                self.keep(known, config.clone()).await?;
                Ok(Arc::new(config))
            }
            Err(error) => {
                self.keep(known, before.unread(error.message())).await?;
                Err(error)
            }
        }
    }

    /// Stores what was read; if another run was quicker, its word stays.
    async fn keep(&self, known: Option<Stored<RepositoryConfig>>, config: RepositoryConfig) -> Result<()> {
        let (scope, storage) = (self.claim.scope(), &*self.parts.storage);
        let kept = match known {
            Some(known) => {
                let row = Stored { value: config, ..known };
                persist(|| storage.update(&scope, &row)).await
            }
            None => persist(|| storage.insert(&scope, config.clone())).await,
        };
        match kept {
            Err(error) if !matches!(error.kind(), ErrorKind::Conflict | ErrorKind::AlreadyExists) => {
                Err(error)
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// Why a file is not told, for a person.
const fn reason(why: WhyLeftOut) -> &'static str {
    match why {
        WhyLeftOut::NoFile => "no plain file",
        WhyLeftOut::NoText => "not UTF-8",
        WhyLeftOut::TooLong => "too long",
        WhyLeftOut::TooMany => "too many files, or too much in all",
    }
}
