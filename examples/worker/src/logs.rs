//! Logs on standard output, and traces where they are asked for.

use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt};

use crate::exit::Refusal;
use crate::settings::{LogFormat, LogSettings};
use crate::traces::Traces;

/// Begins to log; what is given back ends the traces.
pub(crate) fn begin(settings: &LogSettings) -> Result<Traces, Refusal> {
    let filter = EnvFilter::try_new(&settings.filter).map_err(|error| {
        Refusal::variable("LIME_LOG", format!("`{}` is no filter, such as info: {error}", settings.filter))
    })?;
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match settings.format {
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_current_span(false).boxed(),
        LogFormat::Text => fmt::layer().with_ansi(false).boxed(),
    };
    let (traces, layer) = Traces::begin()?;
    tracing_subscriber::registry().with(lines.with_filter(filter)).with(layer).init();
    Ok(traces)
}
