//! The worker's memory that a supervisor does not need.
//!
//! A fork shares every page until one side changes it, and keeps the old page then. A supervisor would hold
//! on to as much memory as its worker has changed since; so it gives back the large anonymous mappings,
//! which are heaps, buffers and other threads' stacks.

use std::fs;

/// Smaller mappings are left alone, in bytes.
const SMALLEST: usize = 256 << 10;
/// At most so many mappings are given back, the largest first.
pub(super) const MOST: usize = 256;

/// A mapping: its first address, and the first address after it.
pub(super) type Range = (usize, usize);

/// The mappings to give back: the large, private, writable and anonymous ones.
///
/// - A mapping that follows a file's directly may be the zeroed data of a library, and is not among them.
/// - Unused places are empty ranges.
pub(super) fn ballast() -> [Range; MOST] {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mut found = discardable(&maps);
    found.sort_by_key(|(start, end)| std::cmp::Reverse(end - start));
    let mut chosen = [(0, 0); MOST];
    for (place, range) in chosen.iter_mut().zip(found) {
        *place = range;
    }
    chosen
}

fn discardable(maps: &str) -> Vec<Range> {
    let mut found = Vec::new();
    let mut file_end = 0;
    for line in maps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let range = fields.next().and_then(|range| range.split_once('-'));
        let Some((start, end)) = range.and_then(|(start, end)| Some((address(start)?, address(end)?))) else {
            continue;
        };
        let (rights, inode, name) = (fields.next(), fields.nth(2), fields.next());
        let heap = name == Some("[heap]");
        let follows_file = start == file_end;
        if inode != Some("0") || (follows_file && !heap) {
            file_end = end; // what follows the data of a file counts as its data, all along
        } else if rights == Some("rw-p") && (name.is_none() || heap) && end - start >= SMALLEST {
            found.push((start, end));
        }
    }
    found
}

fn address(hex: &str) -> Option<usize> {
    usize::from_str_radix(hex, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_large_anonymous_memory_is_ballast() {
        let maps = "\
            00400000-00900000 rw-p 00000000 08:01 77 /bin/worker\n\
            00900000-00f00000 rw-p 00000000 00:00 0 \n\
            01000000-02000000 rw-p 00000000 00:00 0 [heap]\n\
            03000000-03001000 rw-p 00000000 00:00 0 \n\
            04000000-05000000 rw-p 00000000 00:00 0 \n\
            06000000-07000000 rw-s 00000000 00:00 0 \n\
            07000000-08000000 r--p 00000000 00:00 0 \n\
            09000000-0a000000 rw-p 00000000 00:00 0 [stack]\n";
        assert_eq!(discardable(maps), [(0x100_0000, 0x200_0000), (0x400_0000, 0x500_0000)]);
    }
}
