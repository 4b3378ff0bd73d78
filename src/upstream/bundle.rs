//! Pure: the CA file in PEM (RFC 7468 §5), block by block, and what each certificate may vouch for.
//!
//! A block that cannot be used is left out, and said to be so by its number and line: bundles are
//! joined by scripts, and one bad block must not lock a cluster out while others are right. Its
//! content is never part of a sentence.
//!
//! Only a certificate that says it is a CA (RFC 5280 §4.2.1.9 and §4.2.1.3) becomes an anchor. If any
//! certificate did, whoever holds the key of a serving certificate in the bundle could make
//! certificates for every name.

use std::fmt;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use x509_cert::certificate::{CertificateInner, Raw, TbsCertificateInner, Version};
use x509_cert::der::{self, Decode as _};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};

use super::expiry::{Place, Validity};

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// With a serial number of any length: webpki does not look at it, and there are CAs with more than the 20
/// bytes of RFC 5280 §4.1.2.2.
pub(crate) type Certificate = CertificateInner<Raw>;

/// The certificates of a CA file that can be used, and the blocks that cannot.
pub(super) struct Bundle {
    /// At least one.
    pub(super) certificates: Vec<BundleCertificate>,
    pub(super) refused: Vec<RefusedBlock>,
}

pub(super) struct BundleCertificate {
    pub(super) der: CertificateDer<'static>,
    /// It may vouch for other certificates.
    pub(super) is_anchor: bool,
    pub(super) validity: Validity,
    pub(super) place: Place,
}

/// A block that cannot be used.
#[derive(Debug)]
pub(super) struct RefusedBlock {
    pub(super) place: Place,
    pub(super) cause: BlockError,
}

#[derive(Debug)]
pub(super) enum BlockError {
    /// Cut off: another block begins, or the file ends.
    NoEnd,
    Empty,
    Base64,
    NotACertificate(der::Error),
    /// rustls cannot use it as an anchor.
    NotAnAnchor(rustls::Error),
}

impl fmt::Display for BlockError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEnd => write!(out, "it has no line {END}"),
            Self::Empty => out.write_str("it is empty"),
            Self::Base64 => out.write_str("it is not valid base64"),
            Self::NotACertificate(error) => write!(out, "it is not an X.509 certificate: {error}"),
            Self::NotAnAnchor(error) => write!(out, "it cannot be used as a CA: {error}"),
        }
    }
}

/// Why a CA file has no certificate that can be used.
#[derive(Debug)]
pub(super) enum BundleError {
    /// All of its blocks are refused; the first one.
    AllRefused(RefusedBlock),
    NoPem,
    /// What it is instead.
    OtherFormat(&'static str),
}

impl fmt::Display for BundleError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllRefused(RefusedBlock { place: Place { block, line }, cause }) => write!(
                out,
                "none of its certificates can be used; block {block}, which begins at line {line}: \
                 {cause}"
            ),
            Self::NoPem => out.write_str("it contains no PEM certificate"),
            Self::OtherFormat(format) => write!(out, "it is {format} and not PEM"),
        }
    }
}

impl Bundle {
    /// The certificates of a CA file; an error when it has none that can be used.
    pub(super) fn parse(file: &[u8]) -> Result<Self, BundleError> {
        let text = String::from_utf8_lossy(file);
        let (mut certificates, mut refused) = (Vec::new(), Vec::new());
        for (place, block) in blocks(&text) {
            match certificate(block, place) {
                Ok(certificate) => certificates.push(certificate),
                Err(cause) => refused.push(RefusedBlock { place, cause }),
            }
        }
        if !certificates.is_empty() {
            return Ok(Self { certificates, refused });
        }
        Err(match refused.into_iter().next() {
            Some(first) => BundleError::AllRefused(first),
            None => other_format(file).map_or(BundleError::NoPem, BundleError::OtherFormat),
        })
    }

    /// The anchors, for chains.
    pub(super) fn anchors(&self) -> RootCertStore {
        let mut anchors = RootCertStore::empty();
        let ders = self.certificates.iter().filter(|it| it.is_anchor).map(|it| it.der.clone());
        // Each was added once before.
        anchors.add_parsable_certificates(ders);
        anchors
    }
}

/// The blocks labelled CERTIFICATE, from their BEGIN to the next one or the end of the text. A BEGIN
/// need not be at the start of a line: files are joined without a newline between them.
fn blocks(text: &str) -> impl Iterator<Item = (Place, &str)> {
    let starts = text.match_indices(BEGIN).map(|(at, _)| at);
    let ends = text.match_indices(BEGIN).skip(1).map(|(at, _)| at).chain([text.len()]);
    let mut line = 1;
    let mut counted = 0;
    starts.zip(ends).zip(1..).map(move |((start, end), block)| {
        line += text.get(counted..start).unwrap_or_default().matches('\n').count();
        counted = start;
        (Place { block, line }, text.get(start..end).unwrap_or_default())
    })
}

fn certificate(block: &str, place: Place) -> Result<BundleCertificate, BlockError> {
    // rustls-pemfile is archived (RUSTSEC-2025-0134). It is a thin wrapper around rustls-pki-types,
    // which is maintained and does the parsing; only this function would change.
    let end = block.find(END).ok_or(BlockError::NoEnd)?;
    let inside = block.get(BEGIN.len()..end).unwrap_or_default();
    let lines = inside.split_ascii_whitespace().collect::<Vec<_>>().join("\n");
    if lines.is_empty() {
        return Err(BlockError::Empty);
    }
    let pem = format!("{BEGIN}\n{lines}\n{END}\n");
    let Some(Ok(der)) = rustls_pemfile::certs(&mut pem.as_bytes()).next() else {
        return Err(BlockError::Base64);
    };
    let parsed = Certificate::from_der(&der).map_err(BlockError::NotACertificate)?;
    let tbs = parsed.tbs_certificate;
    let is_anchor = is_ca(&tbs).map_err(BlockError::NotACertificate)?;
    if is_anchor {
        RootCertStore::empty().add(der.clone()).map_err(BlockError::NotAnAnchor)?;
    }
    let validity = Validity::of_certificate(
        tbs.validity.not_before.to_unix_duration(),
        tbs.validity.not_after.to_unix_duration(),
    );
    Ok(BundleCertificate { der, is_anchor, validity, place })
}

