//! Looking at a store: its credentials, its pool, its addresses.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use stoker_api::v1alpha1::DataStore;
use stoker_etcd::{Pool, PoolConfig, PoolFacts};
use tokio::sync::Semaphore;

use super::credentials::Credentials;
use super::peers::lookup::look_up;
use super::pools::{Entry, OpenPool};
use crate::context::Context;

/// How far back watches and paged lists of tenants can go on: `kube-apiserver
/// --etcd-compaction-interval`'s default.
const HISTORY: Duration = Duration::from_secs(290);
/// Claims made in one pool at the same time.
const CLAIMS: usize = 8;

/// What was found.
pub struct Look {
    /// What tenants go by from now on.
    pub entry: Entry,
    /// What the pool says of itself; `None` when it is not fit or could not be asked.
    pub facts: Option<PoolFacts>,
}

/// Opens the store if its credentials are new and checks it. While they cannot be read, what was
/// opened with the former ones is kept, with the problem: running tenants still need it.
pub async fn look(object: &DataStore, ctx: &Context) -> Look {
    let before = match ctx.pools.get(&object.name_any()) {
        Some(Entry::Open(open)) => Some(open),
        _ => None,
    };
    let closed = |reason: &'static str, message: String| Look {
        entry: match &before {
            Some(open) => Entry::Open(Arc::new(OpenPool {
                problem: Some((reason, message)),
                ..OpenPool::clone(open)
            })),
            None => Entry::Closed(reason, message),
        },
        facts: None,
    };
    let credentials = match Credentials::read(&ctx.client, &object.spec).await {
        Ok(credentials) => credentials,
        Err(error) => return closed(error.category(), error.to_string()),
    };
    let opened = match &before {
        Some(open) if open.credentials == credentials => {
            Ok((open.pool.clone(), open.authority.clone()))
        }
        _ => open(&credentials).await,
    };
    let (pool, authority) = match opened {
        Ok(opened) => opened,
        Err((reason, message)) => return closed(reason, message),
    };
    let known = before.as_ref().map(|open| open.peers.clone());
    let (checked, answers) =
        tokio::join!(pool.check(), look_up(&credentials.endpoints, &ctx.client));
    let peers = known.unwrap_or_default().after(answers, Timestamp::now());
    let former = before.as_ref().and_then(|open| open.checkpoint);
    let (problem, facts, checkpoint) = match checked {
        // Of a full pool most of all: what is compacted can be used again.
        Ok(facts) => {
            let alarm = facts
                .alarm()
                .map(|alarm| (alarm.category(), alarm.to_string()));
            let unresolved = || Some(("EndpointUnresolved", peers.unresolved()?));
            let checkpoint = compact(&pool, former).await;
            (alarm.or_else(unresolved), Some(facts), checkpoint)
        }
        Err(error) => {
            let problem = (error.category(), error.to_string());
            (Some(problem), None, former)
        }
    };
    let turns = before.as_ref().map(|open| Arc::clone(&open.turns));
    let open = OpenPool {
        credentials,
        pool,
        authority,
        peers,
        turns: turns.unwrap_or_else(|| Arc::new(Semaphore::new(CLAIMS))),
        checkpoint,
        problem,
    };
    Look {
        entry: Entry::Open(Arc::new(open)),
        facts,
    }
}

/// Forgets revisions older than [`HISTORY`], as API servers that own their etcd do; nothing is written
/// to a pool in which nothing happened.
async fn compact(pool: &Pool, former: Option<(Timestamp, i64)>) -> Option<(Timestamp, i64)> {
    let now = Timestamp::now();
    if former.is_some_and(|(at, _)| now.duration_since(at).unsigned_abs() < HISTORY) {
        return former;
    }
    let newest = match pool.revision().await {
        Ok(newest) => newest,
        Err(error) => {
            tracing::warn!(error = %error, "revision of the pool not read");
            return former;
        }
    };
    if let Some((_, old)) = former
        && old < newest
        && let Err(error) = pool.compact(old).await
    {
        tracing::warn!(error = %error, "pool not compacted");
        return former;
    }
    Some((now, newest))
}

/// Connects to the pool.
///
/// # Errors
/// Reason and message: the authority is of no use, or no member can be dialled.
pub async fn open(
    credentials: &Credentials,
) -> Result<(Pool, Arc<stoker_pki::Authority>), (&'static str, String)> {
    let authority = credentials
        .authority()
        .map_err(|error| (error.category(), error.to_string()))?;
    let config = PoolConfig {
        endpoints: credentials.endpoints.clone(),
        certificate_authority: credentials.authority_certificate.clone(),
        client_certificate: credentials.client_certificate.clone(),
        client_key: credentials.client_key.clone(),
    };
    let pool = Pool::connect(&config)
        .await
        .map_err(|error| (error.category(), error.to_string()))?;
    Ok((pool, Arc::new(authority)))
}
