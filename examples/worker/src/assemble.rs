//! Puts a factory together as the settings say.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use assembly_lime::git::{GitWorkspaces, LocalRepos};
use assembly_lime::governance::{MasterKeys, PriceTable};
use assembly_lime::ports::Storage;
use assembly_lime::postgres::{PgStorage, PoolOptions};
use assembly_lime::{Factory, SystemEntropy, Vault};
#[cfg(feature = "redis")]
use lime_queue_redis::{RedisOptions, RedisQueue};
use prometheus_client::registry::Registry;
use secrecy::{ExposeSecret, SecretString};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::agents::Agents;
use crate::exit::Refusal;
use crate::http::Report;
use crate::metrics::{self, Counted, Metrics, Survey};
use crate::settings::Settings;

/// A factory, and what the process keeps in its hands besides.
pub(crate) struct Assembled {
    pub(crate) factory: Factory,
    pub(crate) storage: PgStorage,
    registry: Registry,
    survey: Survey,
    counted: Counted,
    fleet: Fleet,
}

impl Assembled {
    pub(crate) async fn new(settings: &Settings) -> Result<Self, Refusal> {
        // What needs no database is refused first.
        let agents = Agents::find(settings).await?;
        let workspaces = GitWorkspaces::new(&settings.state_dir)
            .map_err(|error| Refusal::variable("LIME_STATE_DIR", error.report()))?;
        let prices = settings.prices.as_deref().map(prices).transpose()?;
        let master_keys = settings.master_keys.as_ref().map(master_keys).transpose()?;
        let storage = open(settings).await?;
        let fleet = Fleet::join(&storage, settings)?;
        let mut registry = metrics::registry(settings.worker.name.as_str());
        let metrics = Arc::new(Metrics::new(&mut registry));
        let survey = Survey::new(storage.clone(), &mut registry);
        let counted = Counted::new(fleet.queue(&storage), metrics);
        let factory = Factory::builder(counted.clone()).repos(LocalRepos::new()).workspaces(workspaces);
        let factory = match prices {
            Some(prices) => factory.prices(prices),
            None => factory,
        };
        let factory = match master_keys {
            Some(keys) => factory.vault(Vault::new(counted.clone(), keys)),
            None => factory,
        };
        let factory = agents.join(factory).build();
        Ok(Self { factory, storage, registry, survey, counted, fleet })
    }

    /// Begins to feed the workers of a fleet, if this is one of them.
    pub(crate) fn relay(&self, stop: CancellationToken) -> Option<JoinHandle<()>> {
        self.fleet.relay(stop)
    }

    /// What is told over HTTP; the rest of the process goes on without it.
    pub(crate) fn report(self, most_silence: Duration, draining: CancellationToken) -> Report {
        let Self { registry, survey, counted, .. } = self;
        Report { registry, survey, counted, most_silence, draining }
    }
}

/// What opens the secrets of tenants.
fn master_keys(text: &SecretString) -> Result<MasterKeys, Refusal> {
    MasterKeys::parse(text, Arc::new(SystemEntropy))
        .map_err(|invalid| Refusal::variable("ENCRYPTION_MASTER_KEY", invalid.rule))
}

/// What models cost, as a file says.
fn prices(file: &Path) -> Result<PriceTable, Refusal> {
    let refused = |why: String| Refusal::variable("LIME_PRICES", format!("{}: {why}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| refused(error.to_string()))?;
    let prices = PriceTable::from_json(&text).map_err(|invalid| refused(invalid.to_string()))?;
    tracing::info!(models = prices.models.len(), as_of = %prices.as_of, "prices are read");
    Ok(prices)
}

/// Opens the database, and sees to it that its tables are those of this version.
async fn open(settings: &Settings) -> Result<PgStorage, Refusal> {
    let options = PoolOptions {
        max_connections: settings.database_connections,
        notify: settings.database_notify,
        ..PoolOptions::default()
    };
    let storage = PgStorage::connect(settings.database_url.expose_secret(), &options).await?;
    if settings.migrate {
        storage.migrate().await?;
    }
    let migrations = storage.migrations().await?;
    if !migrations.pending.is_empty() {
        return Err(Refusal::failed(format!(
            "the database lacks {}: run `lime migrate`, or start this worker with LIME_MIGRATE=1",
            migrations.pending.join(", ")
        )));
    }
    if !migrations.unknown.is_empty() {
        tracing::warn!(unknown = migrations.unknown.join(", "), "a newer version has migrated the database");
    }
    Ok(storage)
}

/// The Redis of a fleet, if there is one.
#[cfg(feature = "redis")]
struct Fleet {
    queue: Option<RedisQueue<PgStorage>>,
    relays: bool,
}

#[cfg(feature = "redis")]
impl Fleet {
    fn join(storage: &PgStorage, settings: &Settings) -> Result<Self, Refusal> {
        let mut options = RedisOptions::default();
        if let Some(prefix) = &settings.redis_prefix {
            options.prefix.clone_from(prefix);
        }
        let queue = settings.redis_url.as_ref().map(|url| {
            RedisQueue::new(Arc::new(storage.clone()), url.expose_secret(), options)
                .map_err(|error| Refusal::variable("REDIS_URL", error.report()))
        });
        Ok(Self { queue: queue.transpose()?, relays: settings.redis_relay })
    }

    fn queue(&self, storage: &PgStorage) -> Arc<dyn Storage> {
        match &self.queue {
            Some(queue) => Arc::new(queue.clone()),
            None => Arc::new(storage.clone()),
        }
    }

    /// Any number of workers may feed the fleet; they agree on which is on duty.
    fn relay(&self, stop: CancellationToken) -> Option<JoinHandle<()>> {
        let queue = self.queue.clone().filter(|_| self.relays)?;
        Some(tokio::spawn(async move {
            tokio::select! {
                () = queue.relay() => {}
                () = stop.cancelled() => {}
            }
        }))
    }
}

/// No Redis: this program was built without it.
#[cfg(not(feature = "redis"))]
struct Fleet;

#[cfg(not(feature = "redis"))]
impl Fleet {
    fn join(_storage: &PgStorage, settings: &Settings) -> Result<Self, Refusal> {
        match &settings.redis_url {
            Some(_) => {
                let why =
                    "this worker was built without Redis; build it with --features redis, or leave it out";
                Err(Refusal::variable("REDIS_URL", why))
            }
            None => Ok(Self),
        }
    }

    fn queue(&self, storage: &PgStorage) -> Arc<dyn Storage> {
        Arc::new(storage.clone())
    }

    fn relay(&self, _stop: CancellationToken) -> Option<JoinHandle<()>> {
        None
    }
}
