//! When a new API server can be worked with.

use std::pin::pin;

use futures::TryStreamExt as _;
use http::Request;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{WatchEvent, WatchParams};
use kube::{Api, Client};

use crate::error::Error;

/// Among the last that an API server makes when it starts for the first time, and the last of its namespace
/// (`plugin/pkg/auth/authorizer/rbac/bootstrappolicy`): it is ready once it has made them.
const LAST_BINDING: (&str, &str) = (
    "kube-system",
    "metadata.name=system:controller:token-cleaner",
);

/// Whether the API server answers `/readyz` with success; `false` when it answers that it is not
/// ready yet.
///
/// # Errors
/// [`Error::AskReadiness`]: its category tells `ConnectionRefused` (nothing listens yet),
/// `Unauthorized`, `Timeout`, `TlsFailed` and `Unreachable` apart.
pub async fn ready(client: &Client) -> Result<bool, Error> {
    let failed = |source| Error::AskReadiness {
        source: Box::new(source),
    };
    let request = Request::get("/readyz")
        .body(Vec::new())
        .map_err(|error| failed(kube::Error::HttpError(error)))?;
    match client.request_text(request).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code >= 500 => Ok(false),
        Err(source) => Err(failed(source)),
    }
}

/// Waits until the API server has made the roles of the system, and so its namespaces; `false` when it ended the wait. It is
/// one watch: a server that is starting holds it until it can answer, so that waiting costs nothing on either side.
///
/// # Errors
/// [`Error::AskReadiness`], as for [`ready`].
pub async fn roles_made(client: &Client) -> Result<bool, Error> {
    let failed = |source| Error::AskReadiness {
        source: Box::new(source),
    };
    let (namespace, name) = LAST_BINDING;
    let bindings: Api<RoleBinding> = Api::namespaced(client.clone(), namespace);
    let which = WatchParams::default().fields(name);
    // Version 0: it begins with what there is.
    let watch = bindings.watch_metadata(&which, "0").await;
    let mut watch = pin!(watch.map_err(failed)?);
    while let Some(event) = watch.try_next().await.map_err(failed)? {
        match event {
            WatchEvent::Added(_) | WatchEvent::Modified(_) => return Ok(true),
            WatchEvent::Error(status) => return Err(failed(kube::Error::Api(status))),
            WatchEvent::Deleted(_) | WatchEvent::Bookmark(_) => {}
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::scenario::{PATIENCE, Scenario};

    #[tokio::test]
    async fn a_server_is_waited_for_until_it_shows_the_binding() {
        const PATH: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/rolebindings";
        let binding = json!({"type": "ADDED", "object": {
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
            "metadata": {"name": "system:controller:token-cleaner", "namespace": "kube-system",
                "uid": "u", "resourceVersion": "7"},
        }});
        let (client, mut server) = Scenario::new();
        let serve = async {
            let call = server.expect("GET", PATH).await;
            let named = "fieldSelector=metadata.name%3Dsystem%3Acontroller%3Atoken-cleaner";
            assert!(call.uri.contains(named), "{}", call.uri);
            assert!(call.uri.contains("resourceVersion=0"), "{}", call.uri);
            call.answer_text("");
            let call = server.expect("GET", PATH).await;
            call.refuse(500, "InternalError", "starting");
            let call = server.expect("GET", PATH).await;
            call.answer_text(&format!("{binding}\n"));
        };
        let wait = async {
            assert!(!roles_made(&client).await.unwrap());
            let refused = roles_made(&client).await.unwrap_err();
            assert_eq!(refused.category(), "InternalError");
            assert!(roles_made(&client).await.unwrap());
        };
        let both = async { tokio::join!(serve, wait) };
        tokio::time::timeout(PATIENCE, both).await.unwrap();
    }
}
