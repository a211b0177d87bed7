//! Where the time goes, by the spans of the storage.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};

use crate::Outcome;

/// Adds up the calls of the storage by their operations; clones are one.
#[derive(Debug, Clone, Default)]
pub(super) struct Times(Arc<Mutex<BTreeMap<String, Total>>>);

#[derive(Debug, Default)]
struct Total {
    calls: u64,
    /// Of all calls; a call is one if it does not say.
    records: u64,
    time: Duration,
}

/// A call that has not ended.
struct Call {
    operation: String,
    records: u64,
    began: Instant,
}

impl Times {
    /// Begins to listen, for as long as the process lives.
    pub(super) fn listen() -> Outcome<Self> {
        let times = Self::default();
        tracing::subscriber::set_global_default(Registry::default().with(times.clone()))?;
        Ok(times)
    }

    pub(super) fn reset(&self) {
        self.totals().clear();
    }

    fn totals(&self) -> MutexGuard<'_, BTreeMap<String, Total>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The operations by their time, the longest first.
    pub(super) fn table(&self, runs: u64, cpu: Duration) -> String {
        let totals = self.totals();
        let mut totals: Vec<_> = totals.iter().collect();
        totals.sort_by_key(|(_, total)| std::cmp::Reverse(total.time));
        let mut text = format!(
            "where the time goes, of {runs} runs; calls overlap, so their times are waiting time and add up to more\n  \
             {:<24}{:>10}{:>14}{:>12}{:>12}",
            "operation", "calls", "records/call", "ms/call", "total s"
        );
        for (operation, Total { calls, records, time }) in totals {
            let (calls_ms, seconds) = (time.as_secs_f64() * 1e3, time.as_secs_f64());
            #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
            let (each, weight) = (calls_ms / *calls as f64, *records as f64 / *calls as f64);
            let _ = write!(text, "\n  {operation:<24}{calls:>10}{weight:>14.1}{each:>12.2}{seconds:>12.2}");
        }
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let cpu_us = cpu.as_secs_f64() * 1e6 / runs.max(1) as f64;
        let _ = write!(
            text,
            "\n  this process had a processor for {cpu_us:.0} µs a run, filling the queue included"
        );
        text
    }
}

struct Fields<'a>(&'a mut Call);

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "operation" {
            value.clone_into(&mut self.0.operation);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "records" {
            self.0.records = value;
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Times {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.is_span() && metadata.name() == "storage"
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut call = Call { operation: String::new(), records: 1, began: Instant::now() };
        attributes.record(&mut Fields(&mut call));
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(call);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let Some(call) = span.extensions_mut().remove::<Call>() else { return };
        let mut totals = self.totals();
        let total = totals.entry(call.operation).or_default();
        total.calls += 1;
        total.records += call.records;
        total.time += call.began.elapsed();
    }
}
