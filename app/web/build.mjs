// Bundles source/ into built/: content-hashed files, and manifest.json, by which pages.py finds them.
import { build } from "esbuild";
import { rename, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const built = join(here, "built");
// Put in place as a whole, so that a server that runs meanwhile never finds half a build.
const draft = join(here, "node_modules", ".built");
const settings = {
  absWorkingDir: here,
  bundle: true,
  define: { "process.env.NODE_ENV": '"production"' },
  entryNames: "[name]-[hash]",
  chunkNames: "chunk-[hash]",
  assetNames: "[name]-[hash]",
  legalComments: "none",
  loader: { ".svg": "copy", ".ttf": "file" },
  logLevel: "warning",
  metafile: true,
  minify: true,
  outdir: draft,
  target: ["es2022", "chrome100", "firefox100", "safari15.4"],
};

/** Entry name → { js, css } as file names below built/. */
function named(result) {
  const names = {};
  for (const [path, output] of Object.entries(result.metafile.outputs)) {
    if (!output.entryPoint || !(output.entryPoint in entries)) continue;
    const files = { file: basename(path) };
    if (output.cssBundle) files.css = basename(output.cssBundle);
    names[entries[output.entryPoint]] = files;
  }
  return names;
}

const entries = {
  "node_modules/monaco-editor/esm/vs/editor/editor.worker.js": "editor",
  "node_modules/monaco-editor/esm/vs/language/json/json.worker.js": "json",
  "node_modules/monaco-graphql/esm/graphql.worker.js": "graphql",
  "source/graphiql.tsx": "graphiql",
  "source/shop.tsx": "shop",
  "source/club.tsx": "club",
  "source/clerk.tsx": "clerk",
  "source/icon.svg": "icon",
};
const [workers, pages] = [Object.keys(entries).slice(0, 3), Object.keys(entries).slice(3)];

await rm(draft, { recursive: true, force: true });
// Workers come first, because the page that starts them must know their hashed names.
const workerFiles = named(await build({ ...settings, entryPoints: workers, format: "iife" }));
const workerNames = Object.fromEntries(Object.entries(workerFiles).map(([name, { file }]) => [name, file]));
const pageFiles = named(
  await build({
    ...settings,
    define: { ...settings.define, WORKERS: JSON.stringify(workerNames) },
    entryPoints: pages,
    format: "esm",
    jsx: "automatic",
    splitting: true,
  }),
);
await writeFile(join(draft, "manifest.json"), JSON.stringify(pageFiles, null, 2) + "\n");
await rm(built, { recursive: true, force: true });
await rename(draft, built);
process.stdout.write(`built ${Object.keys(pageFiles).join(", ")} into ${relative(process.cwd(), built)}\n`);
