//! What TLS connections trust and show.

use std::path::Path;

use reqwest::{Certificate, ClientBuilder, Identity};
use store::SourceErrorKind as Kind;

use crate::{
    config::RegistryConfig,
    error::Failure,
    hosts::{Connection, Stamped},
    regular_file,
};

/// More certificates than any file of authorities has.
const MAX_PEM: u64 = 16 << 20;

/// Tells `builder` what all hosts' certificates and this kind of connection's say.
pub(super) fn configure(
    mut builder: ClientBuilder,
    config: &RegistryConfig,
    connection: &Connection,
) -> Result<ClientBuilder, Failure> {
    let files = config.ca_files.iter().chain(connection.ca.iter().map(|file| &file.path));
    for path in files {
        for certificate in authorities(path)? {
            builder = builder.add_root_certificate(certificate);
        }
    }
    if connection.skip_verify {
        builder = builder.danger_accept_invalid_certs(true);
    }
    for (n, (certificate, key)) in connection.clients.iter().enumerate() {
        let identity = identity(certificate, key.as_ref())?;
        // One certificate is shown, and a server that wants another one says so by refusing it.
        if n == 0 {
            builder = builder.identity(identity);
        }
    }
    Ok(builder)
}

fn authorities(path: &Path) -> Result<Vec<Certificate>, Failure> {
    let unusable = |why: String| {
        let path = path.display();
        Failure::fatal(Kind::Protocol, format!("cannot use the certificate authority file {path}: {why}"))
    };
    let pem = regular_file::read(path, MAX_PEM).map_err(|error| unusable(error.to_string()))?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| unusable(error.to_string()))?;
    if certificates.is_empty() {
        return Err(unusable("there is no PEM certificate in it".to_owned()));
    }
    Ok(certificates)
}

fn identity(certificate: &Stamped, key: Option<&Stamped>) -> Result<Identity, Failure> {
    let read = |file: &Stamped| {
        regular_file::read(&file.path, MAX_PEM).map_err(|error| {
            let path = file.path.display();
            Failure::fatal(
                Kind::Protocol,
                format!("cannot read the client certificate or key {path}: {error}"),
            )
        })
    };
    let mut pem = read(certificate)?;
    if let Some(key) = key {
        pem.push(b'\n');
        pem.extend(read(key)?);
    }
    Identity::from_pem(&pem).map_err(|error| {
        let path = certificate.path.display();
        // The parser's message tells what is missing, never what is there.
        let message =
            format!("cannot use the client certificate {path} and its key: {}", error.without_url());
        Failure::fatal(Kind::Protocol, message)
    })
}
