//! A panic in a pass is a failure of the one object that it is over, as in controller-runtime (`RecoverPanic`): what was
//! read there may bring a mistake of ours to light, and others need not stand still for it.

use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;

/// A pass panicked.
#[derive(Debug, thiserror::Error)]
#[error(
    "a mistake in Stoker ended the pass, which is tried again: please report what the operator's log says of it (\"panicked at\")"
)]
pub struct Panicked;

impl Panicked {
    /// `CamelCase` reason for conditions, events and metrics.
    pub const CATEGORY: &str = "Internal";
}

/// What comes of `work`, unless it panics. What it held is let go as when it is cut off.
///
/// # Errors
/// It panicked.
pub(crate) fn caught<T>(
    work: impl Future<Output = T>,
) -> impl Future<Output = Result<T, Panicked>> {
    let ended = AssertUnwindSafe(work).catch_unwind();
    ended.map(|ended| ended.map_err(|_| Panicked))
}

/// A pass that fails instead of panicking.
///
/// # Errors
/// The pass failed, or panicked.
pub(crate) fn contained<T, E: From<Panicked>>(
    pass: impl Future<Output = Result<T, E>>,
) -> impl Future<Output = Result<T, E>> {
    caught(pass).map(|ended| ended.map_err(E::from).flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_and_all_else_as_it_was() {
        assert!(
            contained(async { Ok::<_, Panicked>(1) })
                .await
                .is_ok_and(|one| one == 1)
        );
        let panics = async {
            tokio::task::yield_now().await;
            panic!("by a test")
        };
        assert!(contained::<(), Panicked>(panics).await.is_err());
    }
}
