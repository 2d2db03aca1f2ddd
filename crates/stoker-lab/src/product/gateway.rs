//! The gateway on the lab: its image, and `manifests/gateway.yaml`.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{NAMESPACE, Program};
use crate::lab::Lab;
use crate::management::HOST;
use crate::paths::checkout;

/// Replaced by the image built from this checkout.
const GATEWAY: Program = Program {
    package: "stoker-gateway",
    placeholder: "stoker.dev/stoker-gateway:v0.1.0",
    variable: "STOKER_GATEWAY",
};
/// What people replace by their own.
const DOMAIN: &str = "clusters.example.com";
/// The last flag there.
const LAST_FLAG: &str = "            - --health-bind-address=[::]:8081\n";
/// The lab's load balancer takes milliseconds.
const ADDRESS: Duration = Duration::from_secs(20);
/// A tenant that is given a name is restarted once.
const NAMED: Duration = Duration::from_mins(3);

impl Lab {
    /// Names for tenants under this base domain, and the gateway for it, with more `flags`.
    ///
    /// # Errors
    /// When something does not build, or does not become ready.
    pub async fn install_front_door(&self, domain: &str, flags: &[&str]) -> Result<()> {
        let names = async {
            self.serve_names().await?;
            self.give_base_domain(domain).await
        };
        self.steps()
            .step(format!("names for tenants under {domain}"), names)
            .await?;
        self.install_gateway(domain, flags).await
    }

    /// What a provider's wildcard record does: a tenant's stable name leads to the gateway. Returns the name.
    ///
    /// # Errors
    /// When the tenant has none under this base domain within three minutes.
    pub async fn lead_to_gateway(
        &self,
        namespace: &str,
        name: &str,
        domain: &str,
    ) -> Result<String> {
        let (tenant, path) = (
            format!("tcp/{name}"),
            "jsonpath={.status.controlPlaneEndpoint}",
        );
        let get = ["-n", namespace, "get", &tenant, "-o", path];
        let begun = Instant::now();
        let host = loop {
            let endpoint = self.kubectl(&get).await?;
            let host = endpoint.rsplit_once(':').map(|(host, _)| host);
            if let Some(host) = host.filter(|host| host.ends_with(domain)) {
                break host.to_owned();
            }
            ensure!(
                begun.elapsed() < NAMED,
                "{name} is reached at {endpoint:?} and not under {domain}"
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        self.point(&host, &[self.gateway_address().await?])?;
        Ok(host)
    }

    /// The same for all tenants that have such a name now.
    ///
    /// # Errors
    /// What kubectl says.
    pub async fn lead_all_to_gateway(&self, domain: &str) -> Result<()> {
        let path = "jsonpath={.items[*].status.controlPlaneEndpoint}";
        let endpoints = self.kubectl(&["get", "tcp", "-A", "-o", path]).await?;
        let address = self.gateway_address().await?;
        let hosts = endpoints.split_whitespace();
        let hosts = hosts.filter_map(|endpoint| endpoint.rsplit_once(':').map(|(host, _)| host));
        hosts
            .filter(|host| host.ends_with(domain))
            .try_for_each(|host| self.point(host, &[address]))
    }

    /// Builds the gateway from this checkout and installs it for this base domain, with more `flags`, from
    /// `manifests/gateway.yaml`; where it is there it is changed to that.
    ///
    /// # Errors
    /// When it does not build, or does not become ready; the error has what kubectl says.
    pub async fn install_gateway(&self, domain: &str, flags: &[&str]) -> Result<()> {
        let steps = self.steps();
        let binary = steps.step("building the gateway", GATEWAY.build()).await?;
        let reference = GATEWAY.image_reference(&binary)?;
        let load = self.load_program(&GATEWAY, &binary, &reference);
        steps.step("gateway image", load).await?;
        let path = checkout().join("manifests/gateway.yaml");
        let manifest = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        let manifest = filled_in(&manifest, &reference, domain, flags)?;
        steps
            .step("installing the gateway", async {
                self.apply_text(&manifest).await?;
                self.rolled_out(HOST, NAMESPACE, "deployment/stoker-gateway")
                    .await
            })
            .await
    }

    /// The IPv4 address at which all tenants behind the gateway are.
    ///
    /// # Errors
    /// When its Service has none within 20 s.
    pub async fn gateway_address(&self) -> Result<IpAddr> {
        let ips = "jsonpath={.status.loadBalancer.ingress[*].ip}";
        let get = ["-n", NAMESPACE, "get", "service/stoker-gateway", "-o", ips];
        let begun = Instant::now();
        loop {
            let shown = self.kubectl(&get).await?;
            let mut addresses = shown.split_whitespace().map(str::parse);
            if let Some(Ok(address)) = addresses.find(|found| matches!(found, Ok(IpAddr::V4(_)))) {
                return Ok(address);
            }
            ensure!(
                begun.elapsed() < ADDRESS,
                "the gateway's Service has no address: {shown:?}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// The manifest as people change it before they apply it.
fn filled_in(manifest: &str, reference: &str, domain: &str, flags: &[&str]) -> Result<String> {
    for part in [GATEWAY.placeholder, DOMAIN, LAST_FLAG] {
        ensure!(
            manifest.contains(part),
            "manifests/gateway.yaml has no {part:?}"
        );
    }
    let flags = flags.iter().map(|flag| format!("            - {flag}\n"));
    let flags: Vec<_> = flags.collect();
    Ok(manifest
        .replace(GATEWAY.placeholder, reference)
        .replace(DOMAIN, domain)
        .replace(LAST_FLAG, &format!("{LAST_FLAG}{}", flags.concat())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_of_the_repository_can_be_filled_in() {
        let manifest = std::fs::read_to_string(checkout().join("manifests/gateway.yaml")).unwrap();
        let filled = filled_in(&manifest, "image:tag", "lab.test", &["--drain-seconds=5"]);
        let filled = filled.unwrap();
        for line in [
            "          image: image:tag\n",
            "            - --base-domain=lab.test\n",
            "            - --drain-seconds=5\n          ports:\n",
        ] {
            assert!(filled.contains(line), "{line}");
        }
        assert!(filled_in("nothing", "image:tag", "lab.test", &[]).is_err());
    }
}
