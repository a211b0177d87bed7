use std::io::Write;

use assembly_lime::ports::Live;

use super::{End, Show};

/// The recorded events as they are on the wire, one line of JSON each; all else goes to standard error.
#[derive(Default)]
pub(crate) struct Json {
    reader_gone: bool,
}

impl Show for Json {
    fn title(&mut self) {}

    fn fact(&mut self, _: &str, _: &str) {}

    fn waiting(&mut self, _: &str) {}

    fn event(&mut self, live: Live) {
        // What is not recorded has no position, and would be a gap to whoever counts.
        let Live::Recorded(event) = live else { return };
        if self.reader_gone {
            return;
        }
        let mut out = std::io::stdout().lock();
        let written = serde_json::to_writer(&mut out, &event)
            .map_err(std::io::Error::from)
            .and_then(|()| out.write_all(b"\n"))
            .and_then(|()| out.flush());
        self.reader_gone = written.is_err();
    }

    fn note(&mut self, text: &str) {
        super::complain(text);
    }

    fn end(&mut self, end: &End) {
        super::complain(&end.in_a_line());
    }
}
