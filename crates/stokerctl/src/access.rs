//! Ways into a tenant for a person: certificates that end by themselves, signed here with the tenant's authority. Who may
//! read that authority's Secret could do so by hand; nothing is stored.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, ensure};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt as _};
use stoker_api::v1alpha1::{MASTERS, TenantControlPlane};
use stoker_control_plane::Names;
use stoker_control_plane::entry::{
    ADMIN, ADMIN_SERVICE, CA_CERTIFICATE, CA_KEY, GENERATED_KUBECONFIG,
};
use stoker_pki::{
    Authority, KubeconfigCredentials, KubeconfigFacts, KubeconfigRequest, LeafRequest, LeafUsage,
    kubeconfig as render, not_after, parse_kubeconfig,
};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::cli::KubeconfigArguments;
use crate::connect::{Connection, Target, explain};
use crate::duration::Length;
use crate::print::{note, out};

/// A working day with a night: longer ones are a generator's, where they can be found and taken away.
const LONGEST: i64 = 86_400;
const SHORTEST: i64 = 600;
/// Of a common name (RFC 5280, `ub-common-name`).
const USER_LIMIT: usize = 64;

/// Who gets in, as whom, how long.
pub(crate) struct Wanted {
    pub(crate) user: String,
    pub(crate) groups: Vec<String>,
    pub(crate) lifetime: Length,
}

/// What of a tenant is needed to let somebody in.
pub(crate) struct Door {
    /// Address and name of the cluster, from the admin kubeconfig.
    pub(crate) place: KubeconfigFacts,
    authority: Authority,
}

/// Prints a kubeconfig.
///
/// # Errors
/// The tenant has none to give yet, or what was asked is not given.
pub(crate) async fn kubeconfig(target: &Target, wanted: &KubeconfigArguments) -> Result<()> {
    let connection = target.connect().await?;
    let tenant = connection.tenant(&wanted.tenant).await?;
    let (text, note) = match &wanted.generator {
        Some(generator) => generated(&connection, &tenant, generator).await?,
        None => minted(&connection, &tenant, wanted).await?,
    };
    if let Some(path) = &wanted.output {
        write_private(path, &text)?;
        self::note(&format!("{note}; it is in {}", path.display()));
        return Ok(());
    }
    self::note(&note);
    out(&text)
}

async fn minted(
    connection: &Connection,
    tenant: &TenantControlPlane,
    wanted: &KubeconfigArguments,
) -> Result<(String, String)> {
    let entry = if wanted.internal {
        ADMIN_SERVICE
    } else {
        ADMIN
    };
    let door = Door::of(connection, tenant, entry).await?;
    let user = match &wanted.user {
        Some(user) => user.clone(),
        None => default_user(&connection.client).await?,
    };
    let wanted = Wanted {
        user,
        groups: wanted.groups.clone(),
        lifetime: wanted.lifetime,
    };
    let (text, end) = door.open(&wanted, OffsetDateTime::now_utc())?;
    let note = format!(
        "user {}, groups {}, until {end}; it cannot be called back before, but by RBAC in the tenant",
        wanted.user,
        wanted.groups.join(",")
    );
    Ok((text, note))
}

async fn generated(
    connection: &Connection,
    tenant: &TenantControlPlane,
    generator: &str,
) -> Result<(String, String)> {
    let name = format!("{}-{generator}", tenant.name_any());
    let secret = secret(connection, &name).await?;
    let text = entry(secret.as_ref(), GENERATED_KUBECONFIG).with_context(|| {
        format!("KubeconfigGenerator {generator} keeps no kubeconfig for {}: `kubectl describe kc {generator}` says why", tenant.name_any())
    })?;
    let facts = parse_kubeconfig(&text).context("reading the kubeconfig")?;
    let end = not_after(&facts.certificate)?.format(&Rfc3339)?;
    Ok((text, format!("kept by generator {generator}, until {end}")))
}

