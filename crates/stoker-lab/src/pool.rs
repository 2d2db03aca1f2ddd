//! The pool: the etcd that tenants' state lives in, with its own authority and host.

use std::net::IpAddr;

use anyhow::{Context as _, Result};

use crate::command::run;
use crate::credentials::{authority, client, server, write_authority, write_leaf};
use crate::etcd::{EtcdAccess, EtcdPlan};
use crate::lab::Lab;
use crate::versions::ETCD;

/// Name of the pool's host.
pub const HOST: &str = "pool";

impl Lab {
    /// Starts the pool: TLS, client certificates, access control, and the user `root`.
    pub(crate) async fn start_pool(&self) -> Result<()> {
        let pki = self.paths().pool_pki();
        if !pki.join("root.key").exists() {
            self.issue_pool_certificates()
                .context("issuing the pool's certificates")?;
        }
        let binaries = self.upstream().etcd(ETCD).await?;
        let host = self
            .start_host(HOST, self.addresses().pool(), vec![binaries.clone()])
            .await?;
        let plan = EtcdPlan {
            binaries: &binaries,
            pki: &pki,
            authority: "ca",
            server: "server",
            sync: true,
        };
        host.keep_running(&plan.program(host.address()))?;
        let access = self.pool().await?;
        access.wait_healthy(&host).await?;
        let status = run(access.etcdctl().args(["auth", "status"])).await?;
        if !status.contains("Status: true") {
            enable_access_control(&access)
                .await
                .context("turning access control on")?;
        }
        Ok(())
    }

    /// How the pool is reached, as its user `root`.
    ///
    /// # Errors
    /// When etcdctl cannot be built.
    pub async fn pool(&self) -> Result<EtcdAccess> {
        let pki = self.paths().pool_pki();
        Ok(EtcdAccess {
            endpoint: format!("https://{}:2379", self.addresses().pool()),
            authority: pki.join("ca.crt"),
            certificate: pki.join("root.crt"),
            key: pki.join("root.key"),
            binaries: self.upstream().etcd(ETCD).await?,
        })
    }

    fn issue_pool_certificates(&self) -> Result<()> {
        let pki = self.paths().pool_pki();
        std::fs::create_dir_all(&pki).context("making the pool's certificate directory")?;
        let ca = authority("stoker-lab-pool")?;
        let address = IpAddr::V4(self.addresses().pool());
        write_authority(&pki, "ca", &ca)?;
        write_leaf(
            &pki,
            "server",
            &server(&ca, "pool", &["pool", "localhost"], &[address])?,
        )?;
        write_leaf(&pki, "root", &client(&ca, "root", None)?)
    }
}

async fn enable_access_control(access: &EtcdAccess) -> Result<()> {
    let users = run(access.etcdctl().args(["user", "list"])).await?;
    if !users.lines().any(|user| user == "root") {
        run(access
            .etcdctl()
            .args(["user", "add", "root", "--no-password"]))
        .await?;
    }
    run(access
        .etcdctl()
        .args(["user", "grant-role", "root", "root"]))
    .await?;
    run(access.etcdctl().args(["auth", "enable"]))
        .await
        .map(drop)
}
