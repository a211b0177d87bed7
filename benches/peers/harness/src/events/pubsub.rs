//! Redis pub/sub with 50 subscriptions, each on a connection of its own.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::StreamExt;
use redis::Client;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::delivery::{SUBSCRIBERS, delivering};
use super::{DELIVERY, Source, TEXT, Taken};
use crate::Outcome;
use crate::ground::Ground;

pub(super) struct PubSub {
    client: Client,
    channel: String,
}

impl PubSub {
    pub(super) const NAME: &str = "redis-pubsub";

    pub(super) async fn open(ground: &Ground) -> Outcome<Self> {
        let client = Client::open(ground.redis_url())?;
        client.get_multiplexed_async_connection().await?;
        Ok(Self { client, channel: format!("{}_channel", ground.prefix()) })
    }
}

#[async_trait(?Send)]
impl Source for PubSub {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn setup(&self) -> &'static str {
        "50 connections subscribed to one channel of the Redis given, one message at a time; nothing is kept"
    }

    async fn measure(&self, _span: Duration, taken: &mut Taken) -> Outcome<()> {
        let (tell, mut heard) = mpsc::unbounded_channel();
        let mut listening = JoinSet::new();
        for _ in 0..SUBSCRIBERS {
            let mut subscription = self.client.get_async_pubsub().await?;
            subscription.subscribe(&self.channel).await?;
            let tell = tell.clone();
            listening.spawn(async move {
                let mut messages = subscription.into_on_message();
                while messages.next().await.is_some() {
                    // Nobody asks any more once all has been measured.
                    let _ = tell.send(Instant::now());
                }
            });
        }
        let mut publisher = self.client.get_multiplexed_async_connection().await?;
        let delivered = delivering(&mut heard, async || {
            let mut publish = redis::cmd("PUBLISH");
            publish.arg(&self.channel).arg(TEXT).exec_async(&mut publisher).await?;
            Ok(())
        });
        taken.latencies(DELIVERY, delivered.await?);
        listening.shutdown().await;
        Ok(())
    }
}
