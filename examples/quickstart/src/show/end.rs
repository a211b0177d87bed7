use std::path::{Path, PathBuf};
use std::time::Duration;

use assembly_lime::Stored;
use assembly_lime::repos::CodeDiff;
use assembly_lime::runs::{AgentRun, RunStatus};

use super::cost;
use super::text::{count, tilde, time};

/// How a run ended, and where everything is.
pub(crate) struct End {
    pub(crate) run: Stored<AgentRun>,
    pub(crate) diff: Option<Stored<CodeDiff>>,
    pub(crate) took: Duration,
    /// The path or URL of the repository.
    pub(crate) repository: String,
    /// The checkout, if it was kept.
    pub(crate) checkout: Option<PathBuf>,
    /// Where it is all recorded.
    pub(crate) database: String,
    /// What to try next.
    pub(crate) next: Option<&'static str>,
}

impl End {
    /// The outcome, the time, the change and the cost in one line; why it failed is an event before.
    pub(crate) fn in_a_line(&self) -> String {
        let took = time(self.took);
        let mut line = match self.run.status {
            RunStatus::Succeeded => format!("Done in {took}"),
            RunStatus::Cancelled => format!("Cancelled after {took}"),
            status if status.is_final() => format!("Failed after {took}"),
            _ => format!("Left unfinished after {took}"),
        };
        let change = match &self.diff {
            Some(diff) => diff.summary.clone(),
            None => (self.run.status == RunStatus::Succeeded).then(|| "no changes".to_owned()),
        };
        for part in change.into_iter().chain([cost(&self.run.usage)]) {
            line.push_str(" · ");
            line.push_str(&part);
        }
        line
    }

    /// Where everything is, name and value.
    pub(crate) fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = Vec::new();
        if let (RunStatus::Succeeded, Some(diff), Some(branch)) =
            (self.run.status, &self.diff, &self.run.branch)
        {
            facts.push(("branch", branch.clone()));
            facts.push(("commit", diff.head_ref.clone()));
            facts.push(("look at it", look(&self.repository, branch)));
        }
        if let Some(checkout) = &self.checkout {
            facts.push(("checkout", format!("kept in {}", tilde(checkout))));
        }
        let events = count(u64::try_from(self.run.last_seq).unwrap_or_default(), "event");
        let calls =
            count(self.run.tool_calls.iter().map(|tally| u64::from(tally.count)).sum::<u64>(), "tool call");
        facts.push(("recorded", format!("run {}: {events}, {calls}", self.run.id)));
        facts.push(("database", self.database.clone()));
        facts.extend(self.next.iter().map(|&next| ("next", next.to_owned())));
        facts
    }
}

/// The command that shows the work.
fn look(repository: &str, branch: &str) -> String {
    if repository.starts_with('/') {
        // In quotes, a shell would not know what `~` is.
        let short = tilde(Path::new(repository));
        let folder = if is_plain(&short) { short } else { quoted(repository) };
        format!("git -C {folder} show {}", quoted(branch))
    } else {
        format!("git fetch {} {} && git show FETCH_HEAD", quoted(repository), quoted(branch))
    }
}

/// The word as a shell takes it.
fn quoted(word: &str) -> String {
    if is_plain(word) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// Whether a shell takes the word as it is.
fn is_plain(word: &str) -> bool {
    word.chars().all(|c| c.is_ascii_alphanumeric() || "/~._-:@+=,".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_can_be_pasted() {
        assert_eq!(look("/srv/my repo", "lime/a"), "git -C '/srv/my repo' show lime/a");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(look("https://h/x.git", "b"), "git fetch https://h/x.git b && git show FETCH_HEAD");
    }
}
