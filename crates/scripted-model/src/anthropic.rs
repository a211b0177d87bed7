//! Anthropic's Messages API: reading requests, writing answers.

mod answer;
mod read;

pub(crate) use answer::{answer, error_body, stream, stream_error};
pub(crate) use read::{count_tokens, read};
