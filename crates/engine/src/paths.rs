//! Which paths a run may change.

/// The paths that are not below any of the allowed ones.
///
/// - Both are relative to the repository, with `/`; an allowed path stands for itself and all below it, and `.` or
///   an empty one for everything.
/// - Names are compared as they are: no case folding, no patterns; an allowed path with `..` allows nothing.
pub(crate) fn outside<'a>(paths: &'a [String], allowed: &[String]) -> Vec<&'a str> {
    let parts = |path: &str| -> Vec<String> {
        path.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect()
    };
    let allowed: Vec<_> =
        allowed.iter().map(|path| parts(path)).filter(|path| !path.iter().any(|part| part == "..")).collect();
    paths
        .iter()
        .map(String::as_str)
        .filter(|path| {
            let path = parts(path);
            !allowed.iter().any(|allowed| path.starts_with(allowed))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::outside;

    #[test]
    fn a_path_allows_itself_and_what_is_below() {
        let paths = ["src/a.rs", "src2/b.rs", "README.md", "srcs"].map(String::from);
        let outside = |allowed: &[&str]| {
            let allowed: Vec<_> = allowed.iter().map(|&path| path.to_owned()).collect();
            outside(&paths, &allowed).into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(outside(&["src"]), ["src2/b.rs", "README.md", "srcs"]);
        assert_eq!(outside(&["./src/", "README.md"]), ["src2/b.rs", "srcs"]);
        assert_eq!(outside(&["."]), Vec::<String>::new());
        assert_eq!(outside(&["src/../.."]).len(), 4);
        assert_eq!(outside(&[]).len(), 4);
    }
}
