//! Reading a `DataStore`'s certificates and keys, in place or from Secrets.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use stoker_api::v1alpha1::{Content, DataStoreSpec};
use stoker_pki::Authority;
use zeroize::Zeroizing;

/// What connects to the store and signs tenants' client certificates.
#[derive(Clone, PartialEq)]
pub struct Credentials {
    /// Members, `host:port`.
    pub endpoints: Vec<String>,
    /// PEM of the authority.
    pub authority_certificate: String,
    /// PEM of its key.
    pub authority_key: Zeroizing<String>,
    /// PEM of the root user's certificate.
    pub client_certificate: String,
    /// PEM of its key.
    pub client_key: Zeroizing<String>,
}

/// Why the certificates could not be read. Each message names the field to mend.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what each field holds")]
pub enum Error {
    #[error("{field}: neither content nor secretReference is given")]
    Missing { field: &'static str },
    #[error("{field}: Secret {namespace}/{name} does not exist")]
    NoSecret {
        field: &'static str,
        namespace: String,
        name: String,
    },
    #[error("{field}: Secret {namespace}/{name} has no key {key:?}")]
    NoKey {
        field: &'static str,
        namespace: String,
        name: String,
        key: String,
    },
    #[error("{field}: the content is not base64 of PEM text")]
    NotText { field: &'static str },
    #[error("{field}: cannot read Secret {namespace}/{name}")]
    ReadSecret {
        field: &'static str,
        namespace: String,
        name: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error(
        "tlsConfig.certificateAuthority: the certificate and key cannot sign tenants' client certificates: {0}"
    )]
    Authority(#[from] stoker_pki::Error),
}

impl Error {
    /// Condition reason.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::ReadSecret { .. } => "CredentialsUnreadable",
            Self::Authority(_) => "InvalidCertificateAuthority",
            _ => "CredentialsMissing",
        }
    }
}

impl Credentials {
    /// Reads every part named in `spec`.
    ///
    /// # Errors
    /// The first part that is missing or unreadable.
    pub async fn read(client: &Client, spec: &DataStoreSpec) -> Result<Self, Error> {
        let tls = &spec.tls_config;
        let authority = &tls.certificate_authority;
        let key_field = "tlsConfig.certificateAuthority.privateKey";
        let authority_key = authority
            .private_key
            .as_ref()
            .ok_or(Error::Missing { field: key_field })?;
        Ok(Self {
            endpoints: spec.endpoints.clone(),
            authority_certificate: read(
                client,
                "tlsConfig.certificateAuthority.certificate",
                &authority.certificate,
            )
            .await?
            .to_string(),
            authority_key: read(client, key_field, authority_key).await?,
            client_certificate: read(
                client,
                "tlsConfig.clientCertificate.certificate",
                &tls.client_certificate.certificate,
            )
            .await?
            .to_string(),
            client_key: read(
                client,
                "tlsConfig.clientCertificate.privateKey",
                &tls.client_certificate.private_key,
            )
            .await?,
        })
    }

    /// The authority that signs tenants' client certificates.
    ///
    /// # Errors
    /// The certificate is no authority's, or the key is not its key.
    pub fn authority(&self) -> Result<Authority, Error> {
        Ok(Authority::from_pem(
            &self.authority_certificate,
            &self.authority_key,
        )?)
    }
}

async fn read(
    client: &Client,
    field: &'static str,
    content: &Content,
) -> Result<Zeroizing<String>, Error> {
    let bytes = if let Some(inline) = &content.content {
        Zeroizing::new(
            STANDARD
                .decode(inline)
                .map_err(|_| Error::NotText { field })?,
        )
    } else if let Some(reference) = &content.secret_reference {
        let (namespace, name) = (reference.namespace.clone(), reference.name.clone());
        let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
        let secret = match secrets.get_opt(&name).await {
            Ok(Some(secret)) => secret,
            Ok(None) => {
                return Err(Error::NoSecret {
                    field,
                    namespace,
                    name,
                });
            }
            Err(source) => {
                let source = Box::new(source);
                return Err(Error::ReadSecret {
                    field,
                    namespace,
                    name,
                    source,
                });
            }
        };
        let key = reference.key_path.clone();
        let value = secret.data.unwrap_or_default().remove(&key);
        Zeroizing::new(
            value
                .ok_or(Error::NoKey {
                    field,
                    namespace,
                    name,
                    key,
                })?
                .0,
        )
    } else {
        return Err(Error::Missing { field });
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| Error::NotText { field })?;
    Ok(Zeroizing::new(text.to_owned()))
}
