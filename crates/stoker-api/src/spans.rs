//! What only some of the supported minors have, by first and last minor.

/// First and last supported minor of some names.
pub(crate) type Span = (u32, u32, &'static [&'static str]);

/// The names that `minor` has.
pub(crate) fn of(spans: &'static [Span], minor: u32) -> impl Iterator<Item = &'static str> {
    spans
        .iter()
        .filter(move |(first, last, _)| (*first..=*last).contains(&minor))
        .flat_map(|(_, _, names)| names.iter().copied())
}

/// First and last supported minor of a name.
pub(crate) fn span_of(spans: &[Span], name: &str) -> Option<(u32, u32)> {
    let mut spans = spans.iter();
    let (first, last, _) = spans.find(|(_, _, names)| names.contains(&name))?;
    Some((*first, *last))
}
