// Bundles the libraries that the HTML page of a report is drawn with: `make vendor`.
// Versions are pinned, with checksums, by package-lock.json.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";

const folder = "../graphflops/html/vendor";
const bundles = ["charts", "tables"];
const packages = new Set();

for (const name of bundles) {
  const { metafile } = await build({
    entryPoints: [`${name}.js`],
    outfile: join(folder, `${name}.min.js`),
    bundle: true,
    minify: true,
    metafile: true,
    format: "iife",
    globalName: name,
    charset: "ascii",
    target: "es2022",
    legalComments: "none", // whole licences stand in LICENSES.txt, and in every page
  });
  for (const file of Object.keys(metafile.inputs)) {
    const found = /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(file);
    if (found) packages.add(found[1]);
  }
}

const byText = new Map();
for (const name of [...packages].sort()) {
  const place = join("node_modules", name);
  const { version, license } = JSON.parse(readFileSync(join(place, "package.json"), "utf8"));
  const file = readdirSync(place).find((entry) => /^licen[cs]e/i.test(entry));
  if (!file) throw new Error(`${name} has no licence file`);
  const text = readFileSync(join(place, file), "utf8").trim();
  byText.set(text, [...(byText.get(text) ?? []), `${name} ${version} (${license})`]);
}
const licences = [...byText].map(([text, names]) => `${names.join("\n")}\n\n${text}\n`);
writeFileSync(join(folder, "LICENSES.txt"), licences.join(`\n${"-".repeat(78)}\n\n`));

const files = [...bundles.map((name) => `${name}.min.js`), "LICENSES.txt"];
const sums = files.map((file) => {
  const sum = createHash("sha256")
    .update(readFileSync(join(folder, file)))
    .digest("hex");
  return `${sum}  ${file}\n`;
});
writeFileSync(join(folder, "SHA256SUMS"), sums.join(""));
