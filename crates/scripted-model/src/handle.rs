//! Handles one request: finds its script and turn, records it, and has the turn played.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::fault::Fault;
use crate::mark::Ids;
use crate::play::{Answer, End, play, reject};
use crate::recorded::{Entry, Record, RequestKind, redacted};
use crate::request::{ModelRequest, UnreadFile};
use crate::script::{Ending, Script};
use crate::step::Api;
use crate::toolbox::{Block, Call, Input, blocks};
use crate::turn::{Turn, Usage};
use crate::{anthropic, openai};

/// What every request of a server shares.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) stages: Vec<Stage>,
    pub(crate) record: Record,
    max_body_bytes: usize,
    serial: AtomicU64,
}

/// A script being played.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) name: String,
    script: Script,
    /// How often each turn's fault has hit.
    faults: Vec<AtomicU32>,
}

impl Shared {
    pub(crate) fn new(stages: Vec<Stage>, record: Record, max_body_bytes: usize) -> Self {
        Self { stages, record, max_body_bytes, serial: AtomicU64::new(0) }
    }

    pub(crate) fn stage(&self, name: &str) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.name == name)
    }
}

impl Stage {
    pub(crate) fn new(name: String, script: Script) -> Self {
        let faults = script.turns.iter().map(|_| AtomicU32::new(0)).collect();
        Self { name, script, faults }
    }

    /// The turn at a position, with the fault that hits it now.
    fn turn(&self, position: usize) -> (Cow<'_, Turn>, Option<&Fault>) {
        let last = self.script.turns.len().checked_sub(1);
        let index = match (&self.script.then, last) {
            (_, Some(last)) if position <= last => position,
            (Ending::RepeatLast, Some(last)) => last,
            (Ending::RepeatLast, None) => return (Cow::Owned(Turn::new()), None),
            (Ending::Say(text), _) => return (Cow::Owned(Turn::new().say(text.clone())), None),
        };
        let turn = &self.script.turns[index];
        let times = turn.fault_times.unwrap_or(u32::MAX);
        let hit = |hits: u32| (hits < times).then(|| hits.saturating_add(u32::from(times != u32::MAX)));
        let fault = turn
            .fault
            .as_ref()
            .filter(|_| self.faults[index].fetch_update(Ordering::Relaxed, Ordering::Relaxed, hit).is_ok());
        (Cow::Borrowed(turn), fault)
    }
}

/// Which of the served calls a path means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Answer(Api),
    CountTokens,
    Probe,
    Unknown,
}

/// Handles any request.
pub(crate) async fn handle(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let serial = shared.serial.fetch_add(1, Ordering::Relaxed);
    let mut response = match to_bytes(body, shared.max_body_bytes).await {
        Ok(body) => dispatch(&shared, &parts, body).await,
        Err(_) => {
            keep(&shared, &parts, Bytes::new(), RequestKind::Other);
            reject(api_of(parts.uri.path()), 413, "the request's body is too large, or broke off")
        }
    };
    if let Ok(id) = HeaderValue::try_from(format!("req_lime_{serial}")) {
        response.headers_mut().insert("request-id", id);
    }
    response
}

async fn dispatch(shared: &Shared, parts: &Parts, body: Bytes) -> Response {
    let path = parts.uri.path();
    let (stage, route) = match split(path) {
        Some((name, route)) => (shared.stage(name), route),
        None => (None, Route::Unknown),
    };
    let route = match (route, &parts.method) {
        (Route::Answer(_) | Route::CountTokens, method) if *method != Method::POST => Route::Unknown,
        (route, _) => route,
    };
    let (Some(stage), Route::Answer(api)) = (stage, route) else {
        let counted = stage.is_some() && route == Route::CountTokens;
        let kind = if counted { RequestKind::CountTokens } else { RequestKind::Other };
        let size = body.len();
        keep(shared, parts, body, kind);
        return match route {
            Route::CountTokens if counted => Json(anthropic::count_tokens(size)).into_response(),
            Route::Probe if stage.is_some() => StatusCode::OK.into_response(),
            _ => reject(api_of(path), 404, &format!("no script is served at {path}")),
        };
    };
    let Ok(json) = serde_json::from_slice::<Value>(&body) else {
        keep(shared, parts, body, RequestKind::Other);
        return reject(api, 400, "the request's body is not JSON");
    };
    let request = match api {
        Api::Anthropic => anthropic::read(&json, user_agent(parts)),
        Api::Openai => openai::read(&json),
    };
    drop(json);
    let request = ModelRequest {
        working_dir: request.working_dir.or_else(|| stage.script.working_dir.clone()),
        ..request
    };
    let kind = match request.unread.first() {
        _ if request.side => RequestKind::Side,
        Some(unread) => RequestKind::Turn(unread.turn),
        None => RequestKind::Turn(request.next_turn),
    };
    tracing::debug!(script = stage.name, ?kind, model = request.model, "scripted model is asked");
    keep(shared, parts, body, kind);
    respond(shared, stage, &request).await
}

