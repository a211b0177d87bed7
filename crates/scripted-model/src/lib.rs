//! A scripted model API on loopback, to test coding agents and whole factories offline.
//!
//! A [`ScriptedModel`] speaks Anthropic's Messages API and OpenAI's Responses API, streaming or not, and answers
//! from a [`Script`]: texts, reasoning, tool calls, usage, delays and faults. Point Claude Code or Codex at its
//! base URL with any key, and a real agent edits real files without a real model.
//!
//! ```
//! use lime_scripted_model::{RequestKind, Script, ScriptedModel};
//!
//! let model = ScriptedModel::start(Script::edit_file("greeting.txt", "hello\n", "I wrote it."))?;
//! let claude = model.anthropic_base_url(); // ANTHROPIC_BASE_URL
//! let codex = model.openai_base_url(); //     model_providers.<name>.base_url, wire_api="responses"
//! assert!(claude.starts_with("http://127.0.0.1:") && codex.ends_with("/v1"));
//! // … run the agent, then look at what it sent:
//! for request in model.requests() {
//!     if let RequestKind::Turn(turn) = request.kind {
//!         println!("turn {turn}: model {}", request.body["model"]);
//!     }
//! }
//! # Ok::<(), lime_scripted_model::StartError>(())
//! ```
//!
//! # Which turn a request gets
//!
//! The server keeps no place in the script; the conversation in the request tells it. Every id that the server
//! makes holds its turn (`toolu_lime_3_17` belongs to turn 3), agents send those ids back, and the turn after
//! the last one found is played. An answer without such an id (Anthropic's wire has none for texts) counts as
//! one turn. Therefore:
//!
//! - Any number of conversations play one script side by side, each from its beginning.
//! - A retry gets the same turn again, a resumed conversation the next one, a fork its own.
//! - A second prompt in the same conversation goes on with the turn after the last one.
//! - A turn that a [`Fault`] hit was not given: the retry meets the same turn, and the fault again unless
//!   [`Turn::fault_times`] is used up.
//! - A conversation whose whole history the agent replaced by a summary begins the script anew, and so does
//!   a sub-agent.
//!
//! Side requests (Claude Code's titles and warm-ups, Codex's compactions) are answered with
//! [`Script::side_text`] and use up nothing. They are known by their marks: one output token at most; from
//! Claude Code, neither tools nor a working directory; from Codex, a `request_kind` other than `turn`.
//!
//! # One story for both agents
//!
//! [`Step::WriteFile`], [`Step::ReplaceLines`], [`Step::ReadFile`] and [`Step::RunCommand`] become calls of
//! whichever tools the request offers: Claude's `Write`, `Edit`, `Read` and `Bash`; Codex's `apply_patch`,
//! `exec_command`, `shell_command` or `shell`, or `exec` in code mode. Where the agent offers no tool that can do
//! it, the answer is status 400 with a message that names the tools on offer.
//!
//! # Limits
//!
//! - Loopback only, a port chosen by the system; 64 connections, 16 MiB a request, and 256 requests or 64 MiB
//!   of them kept for inspection, unless the [`Builder`] says otherwise.
//! - `count_tokens` answers a guess of four bytes a token.
//! - No WebSockets (Codex: `supports_websockets=false`), no compressed requests, no stored responses
//!   (`previous_response_id`).

mod anthropic;
mod error;
mod fault;
mod gate;
mod handle;
mod mark;
mod openai;
mod play;
mod recorded;
mod request;
mod script;
mod server;
mod sse;
mod step;
mod toolbox;
mod turn;

pub use error::{ScriptError, StartError};
pub use fault::{Fault, Headers};
pub use recorded::{RecordedRequest, RequestKind};
pub use script::{Ending, Script};
pub use server::{Builder, Endpoint, ScriptedModel};
pub use step::{Api, Step};
pub use turn::{Turn, Usage};
