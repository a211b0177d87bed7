use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redis::Pipeline;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::backoff::Backoff;
use crate::link::{Link, refusal};

/// Says things to channels, behind the back of whoever has something to say: nobody waits for it.
///
/// - What waits to be said is bounded: if there is too much, or Redis cannot be reached, news become a bare sign that
///   there are some.
pub(crate) struct Voice {
    shared: Arc<Shared>,
    task: Mutex<Option<AbortHandle>>,
}

struct Shared {
    link: Arc<Link>,
    unsaid: Mutex<Unsaid>,
    more: Notify,
}

#[derive(Default)]
struct Unsaid {
    words: VecDeque<Word>,
    bytes: usize,
    /// Channels whose listeners shall look for themselves.
    signs: HashSet<String>,
}

struct Word {
    channel: String,
    bytes: Vec<u8>,
    /// Whether listeners must look for themselves if it is lost.
    is_news: bool,
}

impl Unsaid {
    /// How many bytes may wait.
    const MOST_BYTES: usize = 4 << 20;
    /// How many bytes are said in one go.
    const BYTES_AT_ONCE: usize = 256 << 10;
    /// How many channels may wait for a sign; those who listen look from time to time in any case.
    const MOST_SIGNS: usize = 10_000;

    fn sign(&mut self, channel: String) {
        if self.signs.len() < Self::MOST_SIGNS {
            self.signs.insert(channel);
        }
    }

    fn lose(&mut self, word: Word) {
        if word.is_news {
            self.sign(word.channel);
        }
    }

    fn next(&mut self) -> (Vec<Word>, Vec<String>) {
        let (mut words, mut bytes) = (Vec::new(), 0);
        while bytes < Self::BYTES_AT_ONCE
            && let Some(word) = self.words.pop_front()
        {
            bytes += word.bytes.len();
            words.push(word);
        }
        self.bytes -= bytes;
        (words, self.signs.drain().collect())
    }
}

impl Voice {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        let shared = Shared { link, unsaid: Mutex::default(), more: Notify::new() };
        Self { shared: Arc::new(shared), task: Mutex::default() }
    }

    /// Says something that may be lost.
    pub(crate) fn say(&self, channel: String, bytes: Vec<u8>) {
        self.add(Word { channel, bytes, is_news: false });
    }

    /// Says news; if they are lost, listeners get an empty message instead.
    pub(crate) fn tell(&self, channel: String, bytes: Vec<u8>) {
        self.add(Word { channel, bytes, is_news: true });
    }

    /// Says with an empty message that there are news.
    pub(crate) fn sign(&self, channel: String) {
        self.shared.unsaid().sign(channel);
        self.wake();
    }

    /// Whether it is in vain to prepare news at present.
    pub(crate) fn is_hoarse(&self) -> bool {
        self.shared.link.is_down()
    }

    fn add(&self, word: Word) {
        {
            let mut unsaid = self.shared.unsaid();
            if unsaid.bytes + word.bytes.len() > Unsaid::MOST_BYTES {
                unsaid.lose(word);
            } else {
                unsaid.bytes += word.bytes.len();
                unsaid.words.push_back(word);
            }
        }
        self.wake();
    }

    fn wake(&self) {
        self.shared.more.notify_one();
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.is_none() {
            *task = Some(tokio::spawn(self.shared.clone().speak()).abort_handle());
        }
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

impl Shared {
    fn unsaid(&self) -> MutexGuard<'_, Unsaid> {
        self.unsaid.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn speak(self: Arc<Self>) {
        let mut backoff = Backoff::default();
        loop {
            self.more.notified().await;
            loop {
                let (words, signs) = self.unsaid().next();
                if words.is_empty() && signs.is_empty() {
                    break;
                }
                let mut commands = Pipeline::with_capacity(words.len() + signs.len());
                for word in &words {
                    commands.cmd("PUBLISH").arg(&word.channel).arg(&word.bytes);
                }
                for channel in &signs {
                    commands.cmd("PUBLISH").arg(channel).arg("");
                }
                let said = self.link.send(&commands).await;
                if said.is_ok_and(|answers| refusal(&answers).is_none()) {
                    backoff.reset();
                    continue;
                }
                {
                    let mut unsaid = self.unsaid();
                    words.into_iter().for_each(|word| unsaid.lose(word));
                    signs.into_iter().for_each(|channel| unsaid.sign(channel));
                }
                sleep(backoff.next()).await;
            }
        }
    }
}
