//! Finding one's own children in `/proc` without allocating, for the supervisor.

use std::mem::MaybeUninit;

use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, RawDir, SeekFrom, open, openat, seek};
use rustix::io::read;
use rustix::process::Pid;

/// The fields of `/proc/<pid>/stat` that tell where a process belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) pid: Pid,
    pub(super) parent: i32,
    pub(super) group: i32,
    pub(super) dead: bool,
}

/// An open `/proc`.
pub(super) struct Census(OwnedFd);

impl Census {
    pub(super) fn open() -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        open(c"/proc", flags, Mode::empty()).ok().map(Self)
    }

    /// Shows every process whose parent is `parent` to `visit`; async-signal-safe if `visit` is.
    pub(super) fn children(&self, parent: Pid, mut visit: impl FnMut(Place)) {
        let mut buffer = [MaybeUninit::uninit(); 8 << 10];
        if seek(&self.0, SeekFrom::Start(0)).is_err() {
            return;
        }
        let mut entries = RawDir::new(&self.0, &mut buffer);
        while let Some(Ok(entry)) = entries.next() {
            let place = pid_of(entry.file_name().to_bytes()).and_then(|pid| self.place(pid));
            if let Some(place) = place.filter(|place| place.parent == parent.as_raw_nonzero().get()) {
                visit(place);
            }
        }
    }

    fn place(&self, pid: Pid) -> Option<Place> {
        let mut path = [0; 24];
        let path = stat_path(pid, &mut path)?;
        let file = openat(&self.0, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let mut buffer = [0; 512];
        let length = read(&file, &mut buffer).ok()?;
        parse(pid, buffer.get(..length)?)
    }
}

fn pid_of(name: &[u8]) -> Option<Pid> {
    number(name).and_then(Pid::from_raw)
}

/// Writes `<pid>/stat` into the buffer.
fn stat_path(pid: Pid, buffer: &mut [u8; 24]) -> Option<&[u8]> {
    const TAIL: &[u8] = b"/stat";
    let mut at = buffer.len().checked_sub(TAIL.len())?;
    buffer.get_mut(at..)?.copy_from_slice(TAIL);
    let mut rest = pid.as_raw_nonzero().get().unsigned_abs();
    while rest > 0 {
        at = at.checked_sub(1)?;
        *buffer.get_mut(at)? = b'0' + u8::try_from(rest % 10).ok()?;
        rest /= 10;
    }
    buffer.get(at..)
}

/// Reads `pid (name) state parent group …`; the name may hold blanks and parentheses.
fn parse(pid: Pid, stat: &[u8]) -> Option<Place> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = stat.get(name_end + 1..)?.split(|byte| *byte == b' ').filter(|field| !field.is_empty());
    let dead = matches!(fields.next()?, b"Z" | b"X" | b"x");
    Some(Place { pid, parent: number(fields.next()?)?, group: number(fields.next()?)?, dead })
}

fn number(digits: &[u8]) -> Option<i32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_i32, |value, digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(i32::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_look_like_anything() {
        let pid = Pid::from_raw(12).unwrap();
        let place = parse(pid, b"12 (a) R 1 (x) S 7 8 9 0").unwrap();
        assert_eq!((place.parent, place.group, place.dead), (7, 8, false));
        assert!(parse(pid, b"12 (gone) Z 1 1 1").unwrap().dead);
        assert_eq!(parse(pid, b"12 (cut"), None);
        assert_eq!(number(b"99999999999"), None);
    }

    #[test]
    fn the_path_is_made_without_allocating() {
        let mut buffer = [0; 24];
        let pid = Pid::from_raw(4_194_304).unwrap();
        assert_eq!(stat_path(pid, &mut buffer), Some(&b"4194304/stat"[..]));
    }

    #[test]
    fn a_child_is_found() {
        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        let mut found = false;
        Census::open().unwrap().children(rustix::process::getpid(), |place| {
            found |= place.pid.as_raw_nonzero().get().unsigned_abs() == child.id();
        });
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found);
    }
}
