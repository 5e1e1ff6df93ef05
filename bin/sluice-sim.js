#!/usr/bin/env node
import { launch } from "./launch.js";

launch("../devices-sim/main.ts");
