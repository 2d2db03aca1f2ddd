//! One secured etcd, a pool on it, and ways to see what is really there.

use anyhow::Result;
use etcd_client::{Client, Txn, TxnOp};
use jiff::{SignedDuration, Timestamp};
use stoker_etcd::{Pool, StorageId};
use stoker_lab::bare::BareEtcd;
use stoker_lab::versions::ETCD;
use stoker_pki::Authority;

use super::clients::{client, root_config};

/// One secured etcd, its pool and a root client.
pub(crate) struct Fixture {
    pub(crate) etcd: BareEtcd,
    pub(crate) pool: Pool,
    pub(crate) root: Client,
}

impl Fixture {
    pub(crate) async fn start() -> Result<Self> {
        let etcd = BareEtcd::start_secured(ETCD).await?;
        let pool = Pool::connect(&root_config(&[address(&etcd)], authority(&etcd))?).await?;
        let leaf = etcd.client_certificate("root")?;
        let root = client(&address(&etcd), authority(&etcd), Some(&leaf)).await?;
        Ok(Self { etcd, pool, root })
    }

    pub(crate) async fn tenant(&self, id: &StorageId) -> Result<Client> {
        let leaf = self.etcd.client_certificate(id.user())?;
        client(&address(&self.etcd), authority(&self.etcd), Some(&leaf)).await
    }

    pub(crate) async fn revision(&self) -> i64 {
        let found = self.root.clone().get("nothing", None).await.unwrap();
        found.header().unwrap().revision()
    }

    pub(crate) async fn fill(&self, id: &StorageId, keys: usize) -> Result<()> {
        let keys: Vec<_> = (0..keys)
            .map(|n| format!("{}key-{n:06}", id.prefix()))
            .collect();
        for page in keys.chunks(100) {
            let puts: Vec<_> = page
                .iter()
                .map(|key| TxnOp::put(key.as_str(), "value", None))
                .collect();
            self.root.clone().txn(Txn::new().and_then(puts)).await?;
        }
        Ok(())
    }

    /// Whether etcd knows anything of the id at all.
    pub(crate) async fn traces(&self, id: &StorageId) -> Vec<&'static str> {
        let mut root = self.root.clone();
        let mut traces = Vec::new();
        if root.user_get(id.user()).await.is_ok() {
            traces.push("user");
        }
        if root.role_get(id.role()).await.is_ok() {
            traces.push("role");
        }
        if self.pool.usage(id).await.unwrap().keys > 0 {
            traces.push("keys");
        }
        if self
            .pool
            .owners()
            .await
            .unwrap()
            .iter()
            .any(|(owned, _)| owned == id)
        {
            traces.push("record");
        }
        traces
    }
}

pub(crate) fn address(etcd: &BareEtcd) -> String {
    etcd.endpoint().trim_start_matches("https://").to_owned()
}

pub(crate) fn authority(etcd: &BareEtcd) -> &Authority {
    etcd.authority().expect("started secured")
}

pub(crate) fn new_id() -> StorageId {
    StorageId::random().unwrap()
}

pub(crate) fn in_a_week() -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap() + SignedDuration::from_hours(168)
}

pub(crate) fn denied<T>(result: &Result<T, etcd_client::Error>) -> bool {
    matches!(result, Err(etcd_client::Error::GRpcStatus(status))
        if status.message().contains("permission denied"))
}
