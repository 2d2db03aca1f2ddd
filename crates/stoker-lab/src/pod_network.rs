//! The pods' network on a host: the bridge plugin, with the addresses of that node.

use anyhow::Result;
use serde_json::json;

use crate::host::Host;
use crate::network_link::{CONGESTION_CONTROL, congestion_control};

/// Writes the CNI configuration for a network per IP family. `masquerade` hides pod addresses from everything outside the host, which a
/// tenant's pods need, as all tenants use the same ones.
pub(crate) fn configure(host: &Host, pods: &[String], masquerade: bool) -> Result<()> {
    let ranges = pods.iter().map(|subnet| json!([{ "subnet": subnet }]));
    let ranges: Vec<_> = ranges.collect();
    let mut plugins = vec![
        json!({
            "type": "bridge",
            "bridge": "cni0",
            "isDefaultGateway": true,
            "ipMasq": masquerade,
            "hairpinMode": true,
            "ipam": { "type": "host-local", "ranges": ranges },
        }),
        json!({ "type": "portmap", "capabilities": { "portMappings": true } }),
    ];
    plugins.extend(
        congestion_control()
            .map(|chosen| json!({ "type": "tuning", "sysctl": { CONGESTION_CONTROL: chosen } })),
    );
    let configuration = json!({ "cniVersion": "1.0.0", "name": "stoker-lab", "plugins": plugins });
    host.write(
        "/etc/cni/net.d/10-stoker-lab.conflist",
        &configuration.to_string(),
    )
}
