use std::fmt;

/// A rule that is broken somewhere.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The crate or file.
    pub(crate) place: String,
    /// What is wrong there, and the rule that says so.
    pub(crate) broken: String,
    /// What to do about it.
    pub(crate) remedy: String,
}

impl Finding {
    pub(crate) fn new(
        place: impl Into<String>,
        broken: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { place: place.into(), broken: broken.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n    {}", self.place, self.broken, self.remedy)
    }
}
