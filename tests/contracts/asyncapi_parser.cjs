// Prints what AsyncAPI's own parser says of the document on stdin; run it in a folder that has the parser.
const { createRequire } = require("node:module");
const { readFileSync } = require("node:fs");

const { Parser } = createRequire(`${process.cwd()}/`)("@asyncapi/parser");

// References to other files are seen from the document's own place.
new Parser().parse(readFileSync(0, "utf8"), { source: process.argv[2] }).then(({ document, diagnostics }) => {
  const told = diagnostics.map(({ code, severity, message, path }) => ({ code, severity, message, path: path.join(".") }));
  const messages = document ? document.allMessages().all().map((message) => message.name()) : [];
  console.log(JSON.stringify({ told, messages }));
});
