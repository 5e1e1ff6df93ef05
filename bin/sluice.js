#!/usr/bin/env node
// The launcher: plain JavaScript that any Node can parse. It starts src/main.ts on a Node that is new enough.
import { launch } from "./launch.js";

// Left to itself V8 lets the young generation grow to 134 MB while 10,000 clients connect, and keeps it: 24 kB a client
// instead of 17 (`npm run bench -- idle`). Ingest costs the same.
// The readings of a batch survive the first small collections of a sink's thread; V8 would conclude, in two runs of five, that
// they are best made in the old generation, and collect that for a quarter of the thread's time (`npm run bench -- sinks`, drained).
launch("../src/main.ts", ["--max-semi-space-size=16", "--no-allocation-site-pretenuring"]);
