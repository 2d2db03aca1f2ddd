//! A subject with several organizations, which rcgen cannot write: it keeps one value per attribute.

use rcgen::{KeyPair, SigningKey as _};
use yasna::models::ObjectIdentifier;
use yasna::{ASN1Result, DERWriter};

use crate::{Error, LeafRequest};

/// X.520.
const ORGANIZATION: &[u64] = &[2, 5, 4, 10];
const COMMON_NAME: &[u64] = &[2, 5, 4, 3];
/// Where the subject stands in a `TBSCertificate` with a version (RFC 5280, section 4.1).
const SUBJECT: usize = 5;

/// The certificate once more, with all organizations of `request` in its subject, and signed anew by `signer`, who has
/// signed it before.
pub(crate) fn with_organizations(
    certificate: &[u8],
    request: &LeafRequest,
    signer: &KeyPair,
) -> Result<Vec<u8>, Error> {
    let unreadable = |_| Error::ReadCertificate;
    let parts = elements(certificate).map_err(unreadable)?;
    let [body, algorithm, _signature] = parts.as_slice() else {
        return Err(Error::ReadCertificate);
    };
    let mut fields = elements(body).map_err(unreadable)?;
    let field = fields.get_mut(SUBJECT).ok_or(Error::ReadCertificate)?;
    *field = subject(request);
    let body = sequence(&fields);
    let signature = signer.sign(&body).map_err(Error::Sign)?;
    let signature = yasna::construct_der(|writer| {
        writer.write_bitvec_bytes(&signature, signature.len() * 8);
    });
    Ok(sequence(&[body, algorithm.clone(), signature]))
}

/// The elements of a sequence, each as DER.
fn elements(sequence: &[u8]) -> ASN1Result<Vec<Vec<u8>>> {
    let mut elements = Vec::new();
    yasna::parse_der(sequence, |reader| {
        reader.read_sequence_of(|element| {
            elements.push(element.read_der()?);
            Ok(())
        })
    })?;
    Ok(elements)
}

fn sequence(elements: &[Vec<u8>]) -> Vec<u8> {
    yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            for element in elements {
                writer.next().write_der(element);
            }
        });
    })
}

/// One attribute each, as Go reads it: all organizations become groups.
fn subject(request: &LeafRequest) -> Vec<u8> {
    yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            for organization in request.organization_set() {
                attribute(writer.next(), ORGANIZATION, organization);
            }
            attribute(writer.next(), COMMON_NAME, &request.common_name);
        });
    })
}

fn attribute(writer: DERWriter<'_>, kind: &[u64], value: &str) {
    writer.write_set_of(|writer| {
        writer.next().write_sequence(|writer| {
            writer.next().write_oid(&ObjectIdentifier::from_slice(kind));
            writer.next().write_utf8_string(value);
        });
    });
}
