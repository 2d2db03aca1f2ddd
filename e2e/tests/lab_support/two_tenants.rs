//! Two tenants: whatever authenticates one at its own API server and in the pool is refused at the other's.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use stoker_lab::command::run;

use crate::world::{Tenant, World, eventually, text};

const OTHER: &str = "other";

pub(crate) async fn credentials_of_one_tenant_are_worth_nothing_at_another(
    world: &World,
) -> Result<()> {
    let (main, other) = (world.main_tenant().await?, world.tenant(OTHER).await?);
    for (at, of) in [(&main, &other), (&other, &main)] {
        for (what, credential) in credentials(world, of).await? {
            // It is worth something where it belongs, else the refusal shows nothing.
            let own = who_am_i(of, credential.clone()).await;
            let own = own.with_context(|| format!("{what} of {} at home", of.name))?;
            let Some(own) = own else {
                bail!("{what} of {} is refused at home", of.name)
            };
            let there = who_am_i(at, credential).await?;
            ensure!(
                there.is_none(),
                "{what} of {} ({own}) is {there:?} at {}",
                of.name,
                at.name
            );
        }
        pool(world, at, of).await?;
    }
    Ok(())
}

/// Everything that names somebody to the tenant's API server.
async fn credentials(world: &World, tenant: &Tenant) -> Result<Vec<(String, AuthInfo)>> {
    let mut found = vec![(
        "the administrator's certificate".to_owned(),
        Kubeconfig::from_yaml(&tenant.kubeconfig)?
            .auth_infos
            .into_iter()
            .find_map(|named| named.auth_info)
            .context("no user in the kubeconfig")?,
    )];
    let secrets = world.secrets(&tenant.namespace);
    for (suffix, certificate, key) in [
        (
            "api-server-kubelet-client-certificate",
            "apiserver-kubelet-client.crt",
            "apiserver-kubelet-client.key",
        ),
        (
            "controller-manager-kubeconfig",
            "controller-manager.crt",
            "controller-manager.key",
        ),
        ("scheduler-kubeconfig", "scheduler.crt", "scheduler.key"),
    ] {
        let secret = secrets.get(&format!("{}-{suffix}", tenant.name)).await?;
        let encode = |key: &str| text(&secret, key).map(|pem| encoded(pem.as_bytes()));
        let info = AuthInfo {
            client_certificate_data: Some(encode(certificate)?),
            client_key_data: Some(encode(key)?.into()),
            ..AuthInfo::default()
        };
        found.push((suffix.to_owned(), info));
    }
    let accounts: Api<ServiceAccount> = Api::default_namespaced(tenant.client.clone());
    let request = TokenRequest {
        spec: TokenRequestSpec::default(),
        ..TokenRequest::default()
    };
    // The controller manager makes it a moment after the API server is up.
    let token = eventually(
        Duration::from_secs(15),
        "a token of `default`",
        async || {
            let params = PostParams::default();
            Ok(accounts
                .create_token_request("default", &params, &request)
                .await?)
        },
    )
    .await?;
    let token = token.status.context("no token was given")?.token;
    let info = AuthInfo {
        token: Some(token.into()),
        ..AuthInfo::default()
    };
    found.push(("a service account's token".to_owned(), info));
    Ok(found)
}

fn encoded(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Who the tenant's API server takes the holder for; `None` when it refuses to know them.
async fn who_am_i(at: &Tenant, credential: AuthInfo) -> Result<Option<String>> {
    let mut kubeconfig = Kubeconfig::from_yaml(&at.kubeconfig)?;
    for named in &mut kubeconfig.auth_infos {
        named.auth_info = Some(credential.clone());
    }
    let mut config =
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    let reviews: Api<SelfSubjectReview> = Api::all(Client::try_from(config)?);
    match reviews
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await
    {
        Ok(review) => {
            let user = review.status.and_then(|status| status.user_info);
            Ok(Some(
                user.and_then(|user| user.username).unwrap_or_default(),
            ))
        }
        Err(kube::Error::Api(status)) if status.code == 401 => Ok(None),
        Err(error) => Err(error).context("asking who one is"),
    }
}

/// With the etcd certificate of `of`: its own keys answer, those of `at` are refused, and so is everything.
async fn pool(world: &World, at: &Tenant, of: &Tenant) -> Result<()> {
    let secret = format!("{}-datastore-certificate", of.name);
    let secret = world.secrets(&of.namespace).get(&secret).await?;
    let directory = tempfile::tempdir()?;
    let mut access = world.lab.pool().await?;
    for (file, key) in [
        (&mut access.certificate, "server.crt"),
        (&mut access.key, "server.key"),
    ] {
        *file = directory.path().join(key);
        std::fs::write(&*file, text(&secret, key)?)?;
    }
    let (own, foreign) = (
        world.storage_id(&of.name).await?,
        world.storage_id(&at.name).await?,
    );
    let (own, foreign) = (format!("/{own}/"), format!("/{foreign}/"));
    let ask = async |arguments: &[&str]| run(access.etcdctl().args(arguments)).await;
    let mine = ask(&["get", &own, "--prefix", "--keys-only", "--limit=5"]).await?;
    ensure!(
        mine.contains(&own),
        "the certificate of {} does not open its own keys",
        of.name
    );
    let probe = format!("{foreign}e2e");
    let attempts: [&[&str]; 7] = [
        &["get", &foreign, "--prefix", "--keys-only"],
        &["get", &foreign, "--prefix", "--count-only"],
        &["get", "", "--from-key", "--keys-only"],
        &["put", &probe, "stolen"],
        &["del", &foreign, "--prefix"],
        &["user", "list"],
        &["role", "list"],
    ];
    for attempt in attempts {
        match ask(attempt).await {
            Err(error) if format!("{error:#}").contains("permission denied") => {}
            Err(error) => return Err(error).context("refused, but not for want of permission"),
            Ok(said) => bail!("{} may {attempt:?} in the pool: {said}", of.name),
        }
    }
    Ok(())
}
