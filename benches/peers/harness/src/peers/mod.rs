//! One file for each peer.

mod apalis;
pub(crate) mod bullmq;
mod graphile;
pub(crate) mod ours;
mod ours_redis;
pub(crate) mod pgboss;
mod pgmq;
mod scripted;
mod sql;
mod streams;

pub(crate) use apalis::Apalis;
pub(crate) use graphile::{Graphile, Mode};
pub(crate) use ours::{Ours, Way};
pub(crate) use ours_redis::OursRedis;
pub(crate) use pgmq::Pgmq;
pub(crate) use sql::Sql;
pub(crate) use streams::Streams;

use scripted::Scripted;
