// One gateway for a whole file: the clients are told apart by their names and topics.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test as base } from "../../fixtures.ts";
import { startGateway } from "../../gateway-process.ts";

export const test = base.extend("gateway", { scope: "file" }, async ({}, { onCleanup }) => {
  const dir = await mkdtemp(join(tmpdir(), "sluice-clients-"));
  const gateway = await startGateway({ dataDir: join(dir, "data") });
  onCleanup(async () => {
    await gateway.end("SIGKILL");
    await rm(dir, { recursive: true, force: true });
  });
  return gateway;
});
