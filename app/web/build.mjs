import { build } from "esbuild";
const t=Date.now();
const r = await build({
  entryPoints: { graphiql: "source/graphiql.tsx", "editor.worker": "node_modules/monaco-editor/esm/vs/editor/editor.worker.js", "json.worker": "node_modules/monaco-editor/esm/vs/language/json/json.worker.js", "graphql.worker":"node_modules/monaco-graphql/esm/graphql.worker.js" },
  bundle: true, minify: true, splitting: true, format: "esm", target: "es2022", outdir: "built", entryNames: "[name]-[hash]", jsx: "automatic",
  loader: { ".ttf": "file", ".svg":"file" }, metafile: true, define: {"process.env.NODE_ENV": '"production"'}, legalComments: "linked",
});
console.log(Date.now()-t);
for (const [k,v] of Object.entries(r.metafile.outputs).sort((a,b)=>b[1].bytes-a[1].bytes).slice(0,14)) console.log(k, v.bytes, v.entryPoint??"");
