//! What an answer of etcd means.

use std::error::Error as StdError;

use tonic::{Code, Status};

/// What an answer of etcd means, told by gRPC code and, where etcd uses one code for several
/// things, by its fixed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The call never got an answer from etcd itself.
    NoConnection,
    /// The member has lost its leader.
    NoLeader,
    /// A passing state: authentication changed during the call, leader change, overload.
    TryAgain,
    /// What was to be created is there.
    AlreadyExists,
    /// What was asked for or was to be removed is not there.
    NotFound,
    /// The user may not do that, or there is no user.
    Denied,
    /// The space quota is used up.
    OutOfSpace,
    /// Anything else.
    Other,
}

impl Answer {
    pub(crate) fn of(status: &Status) -> Self {
        let message = status.message();
        let says = |text: &str| message.contains(text);
        if status.source().is_some() || !says("etcdserver: ") && status.code() == Code::Unavailable
        {
            return Self::NoConnection;
        }
        match status.code() {
            Code::Cancelled | Code::DeadlineExceeded => Self::NoConnection,
            Code::Unavailable if says("no leader") => Self::NoLeader,
            Code::Unavailable => Self::TryAgain,
            Code::InvalidArgument if says("revision of auth store is old") => Self::TryAgain,
            Code::InvalidArgument if says("user name is empty") => Self::Denied,
            Code::FailedPrecondition if says("already exists") => Self::AlreadyExists,
            Code::FailedPrecondition if says("not found") || says("is not granted to") => {
                Self::NotFound
            }
            Code::PermissionDenied | Code::Unauthenticated => Self::Denied,
            Code::ResourceExhausted if says("database space exceeded") => Self::OutOfSpace,
            Code::ResourceExhausted if says("too many requests") => Self::TryAgain,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_etcd_are_told_apart() {
        for (code, message, answer) in [
            (
                Code::InvalidArgument,
                "etcdserver: revision of auth store is old",
                Answer::TryAgain,
            ),
            (
                Code::Unavailable,
                "etcdserver: leader changed",
                Answer::TryAgain,
            ),
            (Code::Unavailable, "etcdserver: no leader", Answer::NoLeader),
            (Code::Unavailable, "tcp connect error", Answer::NoConnection),
            (Code::Cancelled, "Timeout expired", Answer::NoConnection),
            (
                Code::FailedPrecondition,
                "etcdserver: role name already exists",
                Answer::AlreadyExists,
            ),
            (
                Code::FailedPrecondition,
                "etcdserver: user name not found",
                Answer::NotFound,
            ),
            (
                Code::FailedPrecondition,
                "etcdserver: permission is not granted to the role",
                Answer::NotFound,
            ),
            (
                Code::FailedPrecondition,
                "etcdserver: authentication is not enabled",
                Answer::Other,
            ),
            (
                Code::PermissionDenied,
                "etcdserver: permission denied",
                Answer::Denied,
            ),
            (
                Code::InvalidArgument,
                "etcdserver: user name is empty",
                Answer::Denied,
            ),
            (
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded",
                Answer::OutOfSpace,
            ),
            (
                Code::ResourceExhausted,
                "etcdserver: too many requests",
                Answer::TryAgain,
            ),
        ] {
            assert_eq!(Answer::of(&Status::new(code, message)), answer, "{message}");
        }
    }
}
