//! A connection to one pool, and the calls every operation is made of.

pub mod check;
pub mod claim;
mod compaction;
pub mod escrow;
pub mod manifest;
pub mod release;
mod values;

mod record;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Client, Compare, GetOptions, Txn, TxnOp};
use stoker_api::StorageId;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::answer::Answer;
use crate::auth_status::auth_enabled;
use crate::error::Error;
use crate::member::Member;
use crate::retry::{Next, Tries};

/// How to reach a pool as its root user.
#[derive(Clone)]
pub struct PoolConfig {
    /// The members of one etcd cluster, each as `host:port` without a scheme.
    pub endpoints: Vec<String>,
    /// PEM of the authority that signed the members' serving certificates.
    pub certificate_authority: String,
    /// PEM of our client certificate; its common name is an etcd user with the role `root`.
    pub client_certificate: String,
    /// PEM of its key.
    pub client_key: Zeroizing<String>,
}

impl fmt::Debug for PoolConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PoolConfig")
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

/// What a tenant has in the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Number of keys below its prefix.
    pub keys: u64,
}

/// One pool. Clones share one connection per member; calls go to one member until it fails.
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

struct Inner {
    members: Vec<Member>,
    preferred: AtomicUsize,
}

impl fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoints = self.members().iter().map(|member| &member.endpoint);
        formatter.debug_list().entries(endpoints).finish()
    }
}

impl Pool {
    /// Prepares the connections without opening any.
    ///
    /// # Errors
    /// Fails when an endpoint or a certificate cannot be used as configured.
    pub async fn connect(config: &PoolConfig) -> Result<Self, Error> {
        if config.endpoints.is_empty() {
            return Err(Error::NoEndpoints);
        }
        let mut members = Vec::with_capacity(config.endpoints.len());
        for endpoint in &config.endpoints {
            members.push(Member::new(endpoint, config).await?);
        }
        Ok(Self {
            inner: Arc::new(Inner {
                members,
                preferred: AtomicUsize::new(0),
            }),
        })
    }

    /// Counts the keys of a tenant. etcd walks its index for that: do not poll it.
    ///
    /// # Errors
    /// Fails when the pool does not answer or our certificate has no root rights.
    pub async fn usage(&self, id: &StorageId) -> Result<Usage, Error> {
        let options = GetOptions::new()
            .with_range(id.range_end())
            .with_count_only();
        let found = self
            .call("count the keys of a tenant", |mut client| {
                let options = options.clone();
                async move { client.get(id.prefix(), Some(options)).await }
            })
            .await?;
        Ok(Usage {
            keys: u64::try_from(found.count()).unwrap_or(0),
        })
    }

    fn members(&self) -> &[Member] {
        &self.inner.members
    }

    /// Makes the changes together if the condition holds, and returns their revision.
    async fn change(
        &self,
        action: &'static str,
        id: &StorageId,
        condition: Compare,
        changes: Vec<TxnOp>,
    ) -> Result<i64, Error> {
        let transaction = Txn::new().when([condition]).and_then(changes);
        let answer = self
            .call(action, |mut client| {
                let transaction = transaction.clone();
                async move { client.txn(transaction).await }
            })
            .await?;
        match answer.header().filter(|_| answer.succeeded()) {
            Some(header) => Ok(header.revision()),
            None => Err(Error::Contended { id: id.clone() }),
        }
    }

    /// Makes a call, again while the failure is a passing one, at the next member while one does
    /// not answer.
    async fn call<T, Call, Answered>(&self, action: &'static str, call: Call) -> Result<T, Error>
    where
        Call: Fn(Client) -> Answered,
        Answered: Future<Output = Result<T, etcd_client::Error>>,
    {
        self.call_member(action, |member| call(member.client()))
            .await
    }

    /// Like [`Self::call`], for a call that makes something be so: that it already is so is success.
    async fn ensure<T, Call, Answered>(
        &self,
        action: &'static str,
        already: Answer,
        call: Call,
    ) -> Result<bool, Error>
    where
        Call: Fn(Client) -> Answered,
        Answered: Future<Output = Result<T, etcd_client::Error>>,
    {
        match self.call(action, call).await {
            Ok(_) => Ok(true),
            Err(Error::Refused { source, .. }) if answers(&source, already) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Fails unless authentication is on and we have root rights, without which etcd does not tell.
    async fn require_auth(&self) -> Result<(), Error> {
        let answer = self
            .call_member("read whether authentication is on", |member| {
                let channel = member.channel();
                async move {
                    auth_enabled(channel)
                        .await
                        .map_err(etcd_client::Error::from)
                }
            })
            .await;
        let enabled = match answer {
            // Not that something is missing: our own user is.
            Err(Error::Refused { source, .. }) if answers(&source, Answer::NotFound) => {
                return Err(Error::NotRoot);
            }
            answer => answer?,
        };
        if enabled {
            Ok(())
        } else {
            Err(Error::AuthDisabled)
        }
    }

    async fn call_member<T, Call, Answered>(
        &self,
        action: &'static str,
        call: Call,
    ) -> Result<T, Error>
    where
        Call: Fn(&Member) -> Answered,
        Answered: Future<Output = Result<T, etcd_client::Error>>,
    {
        let start = Instant::now();
        let mut tries = Tries::new(self.members().len());
        loop {
            let index = self.inner.preferred.load(Ordering::Relaxed) % self.members().len();
            let member = &self.members()[index];
            let error = match call(member).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let pause = match tries.next(answer_of(&error), start.elapsed()) {
                Next::Again(pause) => pause,
                Next::Elsewhere(pause) => {
                    self.leave(index);
                    pause
                }
                Next::GiveUp => return Err(member.explain(action, error)),
            };
            tracing::debug!(endpoint = %member.endpoint, action, %error, "etcd is asked again");
            pause_for(pause).await;
        }
    }

    /// Prefers the next member, unless another call did so already.
    fn leave(&self, index: usize) {
        let next = (index + 1) % self.members().len();
        let (seen, order) = (Ordering::Relaxed, Ordering::Relaxed);
        let _: Result<usize, usize> = self
            .inner
            .preferred
            .compare_exchange(index, next, seen, order);
    }
}

async fn pause_for(pause: Duration) {
    tokio::time::sleep(pause).await;
}

fn answer_of(error: &etcd_client::Error) -> Answer {
    match error {
        etcd_client::Error::GRpcStatus(status) => Answer::of(status),
        etcd_client::Error::TransportError(_) | etcd_client::Error::IoError(_) => {
            Answer::NoConnection
        }
        _ => Answer::Other,
    }
}

fn answers(error: &etcd_client::Error, expected: Answer) -> bool {
    answer_of(error) == expected
}
