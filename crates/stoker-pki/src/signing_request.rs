//! Requests for certificates that others sign: what they ask for, read back.

use std::net::IpAddr;

use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::{ParsedCriAttribute, X509CriAttribute};
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::oid_registry::{
    OID_PKCS9_EXTENSION_REQUEST, OID_X509_COMMON_NAME, OID_X509_EXT_BASIC_CONSTRAINTS,
    OID_X509_EXT_SUBJECT_ALT_NAME, OID_X509_ORGANIZATION_NAME,
};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::X509Name;

use crate::Error;
use crate::certificate::key_hash;

/// What a certificate signing request (PKCS #10) asks for, as far as a TLS server may ask. What else it asks
/// for makes it unreadable: a mail address, a URI, to be an authority, a subject with other attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SigningRequest {
    /// The subject's one common name.
    pub common_name: String,
    /// The subject's organizations, in order.
    pub organizations: Vec<String>,
    /// DNS names, as written.
    pub dns_names: Vec<String>,
    /// Addresses; IPv4 ones in IPv6 form are IPv4.
    pub ip_addresses: Vec<IpAddr>,
    /// `sha256:` and the hex SHA-256 of the public key that is to be certified.
    pub key_hash: String,
}

impl SigningRequest {
    /// Reads a text with one PEM block and nothing else, so that nobody else reads another one in it.
    ///
    /// # Errors
    /// [`Error::NotPem`]; [`Error::ReadSigningRequest`] with what is wrong.
    pub fn from_pem(text: &[u8]) -> Result<Self, Error> {
        const KIND: &str = "certificate request";
        let text = std::str::from_utf8(text).map_err(|_| Error::NotPem(KIND))?;
        let alone = text.starts_with("-----BEGIN CERTIFICATE REQUEST-----")
            && text.matches("-----BEGIN").count() == 1;
        if !alone {
            return Err(Error::NotPem(KIND));
        }
        let der = CertificateSigningRequestDer::from_pem_slice(text.as_bytes());
        Self::from_der(&der.map_err(|_| Error::NotPem(KIND))?)
    }

    fn from_der(der: &[u8]) -> Result<Self, Error> {
        let (rest, request) = X509CertificationRequest::from_der(der)
            .map_err(|_| unreadable("it is not PKCS #10"))?;
        if !rest.is_empty() {
            return Err(unreadable("something follows it"));
        }
        let info = &request.certification_request_info;
        let mut read = Self {
            key_hash: key_hash(info.subject_pki.raw),
            ..Self::default()
        };
        read.subject(&info.subject)?;
        for attribute in info.iter_attributes() {
            read.attribute(attribute)?;
        }
        Ok(read)
    }

    fn subject(&mut self, subject: &X509Name<'_>) -> Result<(), Error> {
        let mut common_names = Vec::new();
        for attribute in subject.iter_attributes() {
            let text = attribute.as_str();
            let text = text.map_err(|_| unreadable("an attribute of its subject is no text"))?;
            let kind = attribute.attr_type();
            if *kind == OID_X509_COMMON_NAME {
                common_names.push(text.to_owned());
            } else if *kind == OID_X509_ORGANIZATION_NAME {
                self.organizations.push(text.to_owned());
            } else {
                return Err(unreadable(
                    "its subject has attributes beside common name and organization",
                ));
            }
        }
        let [common_name] = <[String; 1]>::try_from(common_names)
            .map_err(|_| unreadable("its subject needs exactly one common name"))?;
        self.common_name = common_name;
        Ok(())
    }

    fn attribute(&mut self, attribute: &X509CriAttribute<'_>) -> Result<(), Error> {
        match attribute.parsed_attribute() {
            ParsedCriAttribute::ExtensionRequest(request) => request
                .extensions
                .iter()
                .try_for_each(|extension| self.extension(extension)),
            _ if attribute.oid == OID_PKCS9_EXTENSION_REQUEST => {
                Err(unreadable("its extensions cannot be read"))
            }
            _ => Ok(()),
        }
    }

    fn extension(&mut self, extension: &X509Extension<'_>) -> Result<(), Error> {
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => names
                .general_names
                .iter()
                .try_for_each(|name| self.alternative_name(name)),
            ParsedExtension::BasicConstraints(constraints) if constraints.ca => {
                Err(unreadable("it asks to be an authority"))
            }
            ParsedExtension::BasicConstraints(_) => Ok(()),
            _ if extension.oid == OID_X509_EXT_SUBJECT_ALT_NAME
                || extension.oid == OID_X509_EXT_BASIC_CONSTRAINTS =>
            {
                Err(unreadable("its extensions cannot be read"))
            }
            _ => Ok(()),
        }
    }

    fn alternative_name(&mut self, name: &GeneralName<'_>) -> Result<(), Error> {
        match name {
            GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let address = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let address = address.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                let address = address.map_err(|_| unreadable("an address in it is none"))?;
                self.ip_addresses.push(address.to_canonical());
            }
            _ => {
                return Err(unreadable(
                    "it asks for a name that is neither a DNS name nor an address",
                ));
            }
        }
        Ok(())
    }
}

fn unreadable(what: &'static str) -> Error {
    Error::ReadSigningRequest(what)
}