/// Whether a certificate says that it must not sign others, which webpki asks of anchors and
/// intermediates only by half: it does not look at the key usage.
pub(super) fn must_not_sign(certificate: &[u8]) -> bool {
    Certificate::from_der(certificate)
        .is_ok_and(|parsed| is_ca(&parsed.tbs_certificate).is_ok_and(|is_ca| !is_ca))
}

/// Whether a certificate may sign others. One of version 1 has no way to say so, and counts as a CA
/// because it is in the bundle; so Go has it too.
fn is_ca(tbs: &TbsCertificateInner<Raw>) -> Result<bool, der::Error> {
    if tbs.version != Version::V3 {
        return Ok(true);
    }
    let is_ca = tbs.get::<BasicConstraints>()?.is_some_and(|(_, constraints)| constraints.ca);
    let signs =
        tbs.get::<KeyUsage>()?.is_none_or(|(_, usage)| usage.0.contains(KeyUsages::KeyCertSign));
    Ok(is_ca && signs)
}

fn other_format(file: &[u8]) -> Option<&'static str> {
    let is_certificate = |der: &[u8]| Certificate::from_der(der).is_ok();
    match file {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("UTF-16"),
        der if is_certificate(der) => Some("DER"),
        text if contains(text, b"BEGIN TRUSTED CERTIFICATE") => {
            Some("OpenSSL's TRUSTED CERTIFICATE (openssl x509 converts it)")
        }
        text if contains(text, b"BEGIN PKCS7") => {
            Some("PKCS #7 (openssl pkcs7 -print_certs converts it)")
        }
        _ => None,
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use testing::certificates::rcgen::KeyUsagePurpose;
    use testing::certificates::{Pair, named, named_ca, self_signed};

    use super::*;

    /// A CA, a server, and a CA that its key usage forbids to sign certificates.
    fn three() -> [Pair; 3] {
        let mut crippled = named_ca("crippled");
        crippled.key_usages = vec![KeyUsagePurpose::CrlSign];
        [named_ca("ca"), named("server", "a.example"), crippled].map(self_signed)
    }

    fn refused(file: &[u8]) -> String {
        Bundle::parse(file).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn only_a_certificate_that_may_sign_others_is_an_anchor() {
        let pairs = three();
        let file: String = pairs.iter().map(|pair| pair.pem.as_str()).collect();
        let bundle = Bundle::parse(file.as_bytes()).unwrap();
        let is_anchor: Vec<_> = bundle.certificates.iter().map(|it| it.is_anchor).collect();
        assert_eq!(is_anchor, [true, false, false]);
        assert_eq!(bundle.anchors().len(), 1);
        assert_eq!(pairs.map(|pair| must_not_sign(&pair.der)), [false, true, true]);
        assert!(!must_not_sign(b"no certificate"));
    }

    #[test]
    fn a_block_that_cannot_be_used_is_left_out_and_named_by_its_number_and_line() {
        let [ca, ..] = three();
        // Files that were joined without a newline between them.
        let file = format!("# A comment\n\n{BEGIN}\nAAAA\n{}{BEGIN}\n{END}\n", ca.pem.trim_end());
        let bundle = Bundle::parse(file.as_bytes()).unwrap();
        let [certificate] = &bundle.certificates[..] else { panic!("not one certificate") };
        assert_eq!((certificate.der.as_ref(), certificate.place.block), (ca.der.as_ref(), 2));
        assert_eq!(certificate.place.line, 5);
        let [cut_off, empty] = &bundle.refused[..] else { panic!("{:?}", bundle.refused) };
        assert_eq!((cut_off.place.block, cut_off.place.line), (1, 3));
        assert_eq!(cut_off.cause.to_string(), "it has no line -----END CERTIFICATE-----");
        assert_eq!((empty.place.block, empty.cause.to_string().as_str()), (3, "it is empty"));
        assert_eq!(empty.place.line, 4 + ca.pem.lines().count());
    }

    #[test]
    fn a_file_without_a_certificate_is_refused_as_what_it_is() {
        let [ca, ..] = three();
        let utf_16: Vec<_> = "\u{feff}-----".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let block = |inside: &str| format!("\n{BEGIN}\n{inside}\n{END}\n").into_bytes();
        let used = "none of its certificates can be used; block 1, which begins at line 2: ";
        for (file, expected) in [
            (b"".to_vec(), "it contains no PEM certificate".to_owned()),
            (b"BEGIN PKCS8".to_vec(), "it contains no PEM certificate".to_owned()),
            (utf_16, "it is UTF-16 and not PEM".to_owned()),
            (ca.der.to_vec(), "it is DER and not PEM".to_owned()),
            (b"-----BEGIN TRUSTED CERTIFICATE-----".to_vec(), "it is OpenSSL's".to_owned()),
            (b"-----BEGIN PKCS7-----".to_vec(), "it is PKCS #7".to_owned()),
            (block("A!"), format!("{used}it is not valid base64")),
            (block("AAAA"), format!("{used}it is not an X.509 certificate: ")),
        ] {
            let error = refused(&file);
            assert!(error.starts_with(&expected), "{expected}: {error}");
        }
    }
}
