//! What is asked of an attempt while it works.

use tokio::sync::watch;

/// Why an attempt has to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    /// The worker shuts down: hand the run back.
    HandBack,
    /// Somebody put the run on hold: stop, keep what there is, hand the run back.
    Pause,
    /// Somebody cancelled the run.
    Cancel,
    /// The lease is lost: write nothing more.
    Lost,
}

/// The news of an attempt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// It shall stop; the strongest wish wins.
    pub(crate) stop: Option<Stop>,
    /// How many inputs of people the run was given, as far as is known.
    pub(crate) inputs: i32,
    /// Counts the times that something may have happened: a question may be answered.
    pub(crate) knocks: u64,
}

/// Tells an attempt what is asked of it; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Asked(watch::Sender<News>);

impl Asked {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(News::default()))
    }

    pub(crate) fn ask(&self, stop: Stop) {
        self.0.send_if_modified(|news| {
            let stronger = news.stop < Some(stop);
            if stronger {
                news.stop = Some(stop);
            }
            stronger
        });
    }

    /// Says how many inputs the run was given.
    pub(crate) fn inputs(&self, count: i32) {
        self.0.send_if_modified(|news| {
            let more = news.inputs < count;
            news.inputs = news.inputs.max(count);
            more
        });
    }

    /// Whether anybody has said anything to the run, as far as is known.
    pub(crate) fn has_inputs(&self) -> bool {
        self.0.borrow().inputs > 0
    }

    pub(crate) fn knock(&self) {
        self.0.send_modify(|news| news.knocks += 1);
    }

    pub(crate) fn stop(&self) -> Option<Stop> {
        self.0.borrow().stop
    }

    /// The news from now on; what there is already is told first.
    pub(crate) fn listen(&self) -> watch::Receiver<News> {
        let mut news = self.0.subscribe();
        news.mark_changed();
        news
    }

    /// Waits until somebody wants it to stop. Safe to cancel.
    pub(crate) async fn stopped(&self) -> Stop {
        let mut news = self.0.subscribe();
        match news.wait_for(|news| news.stop.is_some()).await.map(|news| news.stop) {
            Ok(Some(stop)) => stop,
            // The sender is ours, so it outlives this wait.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }
}
