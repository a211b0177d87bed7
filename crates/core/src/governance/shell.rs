//! What a command line runs, as far as it is certain before it runs.

use std::iter::Peekable;
use std::str::Chars;

/// The simple commands that a shell would run for a line, each as its words without quotes and with one blank between.
///
/// - Read are words, quotes, `\`, the separators `;` `&&` `||` `|` `&` and the end of a line, and the redirections that
///   lead nowhere else: to `/dev/null`, or from one output to the other (`2>&1`).
/// - A word with a blank or another character that means something to a shell comes back in single quotes. `*` and `?`
///   outside of quotes come back as `*`: the file names that they may stand for.
/// - A shell that is given its script (`bash -lc '…'`) is read as the script.
/// - All else is [`Unclear`].
pub(crate) fn simple_commands(line: &str) -> Result<Vec<String>, Unclear> {
    let mut commands = Vec::new();
    read(line, MAX_DEPTH, &mut commands)?;
    Ok(commands)
}

/// Why it cannot be said before a call what it would do.
///
/// - Of commands: `$…` and backticks outside of single quotes, groups, functions, loops and conditions, variables that
///   are set (`PATH=… git`), redirections to or from a file, `[…]` and `{…}` outside of quotes, comments, quotes that
///   are not closed, and a program that is not named in plain letters.
/// - Of paths: `..`. Of any call: a command or path that is not a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unclear(pub(crate) &'static str);

/// How many shells within shells are read.
const MAX_DEPTH: u8 = 4;
/// Words after which a shell reads something else than a simple command; some are zsh's.
const RESERVED: &[&str] = &[
    "!",
    "[[",
    "case",
    "coproc",
    "do",
    "done",
    "elif",
    "else",
    "esac",
    "fi",
    "for",
    "foreach",
    "function",
    "if",
    "in",
    "nocorrect",
    "noglob",
    "repeat",
    "select",
    "then",
    "time",
    "until",
    "while",
];
const SHELLS: &[&str] = &["sh", "bash", "dash", "ksh", "zsh"];

const EXPANSION: Unclear = Unclear("what `$…` or a backtick stands for is known only when it runs");
const GROUP: Unclear = Unclear("groups, functions, braces and brackets are not read");
const QUOTE: Unclear = Unclear("a quote is not closed");
const REDIRECTION: Unclear = Unclear("it reads or writes a file by a redirection");
const COMMENT: Unclear = Unclear("comments are not read");
const CHARACTER: Unclear = Unclear("it has a control character or an unusual blank");
const COMPOUND: Unclear = Unclear("loops, conditions and the like are not read");
const VARIABLE: Unclear = Unclear("it sets a variable for the command");
const PROGRAM: Unclear = Unclear("it is not certain which program it runs");
const SCRIPT: Unclear = Unclear("it runs a script by another shell, in a way that is not read");

#[derive(Debug, Default)]
struct Word {
    text: String,
    /// Whether it may stand for file names.
    globs: bool,
    /// Whether a part of it was quoted.
    quoted: bool,
}

fn read(line: &str, depth: u8, commands: &mut Vec<String>) -> Result<(), Unclear> {
    for words in Reader::new(line).read()? {
        match script(&words)? {
            Some(_) if depth == 0 => return Err(SCRIPT),
            Some(script) => read(script, depth - 1, commands)?,
            None => commands.push(written(&words)),
        }
    }
    Ok(())
}

/// The script that a command gives to a shell, if it is such a command.
fn script(words: &[Word]) -> Result<Option<&str>, Unclear> {
    let Some((program, arguments)) = words.split_first() else {
        return Ok(None);
    };
    let name = program.text.rsplit('/').next().unwrap_or_default();
    if !SHELLS.contains(&name) {
        return Ok(None);
    }
    let letters = |word: &Word| {
        word.text.strip_prefix('-').is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_alphabetic()))
    };
    let takes_script = |word: &Word| letters(word) && word.text.contains('c');
    // Some options take a word of their own: `-o`, `-O`, and those that are words themselves.
    let is_simple = |word: &Word| letters(word) && !word.text.contains(['o', 'O']);
    let options = arguments.iter().take_while(|word| word.text.starts_with(['-', '+'])).count();
    let (options, rest) = arguments.split_at(options);
    let simple = options.iter().all(is_simple);
    if options.iter().any(takes_script) {
        return match rest.first() {
            Some(script) if simple && !script.globs => Ok(Some(&script.text)),
            Some(_) | None => Err(SCRIPT),
        };
    }
    if !simple && rest.iter().any(takes_script) { Err(SCRIPT) } else { Ok(None) }
}

fn written(words: &[Word]) -> String {
    let special = |c: char| c.is_whitespace() || "'\"\\;&|<>()$`".contains(c);
    let write = |word: &Word| {
        if word.text.is_empty() || word.text.contains(special) {
            format!("'{}'", word.text.replace('\'', r"'\''"))
        } else {
            word.text.clone()
        }
    };
    words.iter().map(write).collect::<Vec<_>>().join(" ")
}

