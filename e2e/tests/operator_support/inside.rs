//! The tenant's own side without a node: an API server with the tenant's credentials on a loopback address, and a Pod object
//! that says the operator to find it there.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams,
};
use kube::core::GroupVersionKind;
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use stoker_lab::bare::BareApiServer;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::bare::until;
use super::faults::{Call, Failure};
use super::tenant_server::{self, PORT};
use super::world::World;

/// The tenant `one` of a namespace, with an API server.
pub(crate) struct Inside {
    client: Client,
    namespace: String,
    addresses: [IpAddr; 2],
    _api_server: BareApiServer,
    _forwarder: JoinSet<()>,
}

impl Inside {
    /// Starts the tenant's API server from the tenant's Secrets.
    pub(crate) async fn start(world: &World, namespace: &str) -> Self {
        // Loopback addresses of this process alone.
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let addresses = [128, 129].map(|second| IpAddr::V4(Ipv4Addr::new(127, second, high, low)));
        let address = SocketAddr::new(addresses[0], PORT);
        let api_server = tenant_server::start(&world.bare, namespace, address).await;
        let client = api_server.client().await.unwrap();
        let system = Api::<k8s_openapi::api::core::v1::Namespace>::all(client.clone());
        until("the tenant's namespaces are there", async || {
            let found = ["kube-system", "kube-public"].map(|name| system.get_opt(name));
            futures::future::join_all(found)
                .await
                .iter()
                .all(|found| matches!(found, Ok(Some(_))))
        })
        .await;
        let mut forwarder = JoinSet::new();
        forwarder.spawn(forward(SocketAddr::new(addresses[1], PORT), address));
        Self {
            client,
            namespace: namespace.to_owned(),
            addresses,
            _api_server: api_server,
            _forwarder: forwarder,
        }
    }

    /// Under which the tenant's requests are recorded.
    pub(crate) fn subject(&self) -> String {
        subject(&self.namespace)
    }

    /// Makes the Pod object of a control plane that is ready.
    pub(crate) async fn run_pod(&self, world: &World) {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "one-pod", "labels": {
                "stoker.dev/name": "one", "app.kubernetes.io/managed-by": "stoker",
            }},
            "spec": { "containers": [{ "name": "kube-apiserver", "image": "none" }] },
        });
        let pods: Api<Pod> = Api::namespaced(world.bare.client.clone(), &self.namespace);
        let pod = serde_json::from_value(pod).unwrap();
        pods.create(&PostParams::default(), &pod).await.unwrap();
        self.move_pod(world, 0).await;
    }

    /// Gives the pod one of two addresses: the operator connects anew and knows nothing of what is inside.
    async fn move_pod(&self, world: &World, turn: usize) {
        let address = self.addresses[turn % 2];
        let status = json!({ "status": {
            "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }],
            "conditions": [{ "type": "Ready", "status": "True" }],
        }});
        let pods: Api<Pod> = Api::namespaced(world.bare.client.clone(), &self.namespace);
        let patch = Patch::Merge(status);
        pods.patch_status("one-pod", &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    /// Waits until the tenant is ready.
    pub(crate) async fn configured(&self, world: &World) {
        until("the tenant is ready", async || {
            let says = |type_, reason| world.witness.says(&self.namespace, type_, reason);
            says("TenantConfigured", "Configured") && says("Ready", "Available")
        })
        .await;
    }

    /// Removes what `calls` write and has the operator connect anew, each of the calls failing once. Waits until a
    /// condition has said so, and everything is as before.
    pub(crate) async fn disturbed(
        &self,
        world: &World,
        turn: usize,
        calls: &[Call],
        failure: Failure,
    ) {
        let subject = self.subject();
        world.witness.forget(&self.namespace);
        world.faults.forget(&subject);
        world.faults.disarm();
        for call in calls {
            world.faults.arm(&subject, call.clone(), failure);
        }
        for call in calls {
            self.remove(call).await;
        }
        self.move_pod(world, turn).await;
        until("every call was made", async || {
            world.faults.struck(&subject)
        })
        .await;
        until("somebody was told", async || {
            let said = world.witness.said(&self.namespace);
            said.iter()
                .any(|said| said.starts_with("TenantConfigured=False"))
        })
        .await;
        for call in calls {
            until("the object is back", async || self.exists(call).await).await;
        }
        self.configured(world).await;
    }

    /// The object that `call` writes.
    async fn exists(&self, call: &Call) -> bool {
        let name = call.name.split_once('/').unwrap().1;
        self.objects(call).get_opt(name).await.unwrap().is_some()
    }

    /// Removes the object that `call` writes, as a tenant's admin might.
    async fn remove(&self, call: &Call) {
        let name = call.name.split_once('/').unwrap().1;
        let removed = self
            .objects(call)
            .delete(name, &DeleteParams::background())
            .await;
        match removed {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(error) => panic!("{call}: {error}"),
        }
    }

    /// Names of all objects of ours, as calls name them.
    pub(crate) async fn ours(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let ours = ListParams::default().labels("app.kubernetes.io/managed-by=stoker");
        for kind in stoker_tenant::watched_kinds() {
            let objects = Api::<DynamicObject>::all_with(self.client.clone(), &resource(kind));
            for object in objects.list(&ours).await.unwrap() {
                let namespace = object.namespace().unwrap_or_default();
                found.insert(format!("{} {namespace}/{}", kind.plural, object.name_any()));
            }
        }
        found
    }

    fn objects(&self, call: &Call) -> Api<DynamicObject> {
        let kinds = stoker_tenant::watched_kinds();
        let kind = kinds
            .iter()
            .find(|kind| kind.plural == call.resource)
            .unwrap();
        match call.name.split_once('/').unwrap().0 {
            "" => Api::all_with(self.client.clone(), &resource(kind)),
            namespace => Api::namespaced_with(self.client.clone(), namespace, &resource(kind)),
        }
    }
}

/// Under which requests inside the tenant of `namespace` are recorded.
pub(crate) fn subject(namespace: &str) -> String {
    format!("inside {namespace}")
}

fn resource(kind: &stoker_tenant::WatchedKind) -> ApiResource {
    let gvk = GroupVersionKind::gvk(kind.group, kind.version, kind.kind);
    ApiResource::from_gvk_with_plural(&gvk, kind.plural)
}

/// The same API server at another address.
async fn forward(from: SocketAddr, to: SocketAddr) {
    let listener = TcpListener::bind(from).await.unwrap();
    let mut connections = JoinSet::new();
    loop {
        let (mut near, _) = listener.accept().await.unwrap();
        connections.spawn(async move {
            let mut far = TcpStream::connect(to).await?;
            tokio::io::copy_bidirectional(&mut near, &mut far).await
        });
    }
}
