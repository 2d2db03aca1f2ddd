//! When to ask again, and whom.

use std::time::Duration;

use crate::answer::Answer;
use crate::member::CALL_TIMEOUT;

/// No further try starts after this long.
const PATIENCE: Duration = CALL_TIMEOUT.saturating_mul(2);
/// Nor, where there is no other member to ask, after one that hung.
const PATIENCE_WITH_ONE: Duration = CALL_TIMEOUT;
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// How often each member may fail to answer before the call fails.
const ROUNDS: usize = 2;

/// What to do after a failed try.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Ask the same member again after a pause.
    Again(Duration),
    /// Ask the next member after a pause.
    Elsewhere(Duration),
    /// Report the failure.
    GiveUp,
}

/// The tries of one call. All calls of this crate may be made twice.
pub(crate) struct Tries {
    members: usize,
    failed: u32,
    disconnected: usize,
}

impl Tries {
    pub(crate) fn new(members: usize) -> Self {
        Self {
            members,
            failed: 0,
            disconnected: 0,
        }
    }

    pub(crate) fn next(&mut self, answer: Answer, elapsed: Duration) -> Next {
        let patience = if self.members == 1 {
            PATIENCE_WITH_ONE
        } else {
            PATIENCE
        };
        if elapsed >= patience {
            return Next::GiveUp;
        }
        let pause = FIRST_PAUSE
            .saturating_mul(1 << self.failed.min(10))
            .min(LONGEST_PAUSE);
        self.failed += 1;
        match answer {
            Answer::TryAgain => Next::Again(pause),
            Answer::NoConnection | Answer::NoLeader => {
                self.disconnected += 1;
                if self.disconnected >= self.members * ROUNDS {
                    Next::GiveUp
                } else {
                    Next::Elsewhere(pause)
                }
            }
            _ => Next::GiveUp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passing_state_is_retried_with_growing_pauses_until_patience_ends() {
        let mut tries = Tries::new(1);
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            let Next::Again(pause) = tries.next(Answer::TryAgain, Duration::ZERO) else {
                panic!("gave up");
            };
            assert!(pause >= last && pause <= LONGEST_PAUSE);
            last = pause;
        }
        assert_eq!(last, LONGEST_PAUSE);
        assert_eq!(tries.next(Answer::TryAgain, PATIENCE), Next::GiveUp);
    }

    #[test]
    fn a_member_that_hung_is_asked_again_only_when_there_is_another() {
        let next = |members| Tries::new(members).next(Answer::NoConnection, CALL_TIMEOUT);
        assert_eq!(next(1), Next::GiveUp);
        assert!(matches!(next(2), Next::Elsewhere(_)));
    }

    #[test]
    fn every_member_is_asked_twice_when_none_answers() {
        let mut tries = Tries::new(3);
        for _ in 0..5 {
            let next = tries.next(Answer::NoConnection, Duration::ZERO);
            assert!(matches!(next, Next::Elsewhere(_)));
        }
        assert_eq!(
            tries.next(Answer::NoConnection, Duration::ZERO),
            Next::GiveUp
        );
    }

    #[test]
    fn a_definite_answer_ends_the_tries() {
        for answer in [
            Answer::Denied,
            Answer::AlreadyExists,
            Answer::NotFound,
            Answer::Other,
        ] {
            assert_eq!(Tries::new(3).next(answer, Duration::ZERO), Next::GiveUp);
        }
    }
}