impl Door {
    /// Reads the tenant's Secrets. `entry` of its admin kubeconfig has the address.
    ///
    /// # Errors
    /// They are not there yet, or may not be read.
    pub(crate) async fn of(
        connection: &Connection,
        tenant: &TenantControlPlane,
        entry_name: &str,
    ) -> Result<Self> {
        let names = Names::of_named(&tenant.name_any());
        let admin = secret(connection, &names.admin_kubeconfig).await?;
        let ca = secret(connection, &names.ca).await?;
        let not_yet = |what: &str| {
            anyhow!(
                "the tenant has no {what} yet: `stokerctl list -n {}` says what it waits for",
                connection.namespace
            )
        };
        let place = entry(admin.as_ref(), entry_name).ok_or_else(|| not_yet("address"))?;
        let pair = [CA_CERTIFICATE, CA_KEY].map(|name| entry(ca.as_ref(), name));
        let [Some(certificate), Some(key)] = pair else {
            return Err(not_yet("certificate authority"));
        };
        Ok(Self {
            place: parse_kubeconfig(&place).context("reading the tenant's admin kubeconfig")?,
            authority: Authority::from_pem(&certificate, &key)
                .context("reading the tenant's certificate authority")?,
        })
    }
    /// A kubeconfig, and when it ends.
    ///
    /// # Errors
    /// It is not given.
    pub(crate) fn open(&self, wanted: &Wanted, now: OffsetDateTime) -> Result<(String, String)> {
        let Wanted {
            user,
            groups,
            lifetime,
        } = wanted;
        ensure!(
            (SHORTEST..=LONGEST).contains(&lifetime.seconds),
            "--for {lifetime}: from 10m to 1d; for longer make a KubeconfigGenerator, which renews and removes it"
        );
        ensure!(
            !groups.iter().any(|group| group == MASTERS),
            "the group {MASTERS} is not given: it passes by authorization and could not be taken away; kubeadm:cluster-admins is bound to cluster-admin"
        );
        ensure!(
            !user.is_empty() && user.len() <= USER_LIMIT,
            "--user: from 1 to {USER_LIMIT} bytes"
        );
        let request = LeafRequest {
            common_name: user.clone(),
            organizations: groups.clone(),
            usage: LeafUsage::Client,
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            lifetime: Duration::seconds(lifetime.seconds),
        };
        let leaf = self.authority.issue(&request, now)?;
        let end = not_after(&leaf.certificate)?.format(&Rfc3339)?;
        let place = self.place.clone();
        let text = render(&KubeconfigRequest {
            cluster: place.cluster,
            server: place.server,
            tls_server_name: place.tls_server_name,
            authority: self.authority.certificate().to_owned(),
            user: user.clone(),
            credentials: KubeconfigCredentials::Inline(leaf),
        });
        Ok((text, end))
    }
}

/// `stokerctl:` and who the user is on the management cluster, so that the tenant's audit log names a person.
pub(crate) async fn default_user(client: &Client) -> Result<String> {
    let reviews: Api<SelfSubjectReview> = Api::all(client.clone());
    let asked = SelfSubjectReview::default();
    let said = reviews.create(&PostParams::default(), &asked).await;
    let status = said.map_err(explain)?.status;
    let user = status.and_then(|status| status.user_info?.username);
    Ok(shortened(&format!(
        "stokerctl:{}",
        user.unwrap_or_default()
    )))
}

fn shortened(user: &str) -> String {
    let mut end = user.len().min(USER_LIMIT);
    while !user.is_char_boundary(end) {
        end -= 1;
    }
    user[..end].to_owned()
}

async fn secret(connection: &Connection, name: &str) -> Result<Option<Secret>> {
    let secrets: Api<Secret> = Api::namespaced(connection.client.clone(), &connection.namespace);
    secrets.get_opt(name).await.map_err(explain)
}

