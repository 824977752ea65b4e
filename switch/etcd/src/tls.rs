//! Who vouches for the store, and for us.

use std::path::Path;

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use control::store::{StoreError, StoreOptions};

/// TLS 1.2 or 1.3; members must be vouched for by the CA given, under the host of the URL.
pub(super) fn config(options: &StoreOptions) -> Result<ClientConfig, StoreError> {
    let refused = |path: &Path, why: String| StoreError::Refused(format!("{}: {why}", path.display()));
    let mut roots = RootCertStore::empty();
    if let Some(path) = &options.ca {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|error| refused(path, format!("no certificate of a CA: {error}")))?;
        }
    }
    let builder = ClientConfig::builder_with_provider(default_provider().into()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| StoreError::Refused(format!("TLS: {error}")))?.with_root_certificates(roots);
    let (Some(cert), Some(key)) = (&options.cert, &options.key) else { return Ok(builder.with_no_client_auth()) };
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| refused(key, format!("no private key in PEM: {error}")))?;
    builder.with_client_auth_cert(certificates(cert)?, private).map_err(|error| refused(cert, format!("cannot be used with {}: {error}", key.display())))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(StoreError::Refused(format!("{}: no certificate in it (PEM)", path.display()))),
        Err(error) => Err(StoreError::Refused(format!("{}: no certificates in PEM: {error}", path.display()))),
    }
}
