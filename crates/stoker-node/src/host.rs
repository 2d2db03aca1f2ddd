//! The machine as a node: how it joins a tenant, stays in it, and leaves.
//!
//! ```text
//!  join ──► preflight ──► discover (authority pinned by the token) ──► certificate (key made here) ──► files ──► kubelet ──► its Node
//!  run  ──► tunnel, listener, authorities that rotate and what they sign, what the machine has       leave ──► pods evicted, all stopped ──► Node marked, files removed
//! ```
//! Everything that join writes is listed in [`paths`], and is what leave removes. A join that was cut off goes on where it
//! was: the key stays, so that the token is not used twice.

mod access;
mod certificate;
mod containers;
mod discover;
mod files;
mod follow;
mod goodbye;
mod handover;
pub(crate) mod join;
pub(crate) mod leave;
mod listening;
mod machine;
mod orders;
mod part;
pub(crate) mod paths;
mod preflight;
mod renew;
mod report;
pub(crate) mod run;
mod service;
#[cfg(test)]
mod stand_in;
mod tunnelling;
mod unfinished;
mod volumes;

/// Says what was not done, and why.
fn warn(error: &anyhow::Error, what: &str) {
    tracing::warn!(error = format!("{error:#}"), "{what}");
}