fn entry(secret: Option<&Secret>, name: &str) -> Option<String> {
    let bytes = &secret?.data.as_ref()?.get(name)?.0;
    String::from_utf8(bytes.clone())
        .ok()
        .filter(|text| !text.is_empty())
}

/// Readable by its owner from the first byte on. A file of that name is replaced, once the new one is whole; what is
/// not a file, such as a link or a device, is left alone.
fn write_private(path: &Path, text: &str) -> Result<()> {
    if let Ok(found) = std::fs::symlink_metadata(path) {
        let path = path.display();
        ensure!(
            found.is_file(),
            "{path} is not a regular file: name another, or leave --output out to print"
        );
    }
    let written = || -> std::io::Result<()> {
        let directory = path.parent().filter(|path| !path.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(text.as_bytes())?;
        file.persist(path)?;
        Ok(())
    };
    written().with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door() -> Door {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        let authority = Authority::generate("kubernetes", Duration::days(365), now).unwrap();
        let request = LeafRequest {
            common_name: "admin".to_owned(),
            organizations: Vec::new(),
            usage: LeafUsage::Client,
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            lifetime: Duration::days(1),
        };
        let text = render(&KubeconfigRequest {
            cluster: "demo".to_owned(),
            server: "https://10.0.0.1:6443".to_owned(),
            tls_server_name: Some("demo.team.svc".to_owned()),
            authority: authority.certificate().to_owned(),
            user: "admin".to_owned(),
            credentials: KubeconfigCredentials::Inline(authority.issue(&request, now).unwrap()),
        });
        Door {
            place: parse_kubeconfig(&text).unwrap(),
            authority,
        }
    }

    fn wanted(user: &str, group: &str, lifetime: &str) -> Wanted {
        Wanted {
            user: user.to_owned(),
            groups: vec![group.to_owned()],
            lifetime: lifetime.parse().unwrap(),
        }
    }

    #[test]
    fn it_has_the_tenants_address_and_ends_when_asked() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        let (text, end) = door().open(&wanted("ann", "ops", "1h"), now).unwrap();
        let facts = parse_kubeconfig(&text).unwrap();
        assert_eq!(facts.server, "https://10.0.0.1:6443");
        assert_eq!(facts.tls_server_name.as_deref(), Some("demo.team.svc"));
        assert_eq!(facts.user, "ann");
        let ends = not_after(&facts.certificate).unwrap();
        assert_eq!(ends, now + Duration::hours(1));
        assert_eq!(end, ends.format(&Rfc3339).unwrap());
    }

    #[test]
    fn nothing_is_given_that_cannot_be_taken_away() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        let refused = [
            (wanted("ann", MASTERS, "1h"), "kubeadm:cluster-admins"),
            (wanted("ann", "ops", "2d"), "KubeconfigGenerator"),
            (wanted("ann", "ops", "5m"), "from 10m"),
            (wanted("", "ops", "1h"), "--user"),
        ];
        for (wanted, says) in refused {
            let error = door().open(&wanted, now).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_long_name_is_cut_between_letters() {
        let name = format!("stokerctl:{}ä", "x".repeat(53));
        assert_eq!(shortened(&name).len(), 63);
        assert_eq!(shortened("stokerctl:ann"), "stokerctl:ann");
    }

    #[test]
    fn a_file_is_its_owners_alone_whatever_was_there() {
        use std::os::unix::fs::PermissionsExt as _;
        let path = std::env::temp_dir().join(format!("stokerctl-{}", std::process::id()));
        std::fs::write(&path, "before").unwrap();
        write_private(&path, "after").unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "after");
        let link = path.with_extension("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let refused = write_private(&link, "through").unwrap_err().to_string();
        assert!(refused.contains("not a regular file"), "{refused}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "after");
        std::fs::remove_file(&link).unwrap();
        std::fs::remove_file(&path).unwrap();
    }
}
