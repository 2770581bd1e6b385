//! The known name that an unknown one was probably meant to be.

/// The entry of `known` with the fewest edits (insert, drop, replace) to `name`, if it is near enough to be a slip of the pen:
/// at most a third of the name. The last part of a path is compared by itself too, so that a key in the wrong section is found.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let last = |s: &str| s.rsplit('.').next().unwrap_or_default().replace('-', "_");
    let own = last(name);
    known
        .filter_map(|candidate| {
            let near = |distance: usize, len: usize| Some(distance).filter(|d| *d <= len / 3);
            let whole = near(edits(name, candidate), name.len());
            let part = near(edits(&own, &last(candidate)), own.len()).map(|distance| distance + 1);
            whole
                .into_iter()
                .chain(part)
                .min()
                .map(|distance| (distance, candidate))
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance over bytes.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 3] = [
        "server.http_listen_port",
        "limits.ingestion_rate",
        "auth_enabled",
    ];

    #[test]
    fn slips_and_wrong_sections_find_their_key() {
        let near = |name| nearest(name, KNOWN.into_iter());
        assert_eq!(
            near("server.http_listn_port"),
            Some("server.http_listen_port")
        );
        assert_eq!(near("server.ingestion_rate"), Some("limits.ingestion_rate"));
        assert_eq!(near("auth_enable"), Some("auth_enabled"));
        assert_eq!(near("qqq"), None);
        assert_eq!(nearest("server.foo", ["io"].into_iter()), None);
    }

    #[test]
    fn distances_are_those_of_levenshtein() {
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("same", "same"), 0);
    }
}
