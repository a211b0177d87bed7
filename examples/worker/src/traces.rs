//! Traces by OpenTelemetry, with the feature `otel`.

use crate::settings::Environment;

/// The variables that say where traces go.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// Whether somebody has said where traces go, and has not switched them off.
fn are_wanted() -> bool {
    let environment = Environment::of_process();
    let off = environment.text("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    !off && ENDPOINTS.iter().any(|name| environment.text(name).is_some())
}

#[cfg(feature = "otel")]
pub(crate) use self::on::Traces;

#[cfg(feature = "otel")]
mod on {
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_otlp::SpanExporter;
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::Layer;
    use tracing_subscriber::filter::{FilterExt, LevelFilter, filter_fn};
    use tracing_subscriber::registry::LookupSpan;

    use crate::exit::Refusal;
    use crate::settings::Environment;
    use crate::work::LAST_WAIT;

    /// The name of the service, unless `OTEL_SERVICE_NAME` gives another.
    const SERVICE: &str = "lime-worker";

    /// Traces on their way; to be ended before the process is.
    #[derive(Debug)]
    pub(crate) struct Traces(Option<SdkTracerProvider>);

    impl Traces {
        /// Begins to send traces, if it was said where to. Not inside a runtime, since the exporter has its own.
        pub(crate) fn begin<S>() -> Result<(Self, Option<impl Layer<S> + Send + Sync + use<S>>), Refusal>
        where
            S: tracing::Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
        {
            if !super::are_wanted() {
                return Ok((Self(None), None));
            }
            let exporter = SpanExporter::builder().with_http().build().map_err(|error| {
                Refusal::variable("OTEL_EXPORTER_OTLP_ENDPOINT", format!("traces cannot be sent: {error}"))
            })?;
            let mut about = Resource::builder();
            if Environment::of_process().text("OTEL_SERVICE_NAME").is_none() {
                about = about.with_service_name(SERVICE);
            }
            let provider = SdkTracerProvider::builder()
                .with_batch_exporter(exporter)
                .with_resource(about.build())
                .build();
            // The worker's own span lasts as long as the process: each attempt is a trace of its own instead.
            let attempts = filter_fn(|span| span.is_span() && span.name() != "worker");
            let layer = tracing_opentelemetry::layer()
                .with_tracer(provider.tracer(SERVICE))
                .with_filter(LevelFilter::INFO.and(attempts));
            Ok((Self(Some(provider)), Some(layer)))
        }

        /// Sends what is left, if that does not take too long. Not inside a runtime.
        pub(crate) fn end(self) {
            if let Some(Err(error)) = self.0.map(|provider| provider.shutdown_with_timeout(LAST_WAIT)) {
                tracing::warn!(%error, "the last traces are lost");
            }
        }
    }
}

#[cfg(not(feature = "otel"))]
pub(crate) use self::off::Traces;

#[cfg(not(feature = "otel"))]
mod off {
    use tracing_subscriber::layer::Identity;

    use crate::exit::Refusal;

    /// No traces: this program was built without them.
    #[derive(Debug)]
    pub(crate) struct Traces;

    impl Traces {
        /// Refuses to drop traces that somebody waits for.
        pub(crate) fn begin() -> Result<(Self, Identity), Refusal> {
            if super::are_wanted() {
                let why =
                    "this worker was built without traces; build it with --features otel, or leave it out";
                return Err(Refusal::variable("OTEL_EXPORTER_OTLP_ENDPOINT", why));
            }
            Ok((Self, Identity::new()))
        }

        /// Nothing is left.
        pub(crate) fn end(self) {}
    }
}
