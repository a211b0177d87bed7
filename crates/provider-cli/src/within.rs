//! Telling whether a path stays within a folder.

use std::path::{Component, Path, PathBuf};

/// Where a path lies in a folder, once links are followed; `None` if it leads out of it.
///
/// - A relative path is one from the folder. The file need not be there yet: the nearest folder above it that is there
///   decides. A link that leads nowhere leads out, since writing through it would make its target.
/// - A look at the disk, so it holds for as long as nobody moves a link.
pub fn path_within(folder: &Path, path: &Path) -> Option<PathBuf> {
    let folder = folder.canonicalize().ok()?;
    let path = folder.join(path);
    if path.components().any(|part| part == Component::ParentDir) {
        return None;
    }
    let (place, rest) = path.ancestors().find_map(|place| {
        let rest = path.strip_prefix(place).ok()?;
        place.symlink_metadata().is_ok().then_some((place, rest))
    })?;
    place.canonicalize().ok()?.join(rest).strip_prefix(&folder).ok().map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_what_stays_inside_is_within() {
        let folder = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        symlink(outside.path(), folder.path().join("away")).unwrap();
        symlink(outside.path().join("new"), folder.path().join("dangling")).unwrap();
        fs::create_dir(folder.path().join("src")).unwrap();
        symlink(folder.path().join("src"), folder.path().join("inside")).unwrap();
        let within = |path: &str| path_within(folder.path(), Path::new(path));
        assert_eq!(within("src/new/deep.rs"), Some("src/new/deep.rs".into()));
        assert_eq!(within("inside/a.rs"), Some("src/a.rs".into()));
        assert_eq!(path_within(folder.path(), &folder.path().join("a")), Some("a".into()));
        for path in ["away/x", "dangling", "../x", "src/../../x", "/etc/passwd"] {
            assert_eq!(within(path), None, "{path}");
        }
        assert_eq!(path_within(Path::new("no/such/folder"), Path::new("a")), None);
    }
}
