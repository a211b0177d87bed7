use std::io::{IsTerminal, Write};
use std::time::Duration;

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::text::cut;

/// The widest that a line gets, however wide the terminal is: longer ones are hard to read.
const WIDEST: usize = 100;
/// The narrowest that a line is laid out for.
const NARROWEST: usize = 30;
/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(100);

/// Standard output: lines that stay, and on a terminal one that moves below them.
///
/// - Elsewhere than on a terminal there are plain lines, of any length, and no escape codes.
/// - Once the reader has gone (`| head`), nothing more is written, and the run goes on.
pub(crate) struct Screen {
    live: Option<ProgressBar>,
    width: Option<usize>,
    reader_gone: bool,
}

impl Screen {
    /// The screen for a person; `moving` is false where logs come in between.
    pub(crate) fn open(moving: bool) -> Self {
        let terminal = Term::stdout();
        let capable =
            std::io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        console::set_colors_enabled(capable && wants_colour());
        let columns = terminal.size_checked().map(|(_, columns)| usize::from(columns));
        Self {
            live: (capable && moving).then(moving_line),
            width: capable.then(|| columns.unwrap_or(WIDEST).clamp(NARROWEST, WIDEST)),
            reader_gone: false,
        }
    }

    /// How many columns a line may take.
    pub(crate) fn width(&self) -> usize {
        self.width.unwrap_or(usize::MAX)
    }

    /// Writes a line that stays.
    pub(crate) fn line(&mut self, line: &str) {
        if self.reader_gone {
            return;
        }
        let write = || {
            let mut out = std::io::stdout().lock();
            writeln!(out, "{line}").and_then(|()| out.flush())
        };
        let written = match &self.live {
            Some(live) => live.suspend(write),
            None => write(),
        };
        self.reader_gone = written.is_err();
    }

    /// Says what is being waited for, in the line that moves; the clock in it starts anew if `since_now`.
    pub(crate) fn waiting(&self, what: &str, since_now: bool) {
        if let Some(live) = &self.live {
            // Room for the spinner before it and the clock behind it.
            live.set_prefix(cut(what, self.width().saturating_sub(12)));
            if since_now {
                live.reset_elapsed();
            }
        }
    }

    /// Shows what is being written right now, above the line that moves.
    pub(crate) fn writing(&self, lines: &[String]) {
        if let Some(live) = &self.live {
            live.set_message(lines.iter().map(|line| format!("{line}\n")).collect::<String>());
        }
    }

    /// Ends the line that moves.
    pub(crate) fn rest(&mut self) {
        if let Some(live) = self.live.take() {
            live.finish_and_clear();
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.rest();
    }
}

/// Whether the user has nothing against colours (<https://no-color.org>).
pub(crate) fn wants_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn moving_line() -> ProgressBar {
    let style = ProgressStyle::with_template("{msg}  {spinner:.cyan} {prefix} · {elapsed}")
        .expect("the template is a constant, and well formed")
        .tick_strings(&["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏", " "]);
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout()).with_style(style);
    bar.enable_steady_tick(TICK);
    bar
}
