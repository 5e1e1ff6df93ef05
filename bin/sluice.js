#!/usr/bin/env node
// The launcher: plain JavaScript that any Node can parse. It starts src/main.ts on a Node that is new enough.
import { launch } from "./launch.js";

launch("../src/main.ts");
