// Prints the Khronos validator's report on one GLB as JSON: node validate.js FILE
// Exit status: 0 when a report was made (whatever it says), 1 when none could be made.
"use strict";

const fs = require("fs");
const path = require("path");
const validator = require("gltf-validator");

const file = process.argv[2];
if (file === undefined) {
  console.error("usage: node validate.js FILE");
  process.exit(1);
}

validator
  .validateBytes(new Uint8Array(fs.readFileSync(file)), {
    uri: path.basename(file),
    format: "glb",
    maxIssues: 0, // unlimited; the default stops at 100
    externalResourceFunction: (uri) =>
      fs.promises.readFile(path.resolve(path.dirname(file), decodeURIComponent(uri))).then((data) => new Uint8Array(data)),
  })
  .then((report) => process.stdout.write(JSON.stringify({ ...report, validatorVersion: validator.version() })))
  .catch((reason) => {
    console.error(String(reason));
    process.exitCode = 1;
  });
