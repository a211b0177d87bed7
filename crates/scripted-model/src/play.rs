//! Plays one turn to one request: the answer, its pace, and what goes wrong with it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde_json::Value;

use crate::fault::{self, Fault, Headers};
use crate::mark::Ids;
use crate::request::ModelRequest;
use crate::sse::{Frame, FrameKind};
use crate::step::Api;
use crate::toolbox::Block;
use crate::turn::Usage;
use crate::{anthropic, openai};

/// How long the bytes before a cut get to leave; without it they would be dropped with the connection.
const FLUSH: Duration = Duration::from_millis(5);

/// An answer that either API can carry.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) model: String,
    pub(crate) blocks: Vec<Block>,
    pub(crate) usage: Usage,
    pub(crate) end: End,
    pub(crate) delta_chars: usize,
}

/// How an answer says it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Complete,
    MaxTokens,
    Refusal,
}

/// An error as an API words it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ApiError<'a> {
    pub(crate) status: u16,
    /// OpenAI's `code`; Anthropic has none.
    pub(crate) code: Option<&'static str>,
    pub(crate) message: &'a str,
}

/// How a stream stops short.
#[derive(Debug)]
enum Break {
    Error(Frame),
    Cut,
    Hang,
}

/// Plays an answer, or the fault in its place.
pub(crate) async fn play(
    request: &ModelRequest,
    mut answer: Answer,
    fault: Option<&Fault>,
    ids: &Ids<'_>,
    delta_delay: Duration,
) -> Response {
    let broken = match fault {
        None => None,
        Some(Fault::Http { status, headers, body, message }) => {
            let error = ApiError {
                status: *status,
                code: None,
                message: message.as_deref().unwrap_or(fault::error_message(*status)),
            };
            let body = body.clone().unwrap_or_else(|| error_body(request.api, error));
            return http(*status, &body, headers);
        }
        Some(Fault::ContextFull) => return refuse(request, context_full(request.api), ids),
        Some(Fault::Quota) => return refuse(request, quota(request.api), ids),
        Some(Fault::MaxTokens) => {
            answer.end = End::MaxTokens;
            None
        }
        Some(Fault::Refusal) => {
            answer.end = End::Refusal;
            None
        }
        Some(Fault::ErrorEvent { message, after_deltas }) => {
            let error = ApiError { status: 500, code: Some("server_error"), message };
            if !request.streaming {
                return http(500, &error_body(request.api, error), &Headers::new());
            }
            Some((*after_deltas, Break::Error(stream_error(request.api, error, ids))))
        }
        Some(Fault::Cut { after_deltas }) => Some((*after_deltas, Break::Cut)),
        Some(Fault::Hang { .. }) if !request.streaming => std::future::pending().await,
        Some(Fault::Hang { after_deltas }) => Some((*after_deltas, Break::Hang)),
    };
    if !request.streaming {
        let body = match request.api {
            Api::Anthropic => anthropic::answer(&answer, ids),
            Api::Openai => openai::answer(&answer, ids),
        };
        return match broken {
            None => Json(body).into_response(),
            Some(_) => cut_body(&body),
        };
    }
    let frames = match request.api {
        Api::Anthropic => anthropic::stream(&answer, ids),
        Api::Openai => openai::stream(&answer, ids),
    };
    let (frames, end) = match broken {
        None => (frames, None),
        Some((after, how)) => (stop_short(frames, after), Some(how)),
    };
    event_stream(frames, end, delta_delay)
}

/// Answers an HTTP error in the API's usual shape.
pub(crate) fn reject(api: Api, status: u16, message: &str) -> Response {
    http(status, &error_body(api, ApiError { status, code: None, message }), &Headers::new())
}

fn error_body(api: Api, error: ApiError<'_>) -> Value {
    match api {
        Api::Anthropic => anthropic::error_body(error),
        Api::Openai => openai::error_body(error),
    }
}

fn stream_error(api: Api, error: ApiError<'_>, ids: &Ids<'_>) -> Frame {
    match api {
        Api::Anthropic => anthropic::stream_error(error),
        Api::Openai => openai::stream_error(error, ids),
    }
}

fn context_full(api: Api) -> ApiError<'static> {
    match api {
        Api::Anthropic => ApiError {
            status: 400,
            code: None,
            message: "prompt is too long: 208310 tokens > 200000 maximum",
        },
        Api::Openai => ApiError {
            status: 400,
            code: Some("context_length_exceeded"),
            message: "Your input exceeds the context window of this model.",
        },
    }
}

fn quota(api: Api) -> ApiError<'static> {
    match api {
        Api::Anthropic => ApiError {
            status: 400,
            code: None,
            message: "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing.",
        },
        Api::Openai => ApiError {
            status: 429,
            code: Some("insufficient_quota"),
            message: "You exceeded your current quota, please check your plan and billing details.",
        },
    }
}

/// Refuses the whole request: OpenAI does so within a stream, Anthropic by status.
fn refuse(request: &ModelRequest, error: ApiError<'_>, ids: &Ids<'_>) -> Response {
    if request.streaming && request.api == Api::Openai {
        return event_stream(vec![openai::stream_error(error, ids)], None, Duration::ZERO);
    }
    http(error.status, &error_body(request.api, error), &Headers::new())
}

fn http(status: u16, body: &Value, headers: &Headers) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Json(body)).into_response();
    for (name, value) in headers {
        // A script's headers were checked before the server started.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// Sends half of a body and breaks the connection.
fn cut_body(body: &Value) -> Response {
    let mut bytes = Bytes::from(body.to_string());
    let half = bytes.split_to(bytes.len() / 2);
    let parts = stream::iter([Ok(half)]).chain(stream::once(async { Err(cut().await) }));
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(parts)).into_response()
}

/// Waits until what was sent before is on its way, then breaks the connection.
async fn cut() -> io::Error {
    tokio::time::sleep(FLUSH).await;
    io::Error::from(io::ErrorKind::ConnectionReset)
}

/// Keeps what comes before the delta after `deltas` ones, or before the end.
fn stop_short(frames: Vec<Frame>, deltas: usize) -> Vec<Frame> {
    let mut seen = 0;
    frames
        .into_iter()
        .take_while(|frame| {
            seen += usize::from(frame.kind == FrameKind::Delta);
            frame.kind != FrameKind::End && seen <= deltas
        })
        .collect()
}

fn event_stream(frames: Vec<Frame>, end: Option<Break>, delta_delay: Duration) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    if end.is_none() && delta_delay.is_zero() {
        let all = frames.into_iter().map(|frame| Ok::<_, Infallible>(frame.bytes));
        return (headers, Body::from_stream(stream::iter(all))).into_response();
    }
    let parts = stream::unfold((VecDeque::from(frames), end), move |(mut frames, end)| async move {
        if let Some(frame) = frames.pop_front() {
            if frame.kind == FrameKind::Delta && !delta_delay.is_zero() {
                tokio::time::sleep(delta_delay).await;
            }
            return Some((Ok(frame.bytes), (frames, end)));
        }
        match end? {
            Break::Error(frame) => Some((Ok(frame.bytes), (frames, None))),
            Break::Cut => Some((Err(cut().await), (frames, None))),
            Break::Hang => std::future::pending().await,
        }
    });
    (headers, Body::from_stream(parts)).into_response()
}
