use time::OffsetDateTime;

/// Why a key, certificate or kubeconfig could not be made or read.
///
/// Messages say what to do about it and never contain key material.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The crypto library could not make a key or sign.
    #[error("cannot generate or sign")]
    Sign(#[source] rcgen::Error),
    /// The operating system gave no random bytes.
    #[error("cannot read random bytes from the operating system")]
    Random(#[source] getrandom::Error),
    /// The text has no PEM block of the wanted kind.
    #[error("the {0} is not PEM: no readable block of that kind in it")]
    NotPem(&'static str),
    /// A PEM certificate block does not hold X.509.
    #[error("the certificate is PEM but not a readable X.509 certificate")]
    ReadCertificate,
    /// A private key of a kind that cannot be used.
    #[error(
        "the private key is not usable: expected an unencrypted ECDSA P-256 or P-384, Ed25519, \
         or RSA key of 2048 to 4096 bits, as PKCS#8, SEC1 or PKCS#1"
    )]
    ReadKey,
    /// The private key is protected by a passphrase.
    #[error("the private key is encrypted: store it without a passphrase")]
    EncryptedKey,
    /// The private key belongs to another certificate.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// The private key belongs to another public key.
    #[error("the private key does not belong to the public key")]
    PublicKeyMismatch,
    /// The certificate may not sign others (`basicConstraints`, `keyUsage`).
    #[error(
        "the certificate is not a certificate authority: it needs basicConstraints CA:TRUE and, \
         where keyUsage is present, keyCertSign"
    )]
    NotAnAuthority,
    /// The authority's subject could not be repeated byte for byte as the issuer of a leaf.
    #[error(
        "the authority's subject is not supported: use single attributes, each kind at most once"
    )]
    UnsupportedSubject,
    /// The authority is past its end, so nothing it signs would be trusted.
    #[error("the certificate authority expired at {not_after}")]
    AuthorityExpired {
        /// End of the authority's validity.
        not_after: OffsetDateTime,
    },
    /// The lifetime asked for is below [`MINIMUM_LIFETIME`](crate::MINIMUM_LIFETIME) or ends after the year 9999.
    #[error(
        "the lifetime of {0} is out of range: at least ten minutes, ending before the year 10000"
    )]
    Lifetime(time::Duration),
    /// A certificate request asks for something that no TLS server needs, or cannot be read.
    #[error("the certificate request is refused: {0}")]
    ReadSigningRequest(&'static str),
    /// The text is not what a `JoinToken` gives.
    #[error("this is no join token, or not the whole of one: it begins with stoker1.")]
    JoinString,
    /// A name that cannot stand in a certificate.
    #[error("{0:?} is not a DNS name")]
    DnsName(String),
    /// The text is not a kubeconfig.
    #[error("the kubeconfig is not readable, at line {line}")]
    ReadKubeconfig {
        /// 1-based line of the mistake; 0 when unknown.
        line: u64,
    },
    /// The kubeconfig lacks something that its current context needs.
    #[error("the kubeconfig's current context has no {0}")]
    KubeconfigLacks(&'static str),
}