struct Reader<'l> {
    chars: Peekable<Chars<'l>>,
    commands: Vec<Vec<Word>>,
    words: Vec<Word>,
    word: Option<Word>,
}

impl<'l> Reader<'l> {
    fn new(line: &'l str) -> Self {
        Self { chars: line.chars().peekable(), commands: Vec::new(), words: Vec::new(), word: None }
    }

    fn read(mut self) -> Result<Vec<Vec<Word>>, Unclear> {
        while let Some(c) = self.chars.next() {
            match c {
                ' ' | '\t' => self.end_word(),
                // A shell refuses an empty command; nothing that it would run is passed over.
                '\n' | ';' | '|' => self.end_command()?,
                '&' if self.chars.peek() == Some(&'>') => return Err(REDIRECTION),
                '&' => self.end_command()?,
                '<' | '>' => self.redirection(c)?,
                '\'' => self.single_quotes()?,
                '"' => self.double_quotes()?,
                '\\' => self.escaped()?,
                '$' | '`' => return Err(EXPANSION),
                '(' | ')' | '{' | '}' | '[' | ']' => return Err(GROUP),
                '#' if self.word.is_none() => return Err(COMMENT),
                '*' | '?' => {
                    let word = self.word();
                    word.text.push('*');
                    word.globs = true;
                }
                c if c.is_control() || c.is_whitespace() => return Err(CHARACTER),
                c => self.word().text.push(c),
            }
        }
        self.end_command()?;
        Ok(self.commands)
    }

    fn word(&mut self) -> &mut Word {
        self.word.get_or_insert_default()
    }

    fn end_word(&mut self) {
        self.words.extend(self.word.take());
    }

    fn end_command(&mut self) -> Result<(), Unclear> {
        self.end_word();
        let words = std::mem::take(&mut self.words);
        let Some(program) = words.first() else {
            return Ok(());
        };
        if program.text.contains('=') {
            return Err(VARIABLE);
        }
        if RESERVED.contains(&program.text.as_str()) {
            return Err(COMPOUND);
        }
        if program.globs || program.text.is_empty() || program.text.contains(char::is_whitespace) {
            return Err(PROGRAM);
        }
        self.commands.push(words);
        Ok(())
    }

    fn escaped(&mut self) -> Result<(), Unclear> {
        match self.chars.next() {
            None => Err(QUOTE),
            Some('\n') => Ok(()),
            Some(c) => {
                let word = self.word();
                word.text.push(c);
                word.quoted = true;
                Ok(())
            }
        }
    }

    fn single_quotes(&mut self) -> Result<(), Unclear> {
        self.word().quoted = true;
        loop {
            match self.chars.next() {
                None => return Err(QUOTE),
                Some('\'') => return Ok(()),
                Some('\0') => return Err(CHARACTER),
                Some(c) => self.word().text.push(c),
            }
        }
    }

    fn double_quotes(&mut self) -> Result<(), Unclear> {
        self.word().quoted = true;
        loop {
            match self.chars.next() {
                None => return Err(QUOTE),
                Some('"') => return Ok(()),
                Some('$' | '`') => return Err(EXPANSION),
                Some('\0') => return Err(CHARACTER),
                Some('\\') => match self.chars.next() {
                    None => return Err(QUOTE),
                    Some('\n') => {}
                    Some(c @ ('$' | '`' | '"' | '\\')) => self.word().text.push(c),
                    Some(c) => self.word().text.extend(['\\', c]),
                },
                Some(c) => self.word().text.push(c),
            }
        }
    }

    /// A redirection after its `<` or `>`, which must lead to `/dev/null` or another output.
    fn redirection(&mut self, sign: char) -> Result<(), Unclear> {
        let is_number = |word: &Word| !word.quoted && word.text.bytes().all(|byte| byte.is_ascii_digit());
        if self.word.as_ref().is_some_and(is_number) {
            self.word = None;
        }
        self.end_word();
        if sign == '>' && self.chars.next_if_eq(&'&').is_some() {
            let output = self.bare_word();
            let is_output = !output.is_empty() && output.bytes().all(|byte| byte.is_ascii_digit());
            return if is_output { Ok(()) } else { Err(REDIRECTION) };
        }
        while self.chars.next_if(|c| matches!(c, ' ' | '\t')).is_some() {}
        if self.bare_word() == "/dev/null" { Ok(()) } else { Err(REDIRECTION) }
    }

    /// The characters up to a blank or a separator, as they are written.
    fn bare_word(&mut self) -> String {
        std::iter::from_fn(|| self.chars.next_if(|c| !c.is_whitespace() && !";&|<>()".contains(*c))).collect()
    }
}

#[cfg(test)]
mod tests;
