//! A web server in Node.js, with packages from npm.

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use super::parts::{build_once, debian_with, file_tar, made_once, run};
use crate::oci_layout::ImageConfig;

/// What the server is made of.
const PACKAGES: &[&str] =
    &["express@5.3.0", "aws-sdk@2.1692.0", "axios@1.21.1", "lodash@4.18.1", "winston@3.19.0", "zod@4.6.7"];

/// Listens, asks itself over loopback, and is ready when the answer is right. It serves on until it is killed.
const SERVER: &str = "\
const express = require('express');
const aws = require('aws-sdk');
const axios = require('axios');
const lodash = require('lodash');
const winston = require('winston');
const { z } = require('zod');

const log = winston.createLogger({ transports: [new winston.transports.Console({ stderrLevels: ['info'] })] });
const bucket = new aws.S3({ region: 'eu-central-1' });
const Question = z.object({ numbers: z.array(z.number()) });
const app = express();
app.use(express.json());
app.post('/sum', (request, response) => {
  const { numbers } = Question.parse(request.body);
  response.json({ sum: lodash.sum(numbers), api: bucket.api.apiVersion });
});
const server = app.listen(0, '127.0.0.1', async () => {
  const { port } = server.address();
  const answer = await axios.post(`http://127.0.0.1:${port}/sum`, { numbers: [1, 2, 39] });
  if (answer.data.sum !== 42) throw new Error(JSON.stringify(answer.data));
  log.info('serving');
  console.log('ready');
});
";

/// Debian with Node.js, the packages, and the server: three layers.
///
/// # Errors
/// Not root, or Debian's or npm's packages cannot be reached.
pub fn node() -> Result<PathBuf> {
    let config = ImageConfig {
        command: vec!["/usr/bin/node".into(), "/app/server.js".into()],
        env: vec![
            "PATH=/usr/local/bin:/usr/bin:/bin".into(),
            "AWS_SDK_JS_SUPPRESS_MAINTENANCE_MODE_MESSAGE=1".into(),
        ],
    };
    build_once("node", &config, |scratch, layout| {
        layout.add_gzip_layer(&debian_with(scratch, "debian-node", "nodejs")?)?;
        let packages = made_once(scratch, "node-packages", |root| {
            let app = root.join("app");
            std::fs::create_dir(&app)?;
            run(Command::new("npm")
                .args([
                    "install",
                    "--silent",
                    "--no-audit",
                    "--no-fund",
                    "--ignore-scripts",
                    "--no-package-lock",
                ])
                .arg("--prefix")
                .arg(&app)
                .args(PACKAGES))
        })?;
        layout.add_gzip_layer(&packages)?;
        layout.add_gzip_layer(&file_tar(scratch, "node-server", "app/server.js", SERVER)?)
    })
}
