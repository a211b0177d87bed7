use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use crate::place::Place;

/// The most bytes of a file that is read or edited: 4 MiB.
const MAX_BYTES: u64 = 4 << 20;

/// What a tool does to a file of the worktree.
#[derive(Debug, Clone)]
pub(crate) enum FileWork {
    Read(Place),
    Write { place: Place, content: String },
    Append { place: Place, content: String },
    Edit { place: Place, find: String, replace: String },
    Delete(Place),
    Rename { from: Place, to: Place },
}

impl FileWork {
    /// Does it; gives what the tool prints, or why it cannot be done.
    ///
    /// - Blocks for as long as the disk takes for one small file.
    pub(crate) fn run(&self, workdir: &Path) -> Result<String, String> {
        match self {
            Self::Read(place) => read(workdir, place),
            Self::Write { place, content } => {
                let path = place.within(workdir)?;
                make_parent(&path)
                    .and_then(|()| fs::write(&path, content))
                    .map_err(on(place, "be written"))?;
                Ok(format!("Wrote {} lines to {}.", content.lines().count(), place.as_str()))
            }
            Self::Append { place, content } => {
                OpenOptions::new()
                    .append(true)
                    .open(place.within(workdir)?)
                    .and_then(|mut file| file.write_all(content.as_bytes()))
                    .map_err(on(place, "be appended to"))?;
                Ok(format!("Added {} lines to {}.", content.lines().count(), place.as_str()))
            }
            Self::Edit { place, find, replace } => {
                let text = read(workdir, place)?;
                match text.matches(find.as_str()).count() {
                    1 => {}
                    times => {
                        return Err(format!(
                            "`find` must be in `{}` once, and is there {times} times",
                            place.as_str()
                        ));
                    }
                }
                fs::write(place.within(workdir)?, text.replacen(find, replace, 1))
                    .map_err(on(place, "be written"))?;
                Ok(format!("Edited {}.", place.as_str()))
            }
            Self::Delete(place) => {
                fs::remove_file(place.within(workdir)?).map_err(on(place, "be deleted"))?;
                Ok(String::new())
            }
            Self::Rename { from, to } => {
                let (old, new) = (from.within(workdir)?, to.within(workdir)?);
                if new.exists() {
                    return Err(format!("`{}` is there already", to.as_str()));
                }
                make_parent(&new).and_then(|()| fs::rename(old, new)).map_err(on(from, "be renamed"))?;
                Ok(String::new())
            }
        }
    }
}

fn read(workdir: &Path, place: &Place) -> Result<String, String> {
    let path = place.within(workdir)?;
    let cannot = on(place, "be read");
    match fs::metadata(&path) {
        Ok(found) if found.len() > MAX_BYTES => {
            Err(format!("`{}` has more than {MAX_BYTES} bytes", place.as_str()))
        }
        Ok(_) => fs::read_to_string(&path).map_err(cannot),
        Err(error) => Err(cannot(error)),
    }
}

fn make_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

fn on(place: &Place, what: &'static str) -> impl Fn(io::Error) -> String {
    move |error| format!("`{}` cannot {what}: {error}", place.as_str())
}
