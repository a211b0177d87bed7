//! Listens to what other processes tell.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lime_core::identity::Tenant;
use lime_core::runs::{AgentRun, Seq};
use lime_core::{Id, Topic};
use sea_orm::SqlxError;
use sea_orm::sqlx::postgres::{PgListener, PgPoolOptions};
use sea_orm::sqlx::{Error, Executor};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::connections::Connections;
use crate::events;
use crate::news::{CHANNEL, News, Notice};

/// After a loss, the connection is opened again at first after this, and then ever later.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// After so long without a word, the server is asked whether it is still there.
const SILENCE: Duration = Duration::from_secs(30);
/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many logs are read at once for those who follow them.
const READERS: usize = 4;
/// How many events are read at once.
const PAGE: usize = 256;

/// The one listener of a storage; dropped, it stops.
#[derive(Default)]
pub(crate) struct Listener {
    task: Mutex<Option<AbortHandle>>,
    is_up: Arc<AtomicBool>,
}

impl Listener {
    /// Starts it, if there are others to listen to and it does not run yet.
    pub(crate) fn start(&self, news: &News, db: &Connections) {
        if !news.has_others() {
            return;
        }
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_none_or(AbortHandle::is_finished) {
            let ear = Ear { news: news.clone(), db: db.clone(), readers: Arc::new(Semaphore::new(READERS)) };
            *task = Some(tokio::spawn(ear.listen(self.is_up.clone())).abort_handle());
        }
    }

    /// Whether it hears what is told; otherwise look from time to time.
    pub(crate) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    pub(crate) fn stop(&self) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
        self.is_up.store(false, Ordering::Relaxed);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop();
    }
}

#[derive(Clone)]
struct Ear {
    news: News,
    db: Connections,
    readers: Arc<Semaphore>,
}

impl Ear {
    async fn listen(self, is_up: Arc<AtomicBool>) {
        let mut pause = FIRST_PAUSE;
        loop {
            let lost = self.listen_once(&is_up).await;
            if is_up.swap(false, Ordering::Relaxed) {
                pause = FIRST_PAUSE;
                // They look now, and more often until it is up again.
                self.news.as_ref().wake_all();
            }
            let error = crate::error::unnamed("storage.listen", &crate::error::driver(lost));
            tracing::warn!(%error, ?pause, "the connection that listens is lost, and is opened again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Listens on a connection of its own until it is lost.
    async fn listen_once(&self, is_up: &AtomicBool) -> SqlxError {
        match self.connect().await {
            Ok(mut listener) => {
                is_up.store(true, Ordering::Relaxed);
                // What was told before it listened is not heard.
                self.news.as_ref().wake_all();
                loop {
                    match self.hear(&mut listener).await {
                        Ok(()) => {}
                        Err(error) => return error,
                    }
                }
            }
            Err(error) => error,
        }
    }

    async fn connect(&self) -> Result<PgListener, SqlxError> {
        let options = self.db.pool().connect_options().clone().application_name("assembly-lime listener");
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(PATIENCE)
            .max_lifetime(None)
            .idle_timeout(None)
            .connect_lazy_with(options);
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.eager_reconnect(false);
        listener.listen(CHANNEL).await?;
        Ok(listener)
    }

    /// Waits for a word, or for proof that there is nobody to say one.
    async fn hear(&self, listener: &mut PgListener) -> Result<(), SqlxError> {
        let lost = || Error::Protocol("the server does not answer".into());
        match timeout(SILENCE, listener.try_recv()).await {
            Ok(Ok(Some(word))) => self.heed(word.payload()),
            Ok(Ok(None)) => return Err(lost()),
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                timeout(PATIENCE, listener.execute("SELECT 1")).await.map_err(|_| lost())??;
            }
        }
        Ok(())
    }

    fn heed(&self, text: &str) {
        let (sender, notice) = Notice::parse(text);
        if sender.is_some_and(|sender| self.news.is_own(sender)) {
            return;
        }
        let hub = self.news.as_ref();
        if notice.all {
            return hub.wake_all();
        }
        if notice.queue {
            hub.wake(Topic::Queue);
        }
        for run in notice.signals {
            hub.wake(Topic::Signals(Id::new(run)));
        }
        for run in notice.logs.into_iter().map(Id::new) {
            if hub.is_followed(Topic::Log(run))
                && let Some((tenant, seq)) = self.news.fetch(run)
            {
                tokio::spawn(self.clone().fetch(tenant, run, seq));
            }
        }
    }

    /// Reads what another process has recorded, once for all who follow it here.
    async fn fetch(self, tenant: Id<Tenant>, run: Id<AgentRun>, mut after: Seq) {
        let Ok(_turn) = self.readers.acquire().await else { return };
        loop {
            match events::page(&self.db, tenant, run, after, PAGE).await {
                Ok(page) => {
                    if let Some(last) = page.events.last() {
                        after = last.seq;
                        self.news.here(run, after, &page.events);
                    }
                    if page.events.len() == PAGE {
                        continue;
                    }
                }
                // Those who follow find it out for themselves.
                Err(_) => self.news.as_ref().wake(Topic::Log(run)),
            }
            match self.news.fetched(run) {
                Some(known) => after = after.max(known),
                None => return,
            }
        }
    }
}
