// The audits of GraphQL over HTTP: node audits.mjs URL → [{id, name, status, reason}]
import { serverAudits } from "graphql-http";

const report = [];
for (const audit of serverAudits({ url: process.argv[2] })) {
  const result = await audit.fn();
  report.push({ id: audit.id, name: audit.name, status: result.status, reason: result.reason });
}
console.log(JSON.stringify(report));
