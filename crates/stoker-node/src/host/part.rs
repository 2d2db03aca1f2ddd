//! One thing that the tenant asks for, from look to look. Pure.

/// After so many looks in a row that find that it is not asked any more, or cannot be done as it is asked, it is not done as it was asked
/// before either: a pod of the add-on does it by then.
pub(crate) const PATIENCE: u32 = 3;

/// What is done, and for how many looks it has not been what is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part<T> {
    settled: Option<T>,
    misses: u32,
}

impl<T> Part<T> {
    pub(crate) fn new(settled: Option<T>) -> Self {
        Self { settled, misses: 0 }
    }

    /// What is to be done, whether it is what is asked or what was asked before.
    pub(crate) fn settled(&self) -> Option<&T> {
        self.settled.as_ref()
    }

    /// Whether the last look found it done as it is asked.
    pub(crate) fn is_as_asked(&self) -> bool {
        self.settled.is_some() && self.misses == 0
    }

    /// A look that found what is asked to be `done`, or, without it, nothing that is asked and can be done.
    pub(crate) fn looked(&mut self, done: Option<T>) {
        self.misses = if done.is_some() { 0 } else { self.misses + 1 };
        if done.is_some() || self.misses >= PATIENCE {
            self.settled = done;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_asked_any_more_goes_on_for_a_while_and_is_not_said_to() {
        let mut part = Part::new(None);
        part.looked(Some(1));
        assert!(part.is_as_asked());
        for _ in 1..PATIENCE {
            part.looked(None);
            assert_eq!((part.settled(), part.is_as_asked()), (Some(&1), false));
        }
        part.looked(None);
        assert_eq!((part.settled(), part.is_as_asked()), (None, false));
        part.looked(Some(2));
        assert!(part.is_as_asked());
        // Patience begins anew.
        part.looked(None);
        part.looked(Some(2));
        part.looked(None);
        part.looked(None);
        assert_eq!(part.settled(), Some(&2));
    }
}
