//! Two tenants of one pool, what the second has, and proof that it still has it.

use anyhow::{Context as _, Result};
use etcd_client::{
    AlarmAction, AlarmType, Client, GetOptions, LeaseTimeToLiveOptions, Permission, PutOptions,
    UserAddOptions,
};
use stoker_etcd::{Pool, StorageId};
use stoker_lab::credentials;

use super::clients::{client, owner, root_config};
use super::cluster::Cluster;

/// The role with one single key to read: where a watch "from this key on" once saw everything.
pub(crate) const SINGLE_KEY: &str = "compact_rev_key";
/// The range of a role that may write but not read.
pub(crate) const WRITE_ONLY: &str = "/write-only/";

/// Everything a case needs. Clones share connections.
#[derive(Clone)]
pub(crate) struct World {
    /// The attacker's and the victim's id.
    pub(crate) tenant_id: StorageId,
    pub(crate) victim_id: StorageId,
    /// Connections of the attacker, with its own certificate, and of root.
    pub(crate) tenant: Client,
    pub(crate) root: Client,
    /// Users with odd roles: one key to read, and a range to write only.
    pub(crate) single: Client,
    pub(crate) writer: Client,
    /// Leases of the victim, with a key and without, and one of the attacker with a key.
    pub(crate) keyed_lease: i64,
    pub(crate) empty_lease: i64,
    pub(crate) own_lease: i64,
    /// The revision at which the victim's keys were all written.
    pub(crate) revision: i64,
    pub(crate) member: u64,
}

impl World {
    /// Two tenants claimed as the operator does it, on the member at `address`.
    pub(crate) async fn new(cluster: &Cluster, address: &str) -> Result<Self> {
        let pool = Pool::connect(&root_config(&[address.to_owned()], cluster.authority())?).await?;
        let (tenant_id, victim_id) = (StorageId::random()?, StorageId::random()?);
        pool.claim(&tenant_id, &owner("attacker")).await?;
        pool.claim(&victim_id, &owner("victim")).await?;
        let connect = async |user: &str| {
            let leaf = credentials::client(cluster.authority(), user, None)?;
            client(address, cluster.authority(), Some(&leaf)).await
        };
        let mut root = connect("root").await?;
        let single_key = Permission::read(SINGLE_KEY);
        odd_user(&mut root, "single", single_key).await?;
        odd_user(
            &mut root,
            "writer",
            Permission::write(WRITE_ONLY).with_prefix(),
        )
        .await?;
        root.put(SINGLE_KEY, "1", None).await?;
        root.put(format!("{WRITE_ONLY}key"), "secret", None).await?;

        let (mut tenant, mut victim) = (
            connect(tenant_id.user()).await?,
            connect(victim_id.user()).await?,
        );
        let keyed_lease = victim.lease_grant(600, None).await?.id();
        let empty_lease = victim.lease_grant(600, None).await?.id();
        let own_lease = tenant.lease_grant(600, None).await?.id();
        let leased = Some(PutOptions::new().with_lease(own_lease));
        tenant
            .put(format!("{}leased", tenant_id.prefix()), "mine", leased)
            .await?;
        tenant
            .put(format!("{}key", tenant_id.prefix()), "mine", None)
            .await?;
        tenant
            .put(
                [tenant_id.prefix().as_bytes(), b"\xff\xff"].concat(),
                "last",
                None,
            )
            .await?;
        for key in ["secret", "other", "third", "election/1"] {
            victim
                .put(format!("{}{key}", victim_id.prefix()), "secret", None)
                .await?;
        }
        let leased = Some(PutOptions::new().with_lease(keyed_lease));
        let last = victim
            .put(format!("{}leased", victim_id.prefix()), "secret", leased)
            .await?;
        let header = last.header().context("an answer without header")?;
        let (revision, member) = (header.revision(), header.member_id());
        Ok(Self {
            tenant_id,
            victim_id,
            tenant,
            root,
            single: connect("single").await?,
            writer: connect("writer").await?,
            keyed_lease,
            empty_lease,
            own_lease,
            revision,
            member,
        })
    }

    /// A key of the attacker.
    pub(crate) fn own(&self, name: &str) -> String {
        format!("{}{name}", self.tenant_id.prefix())
    }

    /// A key of the victim.
    pub(crate) fn foreign(&self, name: &str) -> String {
        format!("{}{name}", self.victim_id.prefix())
    }

    /// Lifts an alarm that a case may have raised, so that the next case is judged for itself.
    pub(crate) async fn calm(&self) -> Result<()> {
        let mut root = self.root.clone();
        for alarm in [AlarmType::Nospace, AlarmType::Corrupt] {
            root.alarm(AlarmAction::Deactivate, alarm, None).await?;
        }
        Ok(())
    }

    /// Everything that no try may change: the victim's keys and lease, everyone's rights, members,
    /// alarms, and that history is there.
    pub(crate) async fn evidence(&self) -> Result<String> {
        let mut root = self.root.clone();
        let mut evidence = Vec::new();
        for prefix in [
            self.victim_id.prefix(),
            "stoker.dev/".into(),
            WRITE_ONLY.into(),
        ] {
            let all = GetOptions::new().with_prefix();
            for kv in root.get(prefix, Some(all)).await?.kvs() {
                let (key, value) = (kv.key_str()?, kv.value_str()?);
                evidence.push(format!(
                    "{key}={value} at {} lease {}",
                    kv.mod_revision(),
                    kv.lease()
                ));
            }
        }
        let history = GetOptions::new().with_revision(self.revision);
        let old = root.get(self.foreign("secret"), Some(history)).await?;
        evidence.push(format!("history has {} key", old.count()));
        let keys = Some(LeaseTimeToLiveOptions::new().with_keys());
        let lease = root.lease_time_to_live(self.keyed_lease, keys).await?;
        evidence.push(format!(
            "lease alive {} with {} key",
            lease.ttl() > 0,
            lease.keys().len()
        ));
        for user in root.user_list().await?.users() {
            evidence.push(format!(
                "user {user} {:?}",
                root.user_get(user.as_str()).await?.roles()
            ));
        }
        for role in root.role_list().await?.roles() {
            let role_has = root.role_get(role.as_str()).await?.permissions();
            evidence.push(format!("role {role} {role_has:?}"));
        }
        evidence.push(format!(
            "{} members",
            root.member_list().await?.members().len()
        ));
        let alarms = root.alarm(AlarmAction::Get, AlarmType::None, None).await?;
        evidence.push(format!("{} alarms", alarms.alarms().len()));
        Ok(evidence.join("\n"))
    }
}

async fn odd_user(root: &mut Client, name: &str, permission: Permission) -> Result<()> {
    root.role_add(name).await?;
    root.role_grant_permission(name, permission).await?;
    root.user_add(name, "", Some(UserAddOptions::new().with_no_pwd()))
        .await?;
    root.user_grant_role(name, name).await?;
    Ok(())
}
