use std::io::Read;

use assembly_lime::replay::Recording;
use assembly_lime::runs::AgentRun;

use crate::args::Args;
use crate::exit::Refusal;

/// The most characters of a ticket's title and description.
const MAX_TITLE: usize = 200;
const MAX_DESCRIPTION: usize = 5_000;
/// The most bytes of a prompt: 4 for each character that it may have.
const MAX_BYTES: u64 = 4 * AgentRun::MAX_PROMPT_CHARS as u64;

/// What is wanted.
#[derive(Debug)]
pub(crate) struct Wish {
    /// The ticket's title: the first line of the prompt.
    pub(crate) title: String,
    /// The ticket's description: the rest of it.
    pub(crate) description: Option<String>,
    /// The whole of it, for the agent.
    pub(crate) prompt: String,
}

impl Wish {
    /// What the arguments say, or else the ticket that a recording is about.
    pub(crate) async fn of(args: &Args, recording: &Recording) -> Result<Self, Refusal> {
        let prompt = match (args.prompt.as_deref(), recording.ticket()) {
            (Some("-"), _) => from_stdin().await?,
            (Some(text), _) => text.to_owned(),
            (None, Some(ticket)) => format!("{}\n\n{}", ticket.title, ticket.description),
            (None, None) => {
                return Err(Refusal::new(
                    "the recording is about no ticket; say with --prompt what the ticket is",
                ));
            }
        };
        Self::read(&prompt)
    }

    fn read(prompt: &str) -> Result<Self, Refusal> {
        let prompt = prompt.trim();
        if prompt.is_empty() {
            return Err(Refusal::new("the prompt is empty; say what the agent shall do"));
        }
        if prompt.chars().count() > AgentRun::MAX_PROMPT_CHARS {
            return Err(too_long());
        }
        if prompt.contains('\0') {
            return Err(Refusal::new("the prompt has NUL characters in it; give a text"));
        }
        let (first, rest) = prompt.split_once('\n').unwrap_or((prompt, ""));
        let title = cut(first.trim(), MAX_TITLE);
        let description = if title == first.trim() { rest.trim() } else { prompt };
        Ok(Self {
            title,
            description: (!description.is_empty()).then(|| cut(description, MAX_DESCRIPTION)),
            prompt: prompt.to_owned(),
        })
    }
}

async fn from_stdin() -> Result<String, Refusal> {
    let unread = |error| Refusal::new(format!("the prompt on standard input cannot be read: {error}"));
    // In a thread of its own, so that Ctrl-C is heard while somebody types.
    let reading = tokio::task::spawn_blocking(|| {
        let mut text = String::new();
        std::io::stdin().take(MAX_BYTES + 1).read_to_string(&mut text).map(|_| text)
    });
    let text = reading.await.map_err(std::io::Error::other).flatten().map_err(unread)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(too_long());
    }
    Ok(text)
}

fn too_long() -> Refusal {
    Refusal::new(format!("the prompt is longer than {} characters", AgentRun::MAX_PROMPT_CHARS))
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut text: String = text.chars().take(most - 1).collect();
    text.push('…');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_title() {
        let wish = Wish::read("\n  Mend it \n\nIt is broken.\n").unwrap();
        assert_eq!((wish.title.as_str(), wish.description.as_deref()), ("Mend it", Some("It is broken.")));
        assert_eq!(wish.prompt, "Mend it \n\nIt is broken.");
        assert_eq!(Wish::read("Mend it").unwrap().description, None);
    }

    #[test]
    fn a_long_first_line_is_cut_and_kept_in_the_description() {
        let long = "é".repeat(6_000);
        let wish = Wish::read(&long).unwrap();
        assert_eq!(wish.title.chars().count(), MAX_TITLE);
        assert_eq!(wish.description.unwrap().chars().count(), MAX_DESCRIPTION);
        assert_eq!(wish.prompt, long);
    }

    #[test]
    fn a_prompt_of_nothing_is_refused() {
        for nothing in ["", " \n\t", "a\0b"] {
            assert!(Wish::read(nothing).is_err(), "{nothing:?}");
        }
        assert!(Wish::read(&"a".repeat(AgentRun::MAX_PROMPT_CHARS + 1)).is_err());
    }
}