/// Answers a request for an answer.
async fn respond(shared: &Shared, stage: &Stage, request: &ModelRequest) -> Response {
    let plain = Turn::new().usage(Usage::NONE);
    if request.side {
        let said = vec![Block::Text(stage.script.side_text.clone())];
        let ids = Ids { serial: &shared.serial, turn: request.next_turn, spoilt: false };
        return play(request, told(request, said, &plain), None, &ids, plain.delta_delay()).await;
    }
    if let Some(unread) = request.unread.first() {
        let ids = Ids { serial: &shared.serial, turn: unread.turn, spoilt: false };
        let again = told(request, request.unread.iter().flat_map(read_first).collect(), &plain);
        return play(request, again, None, &ids, plain.delta_delay()).await;
    }
    let (turn, fault) = stage.turn(request.next_turn);
    let said = match blocks(&turn.steps, request) {
        Ok(said) => said,
        Err(no_tool) => return reject(request.api, 400, &no_tool.to_string()),
    };
    if turn.delay_ms > 0 {
        tokio::time::sleep(turn.delay()).await;
    }
    let ids =
        Ids { serial: &shared.serial, turn: request.next_turn, spoilt: fault.is_some_and(Fault::spoils) };
    play(request, told(request, said, &turn), fault, &ids, turn.delta_delay()).await
}

fn told(request: &ModelRequest, blocks: Vec<Block>, turn: &Turn) -> Answer {
    Answer {
        model: request.model.clone(),
        blocks,
        usage: turn.usage,
        end: End::Complete,
        delta_chars: turn.delta_chars,
    }
}

/// Reads the file that a refused call wanted to change, and makes the call again.
fn read_first(unread: &UnreadFile) -> [Block; 2] {
    let call = |name: &str, input: Value| {
        Block::Call(Call { name: name.to_owned(), namespace: None, input: Input::Json(input) })
    };
    [call("Read", json!({ "file_path": unread.path })), call(&unread.tool, unread.input.clone())]
}

fn keep(shared: &Shared, parts: &Parts, body: Bytes, kind: RequestKind) {
    let path = parts.uri.path_and_query().map_or(parts.uri.path(), |path| path.as_str());
    shared.record.keep(Entry {
        method: parts.method.to_string(),
        path: path.to_owned(),
        script: split(parts.uri.path()).map(|(name, _)| name.to_owned()),
        kind,
        headers: redacted(&parts.headers),
        body,
    });
}

/// Splits `/s/<script>/<route>`.
fn split(path: &str) -> Option<(&str, Route)> {
    let rest = path.strip_prefix("/s/")?;
    let (name, route) = rest.split_once('/').unwrap_or((rest, ""));
    let route = match route {
        "v1/messages" => Route::Answer(Api::Anthropic),
        "v1/messages/count_tokens" => Route::CountTokens,
        "v1/responses" => Route::Answer(Api::Openai),
        "" => Route::Probe,
        _ => Route::Unknown,
    };
    Some((name, route))
}

/// The API whose errors a path's caller will understand.
fn api_of(path: &str) -> Api {
    if path.contains("/responses") { Api::Openai } else { Api::Anthropic }
}

fn user_agent(parts: &Parts) -> &str {
    parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
