#!/usr/bin/env node
// The launcher: plain JavaScript that any Node can parse. It starts src/main.ts on a Node that is new enough.
import { launch } from "./launch.js";

// Left to itself V8 lets the young generation grow to 134 MB while 10,000 clients connect, and keeps it: 24 kB a client
// instead of 17 (`npm run bench -- idle`). Ingest costs the same.
launch("../src/main.ts", ["--max-semi-space-size=16"]);
